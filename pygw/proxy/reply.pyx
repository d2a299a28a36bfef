# reply.pyx: what the gateway answers itself. See reply.pxd.

from libc.stdint cimport uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memset, strlen

from ..field cimport TOKEN_GRPC_MESSAGE, TOKEN_GRPC_STATUS, Field
from ..http2.connection cimport Connection
from ..http2.constants cimport NO_ERROR
from ..http2.stream cimport STREAM_END_RECEIVED, Stream
from .grpc_wire cimport percent_encode

cdef enum:
    MESSAGE_MAX = 1024           # octets of a grpc-message before it is encoded; ours are shorter, regexes are not
    TEXT_MAX = 999               # of a text body: what write_number() can write


cdef inline int encode(Connection connection, const char* name, const uint8_t* value, Py_ssize_t length,
                       bint index) except -1:
    return connection.encoder.encode_pair(
        &connection.out, <const uint8_t*>name, <uint32_t>strlen(name), value, <uint32_t>length, index
    )


cdef inline Py_ssize_t write_number(int number, uint8_t* out) noexcept:
    cdef Py_ssize_t length = 0
    if number >= 100:
        out[length] = <uint8_t>(48 + number // 100 % 10)
        length += 1
    if number >= 10:
        out[length] = <uint8_t>(48 + number // 10 % 10)
        length += 1
    out[length] = <uint8_t>(48 + number % 10)
    return length + 1


cdef int reply_trailers_only(
    Connection connection, Stream* stream, int grpc_status, const uint8_t* message, Py_ssize_t length,
    uint32_t pushback_ms=0
) except -1:
    cdef uint8_t[4] digits
    cdef char[12] pushback
    cdef uint8_t[3 * MESSAGE_MAX] encoded
    cdef bint request_ended = (stream.flags & STREAM_END_RECEIVED) != 0
    connection.begin_headers(stream)
    encode(connection, ":status", b"200", 3, True)
    encode(connection, "content-type", b"application/grpc", 16, True)
    encode(connection, "grpc-status", digits, write_number(grpc_status, digits), True)
    if length > 0:
        # Texts differ with every backend and route: they would only push better entries out of the table.
        encode(
            connection, "grpc-message", encoded,
            percent_encode(message, min(length, <Py_ssize_t>MESSAGE_MAX), encoded), False,
        )
    if pushback_ms > 0:
        encode(
            connection, "grpc-retry-pushback-ms", <const uint8_t*>pushback,
            snprintf(pushback, sizeof(pushback), "%u", pushback_ms), False,
        )
    if not request_ended:
        # end_headers() may give the stream back only when both sides have ended: not here.
        connection.end_headers(stream, True)
        return connection.finish_with_reset(stream, NO_ERROR)
    return connection.end_headers(stream, True)


cdef int reply_trailers(
    Connection connection, Stream* stream, int grpc_status, const uint8_t* message, Py_ssize_t length
) except -1:
    cdef Field[2] fields
    cdef uint8_t[4] digits
    cdef uint8_t[3 * MESSAGE_MAX] encoded
    cdef bint request_ended = (stream.flags & STREAM_END_RECEIVED) != 0
    memset(fields, 0, sizeof(fields))
    fields[0].name = b"grpc-status"
    fields[0].name_length = 11
    fields[0].value = digits
    fields[0].value_length = <uint32_t>write_number(grpc_status, digits)
    fields[0].token = TOKEN_GRPC_STATUS
    fields[1].name = b"grpc-message"
    fields[1].name_length = 12
    fields[1].value = encoded
    fields[1].value_length = <uint32_t>percent_encode(message, min(length, <Py_ssize_t>MESSAGE_MAX), encoded)
    fields[1].token = TOKEN_GRPC_MESSAGE
    connection.send_trailers(stream, fields, 2 if length > 0 else 1)
    if not request_ended:
        return connection.finish_with_reset(stream, NO_ERROR)
    return 0


cdef int reply_http(
    Connection connection, Stream* stream, int status, const uint8_t* text, Py_ssize_t length, bint head_only
) except -1:
    cdef uint8_t[4] digits
    cdef uint8_t[8] size
    cdef bint request_ended = (stream.flags & STREAM_END_RECEIVED) != 0
    length = min(length, <Py_ssize_t>TEXT_MAX)
    connection.begin_headers(stream)
    encode(connection, ":status", digits, write_number(status, digits), True)
    encode(connection, "content-type", b"text/plain; charset=utf-8", 25, True)
    encode(connection, "content-length", size, write_number(<int>length, size), False)
    if status == 405:
        encode(connection, "allow", b"POST", 4, False)
    if head_only or length == 0:
        connection.end_headers(stream, True)
    else:
        connection.end_headers(stream, False)
        connection.send_data(stream, text, length, True)
    if not request_ended:
        return connection.finish_with_reset(stream, NO_ERROR)
    return 0
