# call.pxd: one gRPC call: a downstream Stream joined to an upstream Stream. No sockets, no routing decisions.
#
# A Call begins when a backend was picked for a request (Downstream.on_request) and ends when both its streams
# are gone. Its phases: waiting (no upstream yet: `head` and `early` hold what the client sent, within its
# window) -> joined (up is set) -> finished (the client has its status; counted and logged once) -> freed.
# A mirror is a Call without a client: it gets copies of what its primary sends and its answers are dropped.
#
# Connections are held as Peers, never as Downstream or Upstream. What a hook of either end learns comes here;
# who decides what the client sees is `call_failed`.

from libc.stdint cimport uint8_t, uint32_t
from ..field cimport Field
from ..http2.connection cimport CloseCause
from ..http2.message cimport ResponseHead
from .call_record cimport Call, EndpointLoad
from .context cimport Context
from .peer cimport Peer

cdef Call* new_call(Context context) except NULL
# Frees the call when nothing holds it any more. Returns True if it did.
cdef bint release_call(Call* call) noexcept

cdef void enqueue_call(Call* call, EndpointLoad* load) noexcept
cdef void unqueue_call(Call* call) noexcept

# Joins the call to a new stream of `upstream` and sends `fields` (its own `head` where NULL) and what was held
# back. Returns False where the upstream takes no stream now.
cdef bint join_call(Call* call, Peer upstream, const Field* fields, Py_ssize_t count) except -1

# ===== from the client =====
cdef int call_request_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1
cdef int call_request_trailers(Call* call, const Field* fields, Py_ssize_t count) except -1
cdef int call_request_drained(Call* call, Py_ssize_t octets) except -1     # went to the upstream
cdef int call_client_gone(Call* call, CloseCause cause) except -1

# ===== from the backend =====
cdef int call_response(Call* call, ResponseHead* head, Field* fields, Py_ssize_t count, bint end_stream) except -1
cdef int call_response_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1
cdef int call_response_trailers(Call* call, Field* fields, Py_ssize_t count, Field* grpc_status) except -1
cdef int call_response_drained(Call* call, Py_ssize_t octets) except -1    # went to the client
cdef int call_upstream_gone(Call* call, CloseCause cause, uint32_t code) except -1

# Answers a CALL_UNSERVED with its http_status and a short text.
cdef int call_refused(Call* call) except -1

# Ends the call towards the client in the form that fits how far it is (interface.md "What a caller sees"), and
# towards the backend with RST_STREAM(CANCEL). `message` becomes grpc-message; `reason` is for the log.
cdef int call_failed(Call* call, int grpc_status, const uint8_t* message, Py_ssize_t length, const char* reason) except -1
