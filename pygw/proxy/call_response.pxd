# call_response.pxd: a call's way from its backend to its client: response heads, DATA, trailers. No requests.

from libc.stdint cimport uint8_t
from ..field cimport Field
from ..http2.message cimport ResponseHead
from .call_record cimport Call

cdef int call_response(Call* call, ResponseHead* head, Field* fields, Py_ssize_t count, bint end_stream) except -1
cdef int call_response_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1
cdef int call_response_trailers(Call* call, Field* fields, Py_ssize_t count, Field* grpc_status) except -1
cdef int call_response_drained(Call* call, Py_ssize_t octets) except -1    # went to the client
