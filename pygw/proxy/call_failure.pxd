# call_failure.pxd: calls that do not end as their backend had it: the form in which their client hears of it.
#
# Who finds out that a call has failed is elsewhere.

from libc.stdint cimport uint8_t, uint32_t
from ..field cimport Field
from ..http2.connection cimport CloseCause
from .call_record cimport Call

# Ends the call towards the client in the form that fits how far it is, and towards the backend with
# RST_STREAM(CANCEL). `message` becomes grpc-message; `reason` (static text) is for the log. What is not gRPC gets
# call.http_status, or where that is 0 the HTTP status that comes closest to `grpc_status`.
cdef int call_failed(
    Call* call, int grpc_status, const uint8_t* message, Py_ssize_t length, const char* reason
) except -1
# The same with a static text.
cdef int fail_text(Call* call, int grpc_status, const char* message, const char* reason) except -1
# Answers with these fields and no content. The request may still be on its way.
cdef int call_answered(Call* call, const Field* fields, Py_ssize_t count) except -1
# Answers a CALL_UNSERVED with its http_status and a short text.
cdef int call_refused(Call* call) except -1

# The client's stream ended before the call did.
cdef int call_client_gone(Call* call, CloseCause cause) except -1
# The backend's stream ended before the call did. Where nothing of the request was processed, it is sent again.
cdef int call_upstream_gone(Call* call, CloseCause cause, uint32_t code) except -1
