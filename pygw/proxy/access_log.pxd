# access_log.pxd: one JSON line for each finished call, collected in C and handed out once per loop turn.
#
# Knows no calls: it gets an AccessEntry, whose texts it copies. Every text may be hostile: it is written as valid
# JSON in valid UTF-8 (a malformed sequence becomes U+FFFD), controls are escaped, and TEXT_MAX bounds it.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from ..http2.buffer cimport Buffer

cdef enum:
    TEXT_MAX = 2048              # octets of one text; what is longer is cut and ends with U+2026
    FLUSH_SIZE = 65536           # octets that are handed out at once

cdef enum EndedBy:
    ENDED_BY_BACKEND             # the ordinary end too: it sent the grpc-status
    ENDED_BY_CLIENT
    ENDED_BY_GATEWAY

cdef struct Text:                # length 0: left out of the line
    const uint8_t* octets
    Py_ssize_t length

cdef struct AccessEntry:         # zero it, then fill what is known
    double time                  # when the call began, seconds since 1970
    Text client                  # client_address()
    Text method                  # left out where it is POST
    Text authority
    Text path
    Text listener
    Text route                   # namespace/name
    Text rule                    # its name
    int32_t rule_index           # -1: no rule
    Text backend
    Text endpoint                # address:port
    Text user_agent
    int32_t http_status          # 0: no response was begun
    int32_t grpc_status          # -1: none
    EndedBy ended_by
    const char* reason           # why, where it did not end by the backend's own grpc-status; static text or NULL
    uint32_t attempts            # 0: never sent to an endpoint
    uint64_t duration_us
    uint64_t upstream_us         # from the first attempt to the response's head; 0 with attempts: none came
    uint64_t request_octets      # DATA
    uint64_t response_octets
    uint64_t request_messages
    uint64_t response_messages

cdef class AccessLog:
    cdef:
        object loop
        object sink              # callable(bytes)
        Buffer lines
        bint flush_scheduled
        int64_t second           # what `clock` holds
        char[20] clock           # "2026-11-25T03:00:00"
        readonly uint64_t line_count
        readonly uint64_t lost   # lines that the sink could not take

    cdef int write(self, const AccessEntry* entry) except -1
    cdef int put_time(self, double seconds) except -1
    # Hands out what is there. The loop calls it; call it once more at the end.
    cpdef int flush(self) except -1
    cdef int hand_out(self) except -1
