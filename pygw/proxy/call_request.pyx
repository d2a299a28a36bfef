# call_request.pyx: a call's way from its client to its backend, and its mirrors'. See call_request.pxd.
#
# RequestMirror: answers are ignored, and the primary is never held up.

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint64_t

from ..field cimport TOKEN_GRPC_TIMEOUT, Field
from ..http2.buffer cimport buffer_append
from ..http2.stream cimport Stream
from .call_life cimport down_peer, end_mirror, unqueue_call, up_peer
from .call_record cimport (
    CALL_GRPC,
    CALL_HEAD,
    CALL_MIRROR,
    CALL_RELEASED,
    CALL_REQUEST_ENDED,
    CALL_RETRIED,
    Call,
    LastSection,
    Origin,
)
from .context cimport Context
from .grpc_wire cimport TIMEOUT_LENGTH, format_timeout, track
from .header_edits cimport set_field
from .held_request cimport (
    held_octets,
    hold_data,
    hold_encoded,
    hold_trailers,
    is_over_budget,
    let_request_go,
)
from .peer cimport Peer


# ===== joining =====

# The grpc-timeout that is left now (gRPC over HTTP2 "Requests"). Behind all other fields, so that what is before it is
# the same in many calls.
cdef int encode_timeout(Context context, Call* call, Peer upstream) except -1:
    cdef uint8_t[TIMEOUT_LENGTH] text
    cdef Field field
    cdef Py_ssize_t length = format_timeout(<int64_t>call.deadline_us - <int64_t>context.time_us(), text)
    set_field(&field, b"grpc-timeout", 12, text, length, TOKEN_GRPC_TIMEOUT)
    field.flags = 0              # another one with every call: not worth an entry of the table
    return upstream.encoder.encode_field(&upstream.out, &field)


# What does not go to a client, or was sent again already, or is too much, is not sent again.
cdef inline bint may_be_retried(Context context, Call* call) noexcept:
    return not call.flags & (CALL_MIRROR | CALL_RETRIED) and not is_over_budget(context, call, 0)


cdef bint join_call(Call* call, Peer upstream) except -1:
    cdef Py_ssize_t i
    if not begin_join(call, upstream):
        return False
    for i in range(call.head.count):
        upstream.encoder.encode_field(&upstream.out, &call.head.fields[i])
    return end_join(call, upstream, may_be_retried(<Context>call.context, call))


cdef bint join_new_call(
    Call* call, Peer upstream, const Field* fields, Py_ssize_t count, const Origin* origin
) except -1:
    cdef bint retriable
    cdef Py_ssize_t i, start
    cdef uint64_t insertions
    if not begin_join(call, upstream):
        return False
    start = upstream.out.length
    insertions = upstream.encoder.table.insertions
    for i in range(count):
        upstream.encoder.encode_field(&upstream.out, &fields[i])
    retriable = may_be_retried(<Context>call.context, call)
    if retriable and not upstream.failed:
        hold_encoded(
            call, fields, count, upstream.encoder, insertions, upstream.out.data + start,
            upstream.out.length - start, origin,
        )
    return end_join(call, upstream, retriable)


cdef bint join_repeated_call(Call* call, Peer upstream) except -1:
    cdef LastSection* last = &call.load.last
    cdef bint retriable
    if not begin_join(call, upstream):
        return False
    buffer_append(&upstream.out, last.block, last.length)
    retriable = may_be_retried(<Context>call.context, call)
    if retriable:
        last.fields.references += 1
        call.head = last.fields
    return end_join(call, upstream, retriable)


cdef bint begin_join(Call* call, Peer upstream) except -1:
    cdef Context context = <Context>call.context
    cdef Stream* stream = upstream.open_stream(call)
    if stream == NULL:
        return False
    stream.no_content = call.flags & CALL_HEAD
    unqueue_call(call)
    context.disarm(&call.pending)
    call.upstream = <PyObject*>upstream
    call.up = stream
    call.load.active += 1
    call.load.used_us = context.turn_us
    call.attempts += 1
    call.sent_us = context.turn_us
    context.counters.upstream_streams += 1
    upstream.begin_headers(stream)
    return True


cdef bint end_join(Call* call, Peer upstream, bint retriable) except -1:
    if call.deadline_us != 0 and call.flags & CALL_GRPC:
        encode_timeout(<Context>call.context, call, upstream)
    upstream.end_headers(
        call.up, call.flags & CALL_REQUEST_ENDED and call.body.length == 0 and call.trailers == NULL
    )
    if call.body.length > 0 or call.trailers != NULL:
        send_held(call, upstream)
    if not retriable:
        let_request_go(call)
    return True


# What came before the call was joined. Sending may end the call, or put it on another connection.
cdef int send_held(Call* call, Peer upstream) except -1:
    cdef Py_ssize_t sent
    if call.body.length > 0 and call.upstream == <PyObject*>upstream:
        sent = upstream.send_data(
            call.up, held_octets(call), call.body.length, call.flags & CALL_REQUEST_ENDED and call.trailers == NULL
        )
        if sent > 0 and call.down != NULL:
            # Of what was credited when it was sent before, nothing is credited again: credit() knows what is due.
            down_peer(call).credit(call.down, sent)
    if call.trailers != NULL and call.upstream == <PyObject*>upstream:
        upstream.send_trailers(call.up, call.trailers.fields, call.trailers.count)
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
        return hold_data(call, data, length)
    if call.head != NULL:
        if is_over_budget(<Context>call.context, call, length):
            let_request_go(call)
        else:
            hold_data(call, data, length)
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
    if not call.flags & CALL_RELEASED and (call.up == NULL or call.head != NULL):
        hold_trailers(call, fields, count)
    if call.up == NULL:
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
        waiting = <Py_ssize_t>mirror.body.length if mirror.up == NULL else up_peer(mirror).pending_octets(mirror.up)
        if waiting + length > context.mirror_buffer:
            # A mirror that is slower than its primary loses the call: the primary's pace is not its to set.
            end_mirror(mirror, 8)
        else:
            pass_data(mirror, data, length, end_stream)
        mirror = next_behind(call)
    return 0
