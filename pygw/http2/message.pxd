# message.pxd: is a header section well-formed? RFC 9113 §8, on decoded Field arrays.
#
# Knows no frames, streams or routes. The functions return NULL for a well-formed message, else a static
# text that says what is wrong: the caller resets the stream with PROTOCOL_ERROR (§8.1.1) and repairs
# nothing. The heads borrow their Fields: they live as long as the array they point into.

from libc.stdint cimport int64_t, uint64_t
from ..field cimport Field

cdef struct RequestHead:
    Field* method
    Field* scheme                # NULL never, as with path: both are required (§8.3.1)
    Field* authority             # :authority, or the Host field where there is none, or NULL (scheme not http(s))
    Field* path
    Field* host                  # the first of each of these, or NULL
    Field* content_type
    Field* te
    Field* grpc_timeout
    Field* x_forwarded_for
    Field* user_agent
    int64_t content_length       # -1: none
    bint is_grpc                 # content-type application/grpc, alone or followed by '+' or ';'
    bint regular_seen            # a field that is no pseudo-header field
    int x_forwarded_for_span     # fields from the first x-forwarded-for to the last one: it may come in several lines

cdef struct RunHead:             # of the run that began the last request of a connection; zeroed there was none
    uint64_t number              # HpackDecoder.run_number
    RequestHead head
    bint is_request              # well-formed even if nothing follows

cdef struct ResponseHead:
    Field* grpc_status           # the first of each, or NULL; with grpc_status the head may be a Trailers-Only
    Field* content_type
    int64_t content_length       # -1: none
    int status                   # 100..999, never 101

# The header section that opens a request, as a server receives it.
cdef const char* check_request(Field* fields, Py_ssize_t count, RequestHead* head) noexcept
# The same for a section whose first `run_fields` Fields are the decoder's run: these are judged once for each run.
cdef const char* check_run_request(
    RunHead* last, uint64_t run_number, Py_ssize_t run_fields, Field* fields, Py_ssize_t count, RequestHead* head
) noexcept
# An empty one.
cdef void begin_request(RequestHead* head) noexcept
# The header section of a response, 1xx too (those are told apart by `status` and left to the caller).
cdef const char* check_response(Field* fields, Py_ssize_t count, ResponseHead* head) noexcept
# The trailer section of a request or a response; grpc_status becomes the first one or NULL.
cdef const char* check_trailers(Field* fields, Py_ssize_t count, Field** grpc_status) noexcept
