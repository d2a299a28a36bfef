# connection_hooks.pyx: hooks that do nothing. See connection_hooks.pxd.


cdef class ConnectionHooks:

    cdef int on_output(self) except -1:
        return 0

    cdef int on_output_full(self) except -1:
        return 0

    cdef int on_ready(self) except -1:
        return 0

    cdef int on_settings(self) except -1:
        return 0

    cdef int on_request(self, Stream* stream, RequestHead* head, Field* fields, Py_ssize_t count,
                        bint end_stream, bint too_large) except -1:
        return 0

    cdef int on_response(self, Stream* stream, ResponseHead* head, Field* fields, Py_ssize_t count,
                         bint end_stream) except -1:
        return 0

    cdef int on_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
        return 0

    cdef int on_trailers(self, Stream* stream, Field* fields, Py_ssize_t count, Field* grpc_status) except -1:
        return 0

    cdef int on_drained(self, Stream* stream, Py_ssize_t octets) except -1:
        return 0

    cdef int on_holding(self) except -1:
        return 0

    cdef int on_closed(self, Stream* stream, CloseCause cause, uint32_t code) except -1:
        return 0

    cdef int on_stream_available(self) except -1:
        return 0

    cdef int on_goaway(self, uint32_t last_stream_id, uint32_t code) except -1:
        return 0

    cdef int on_ping_ack(self, uint64_t payload) except -1:
        return 0

    cdef int on_bad_preface(self, const uint8_t* data, Py_ssize_t length) except -1:
        return 0

    cdef int on_failed(self) except -1:
        return 0
