# call_request.pxd: a call's way from its client to its backend: the joining of its streams, DATA, trailers, and the
# copies that mirrors get. No answers.

from libc.stdint cimport uint8_t
from ..field cimport Field
from .call_record cimport Call, Origin
from .peer cimport Peer

# Joins the call to a new stream of `upstream` and sends its `head` and what was held back. Returns False where the
# upstream takes no stream now.
cdef bint join_call(Call* call, Peer upstream) except -1
# The same for a new call with these fields, made of `origin`, and for one whose block is the Endpoint's last.
cdef bint join_new_call(
    Call* call, Peer upstream, const Field* fields, Py_ssize_t count, const Origin* origin
) except -1
cdef bint join_repeated_call(Call* call, Peer upstream) except -1
cdef int call_request_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1
cdef int call_request_trailers(Call* call, const Field* fields, Py_ssize_t count) except -1
cdef int call_request_drained(Call* call, Py_ssize_t octets) except -1     # went to the upstream
