# call_request.pyx: a call's way from its client to its backend, and its mirrors'. See call_request.pxd.
#
# RequestMirror: answers are ignored, and the primary is never held up.

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ..field cimport TOKEN_GRPC_TIMEOUT, Field
from ..http2.buffer cimport buffer_append
from ..http2.stream cimport FieldBlock, Stream, copy_fields
from .call_life cimport down_peer, end_mirror, forget_section, unqueue_call, up_peer
from .call_record cimport CALL_GRPC, CALL_HEAD, CALL_RELEASED, CALL_REQUEST_ENDED, Call
from .context cimport Context
from .grpc_wire cimport format_timeout, track
from .peer cimport Peer


# ===== joining =====

# The grpc-timeout that is left now, in place of the one that came (gRPC over HTTP2 "Requests").
cdef void renew_timeout(Context context, Call* call, FieldBlock* head) noexcept:
    cdef Py_ssize_t i
    cdef Field* field
    cdef uint8_t* text = context.scratch_text
    for i in range(head.count):
        field = &head.fields[i]
        if field.token == TOKEN_GRPC_TIMEOUT:
            field.value = text
            field.value_length = <uint32_t>format_timeout(<int64_t>call.deadline_us - <int64_t>context.time_us(), text)
            field.hash = 0


cdef bint join_call(Call* call, Peer upstream, const Field* fields, Py_ssize_t count) except -1:
    cdef Context context = <Context>call.context
    cdef Stream* stream = upstream.open_stream(call)
    cdef bint ended = call.flags & CALL_REQUEST_ENDED
    cdef Py_ssize_t i
    if stream == NULL:
        return False
    stream.no_content = call.flags & CALL_HEAD
    if fields == NULL:
        if call.deadline_us != 0 and call.flags & CALL_GRPC:
            renew_timeout(context, call, call.head)
        fields = call.head.fields
        count = call.head.count
    unqueue_call(call)
    context.disarm(&call.pending)
    call.upstream = <PyObject*>upstream
    call.up = stream
    call.load.active += 1
    call.attempts += 1
    call.sent_us = context.turn_us
    context.counters.upstream_streams += 1
    upstream.begin_headers(stream)
    for i in range(count):
        upstream.encoder.encode_field(&upstream.out, &fields[i])
    upstream.end_headers(stream, ended and call.early.length == 0 and call.early_trailers == NULL)
    if call.early.length > 0 or call.early_trailers != NULL:
        send_early(call, upstream, ended)
    forget_section(call)
    return True


# What came while the call waited. The call may end meanwhile.
cdef int send_early(Call* call, Peer upstream, bint ended) except -1:
    cdef Py_ssize_t sent
    if call.early.length > 0 and call.up != NULL:
        sent = upstream.send_data(
            call.up, call.early.data, call.early.length, ended and call.early_trailers == NULL
        )
        if sent > 0 and call.down != NULL:
            down_peer(call).credit(call.down, sent)
    if call.early_trailers != NULL and call.up != NULL:
        upstream.send_trailers(call.up, call.early_trailers.fields, call.early_trailers.count)
    return 0


# ===== DATA and trailers =====

cdef int call_request_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
    cdef uint64_t messages = call.request.messages
    if call.flags & CALL_GRPC:
        track(&call.request, data, length)
    call.request_octets += <uint64_t>length
    call.series.received_octets += <uint64_t>length
    call.series.request_messages += call.request.messages - messages
    if end_stream:
        call.flags |= CALL_REQUEST_ENDED
    if call.mirrors != NULL:
        mirror_data(call, data, length, end_stream)
    return pass_data(call, data, length, end_stream)


cdef int pass_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
    cdef Py_ssize_t sent
    if call.up == NULL:
        if length == 0 or call.flags & CALL_RELEASED:
            return 0
        # Not credited, so the client's window bounds it.
        return buffer_append(&call.early, data, length)
    sent = up_peer(call).send_data(call.up, data, length, end_stream)
    if sent > 0 and call.down != NULL:
        down_peer(call).credit(call.down, sent)
    return 0


cdef int call_request_trailers(Call* call, const Field* fields, Py_ssize_t count) except -1:
    cdef Call* mirror
    call.flags |= CALL_REQUEST_ENDED
    mirror = next_behind(call)
    while mirror != NULL:
        mirror.flags |= CALL_REQUEST_ENDED
        pass_trailers(mirror, fields, count)
        mirror = next_behind(call)
    return pass_trailers(call, fields, count)


cdef int pass_trailers(Call* call, const Field* fields, Py_ssize_t count) except -1:
    if call.up == NULL:
        if not call.flags & CALL_RELEASED:
            call.early_trailers = copy_fields(fields, count)
        return 0
    return up_peer(call).send_trailers(call.up, fields, count)


cdef int call_request_drained(Call* call, Py_ssize_t octets) except -1:
    if call.down != NULL:
        down_peer(call).credit(call.down, octets)
    return 0


# ===== mirrors =====

# A mirror that did not get yet what its primary has. Looked for anew each time: what one mirror does may end others,
# and the primary.
cdef Call* next_behind(Call* call) noexcept:
    cdef Call* mirror = call.mirrors
    while mirror != NULL and mirror.request_octets == call.request_octets and (
        (mirror.flags & CALL_REQUEST_ENDED) == (call.flags & CALL_REQUEST_ENDED)
    ):
        mirror = mirror.mirror_next
    return mirror


cdef int mirror_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
    cdef Context context = <Context>call.context
    cdef Call* mirror = next_behind(call)
    cdef Py_ssize_t waiting
    while mirror != NULL:
        mirror.request_octets = call.request_octets
        if end_stream:
            mirror.flags |= CALL_REQUEST_ENDED
        waiting = mirror.early.length if mirror.up == NULL else up_peer(mirror).pending_octets(mirror.up)
        if waiting + length > context.mirror_buffer:
            # A mirror that is slower than its primary loses the call: the primary's pace is not its to set.
            end_mirror(mirror, 8)
        else:
            pass_data(mirror, data, length, end_stream)
        mirror = next_behind(call)
    return 0
