# frame_writer.pxd: frames as octets (RFC 9113 §4.1, §6), appended to a Buffer. Knows no state of a connection.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from .buffer cimport Buffer, buffer_append, buffer_reserve
from .constants cimport (
    FLAG_ACK,
    FLAG_END_STREAM,
    FRAME_DATA,
    FRAME_GOAWAY,
    FRAME_HEAD_LENGTH,
    FRAME_PING,
    FRAME_RST_STREAM,
    FRAME_SETTINGS,
    FRAME_WINDOW_UPDATE,
    SETTING_LENGTH,
)
from .wire cimport store_16, store_24, store_32, store_64

cdef inline void store_frame_head(
    uint8_t* at, uint32_t length, uint8_t type, uint8_t flags, uint32_t stream_id
) noexcept:
    store_24(at, length)
    at[3] = type
    at[4] = flags
    store_32(at + 5, stream_id)

# Room for a whole frame, its head written; `length` more octets are counted as in use.
cdef inline uint8_t* append_frame(
    Buffer* out, uint32_t length, uint8_t type, uint8_t flags, uint32_t stream_id
) except NULL:
    cdef uint8_t* at = buffer_reserve(out, FRAME_HEAD_LENGTH + <Py_ssize_t>length)
    store_frame_head(at, length, type, flags, stream_id)
    out.length += FRAME_HEAD_LENGTH + <Py_ssize_t>length
    return at + FRAME_HEAD_LENGTH

cdef inline int append_data(
    Buffer* out, uint32_t stream_id, const uint8_t* data, uint32_t length, bint end_stream
) except -1:
    cdef uint8_t* at = append_frame(out, length, FRAME_DATA, FLAG_END_STREAM if end_stream else 0, stream_id)
    if length:
        memcpy(at, data, length)
    return 0

cdef inline int append_rst_stream(Buffer* out, uint32_t stream_id, uint32_t error_code) except -1:
    store_32(append_frame(out, 4, FRAME_RST_STREAM, 0, stream_id), error_code)
    return 0

cdef inline int append_window_update(Buffer* out, uint32_t stream_id, uint32_t increment) except -1:
    store_32(append_frame(out, 4, FRAME_WINDOW_UPDATE, 0, stream_id), increment)
    return 0

cdef inline int append_ping(Buffer* out, uint64_t payload, bint ack) except -1:
    store_64(append_frame(out, 8, FRAME_PING, FLAG_ACK if ack else 0, 0), payload)
    return 0

cdef inline int append_settings_ack(Buffer* out) except -1:
    append_frame(out, 0, FRAME_SETTINGS, FLAG_ACK, 0)
    return 0

# `debug` is static text (§6.8: additional debug data), or NULL.
cdef inline int append_goaway(Buffer* out, uint32_t last_stream_id, uint32_t error_code, const char* debug) except -1:
    cdef uint32_t length = <uint32_t>strlen(debug) if debug != NULL else 0
    cdef uint8_t* at = append_frame(out, 8 + length, FRAME_GOAWAY, 0, 0)
    store_32(at, last_stream_id)
    store_32(at + 4, error_code)
    if length:
        memcpy(at + 8, debug, length)
    return 0

# One parameter of the SETTINGS frame whose head was appended just before; set its length with end_settings().
cdef inline int append_setting(Buffer* out, uint32_t setting, uint32_t value) except -1:
    cdef uint8_t[6] octets
    store_16(octets, setting)
    store_32(octets + 2, value)
    return buffer_append(out, octets, SETTING_LENGTH)

cdef inline void end_settings(Buffer* out, Py_ssize_t start) noexcept:
    store_24(out.data + start, <uint32_t>(out.length - start - FRAME_HEAD_LENGTH))
