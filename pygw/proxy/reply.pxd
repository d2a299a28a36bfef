# reply.pxd: what the gateway answers itself (interface.md "What a caller sees"). No calls, no routes.

from libc.stdint cimport uint8_t, uint32_t
from ..http2.connection cimport Connection
from ..http2.stream cimport Stream

# Trailers-Only: HTTP 200, content-type application/grpc, grpc-status, percent-encoded grpc-message, END_STREAM.
# A request that is not finished is reset with NO_ERROR behind it (RFC 9113 §8.1).

# `pushback_ms` tells clients when to retry (gRFC A6, grpc-retry-pushback-ms); 0: nothing.
cdef int reply_trailers_only(
    Connection connection, Stream* stream, int grpc_status, const uint8_t* message, Py_ssize_t length,
    uint32_t pushback_ms=*
) except -1
# Trailers with grpc-status behind response DATA that was relayed.
cdef int reply_trailers(
    Connection connection, Stream* stream, int grpc_status, const uint8_t* message, Py_ssize_t length
) except -1
# A plain HTTP response with a short text body.
cdef int reply_http(
    Connection connection, Stream* stream, int status, const uint8_t* text, Py_ssize_t length, bint head_only
) except -1
