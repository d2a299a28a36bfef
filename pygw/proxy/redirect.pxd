# redirect.pxd: RequestRedirect of an HTTPRoute (Gateway API, HTTPRequestRedirectFilter).

from .._fastmatch cimport Found, RouteTable
from ..http2.message cimport RequestHead
from .call_record cimport Call

# The URL to go to. `scheme` is that of the request, `port` the listener's own.
cdef bytes location_of(RouteTable table, const Found* found, const RequestHead* head, const char* scheme, int port)
# Answers with it; response header modifiers of the rule apply.
cdef int answer_redirect(Call* call, bytes location) except -1
