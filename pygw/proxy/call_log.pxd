# call_log.pxd: a finished call as an AccessEntry of the access log.

from .call_record cimport Call
from .context cimport Context

cdef int log_call(Context context, const Call* call) except -1
