# call.pyx: one gRPC call, from its upstream stream to its last octet. See call.pxd.
#
# Rule: a sending function may end a stream and so call back into on_closed(). Therefore a Call lets go of a
# stream (`detach_down`, `detach_up`) before it sends what may be the stream's last frame.

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memset, strlen

from .._fastmatch cimport ListRef, RouteTable
from ..field cimport TOKEN_GRPC_TIMEOUT, Field
from ..http2.buffer cimport buffer_append, buffer_free
from ..http2.connection cimport (
    CLOSED_BY_ERROR,
    CLOSED_BY_PEER,
    CLOSED_CONNECTION,
    CLOSED_TOO_LARGE,
    CLOSED_UNPROCESSED,
    CloseCause,
    Connection,
)
from ..http2.constants cimport CANCEL, ENHANCE_YOUR_CALM, INTERNAL_ERROR, NO_ERROR
from ..http2.message cimport ResponseHead
from ..http2.stream cimport STREAM_END_SENT, FieldBlock, Stream, copy_fields, free_fields
from .access_log cimport ENDED_BY_BACKEND, ENDED_BY_CLIENT, ENDED_BY_GATEWAY, EndedBy
from .call_log cimport log_call
from .call_record cimport (
    CALL_DELIVERED,
    CALL_FINISHED,
    CALL_GRPC,
    CALL_HEAD,
    CALL_MIRROR,
    CALL_REQUEST_ENDED,
    CALL_RESPONSE_BEGUN,
    CALL_RESPONSE_ENDED,
    Call,
    CallQueue,
    EndpointLoad,
)
from .call_metrics cimport finish as finish_series
from .context cimport Context
from .grpc_wire cimport TIMEOUT_LENGTH, at_boundary, format_timeout, track
from .header_edits cimport apply_edits
from .peer cimport Peer
from .reply cimport reply_http, reply_trailers, reply_trailers_only

cdef enum:
    CALL_CHUNK = 64
    INTERIM_MAX = 16             # 1xx responses of one call; more is a flood (RFC 9110 §15.2 knows no bound)


cdef inline Peer down_peer(Call* call):
    return <Peer>call.downstream


cdef inline Peer up_peer(Call* call):
    return <Peer>call.upstream


# ===== life =====

cdef Call* new_call(Context context) except NULL:
    cdef Call* call = <Call*>context.free_calls
    cdef Call* chunk
    cdef Py_ssize_t i
    if call == NULL:
        # Chunks are kept for the life of the worker: as many as there were calls at one time.
        chunk = <Call*>calloc(CALL_CHUNK, sizeof(Call))
        if chunk == NULL:
            raise MemoryError()
        for i in range(CALL_CHUNK):
            chunk[i].next = call
            call = &chunk[i]
    context.free_calls = call.next
    memset(call, 0, sizeof(Call))
    call.context = <PyObject*>context
    call.grpc_status = -1
    call.listener = -1
    call.next = <Call*>context.calls
    if call.next != NULL:
        call.next.previous = call
    context.calls = call
    context.call_count += 1
    return call


cdef bint release_call(Call* call) noexcept:
    cdef Context context = <Context>call.context
    if call.down != NULL or call.up != NULL or call.queued:
        return False
    drop_mirrors(call)
    if call.primary != NULL:
        unlink_mirror(call)
    if call.flags & CALL_MIRROR:
        context.mirror_count -= 1
    context.disarm(&call.deadline)
    context.disarm(&call.pending)
    if call.previous != NULL:
        call.previous.next = call.next
    else:
        context.calls = call.next
    if call.next != NULL:
        call.next.previous = call.previous
    context.call_count -= 1
    forget_section(call)
    free_fields(call.log_fields)
    Py_XDECREF(call.endpoint)
    Py_XDECREF(call.snapshot)
    call.next = <Call*>context.free_calls
    context.free_calls = call
    return True


# What was held back while the call waited.
cdef void forget_section(Call* call) noexcept:
    free_fields(call.head)
    call.head = NULL
    free_fields(call.early_trailers)
    call.early_trailers = NULL
    buffer_free(&call.early)


cdef void enqueue_call(Call* call, EndpointLoad* load) noexcept:
    call.queued = True
    call.load = load
    call.queue_next = NULL
    call.queue_previous = load.queue.last
    if load.queue.last != NULL:
        load.queue.last.queue_next = call
    else:
        load.queue.first = call
    load.queue.last = call
    load.queue.count += 1
    load.pending_gauge[0] += 1


cdef void unqueue_call(Call* call) noexcept:
    cdef CallQueue* queue = &call.load.queue
    if not call.queued:
        return
    call.queued = False
    if call.queue_previous != NULL:
        call.queue_previous.queue_next = call.queue_next
    else:
        queue.first = call.queue_next
    if call.queue_next != NULL:
        call.queue_next.queue_previous = call.queue_previous
    else:
        queue.last = call.queue_previous
    queue.count -= 1
    call.load.pending_gauge[0] -= 1


# From now on nothing that happens to the client's stream concerns the call.
cdef inline Stream* detach_down(Call* call) noexcept:
    cdef Stream* stream = call.down
    if stream != NULL:
        stream.owner = NULL
    call.down = NULL
    call.downstream = NULL
    return stream


cdef inline Stream* detach_up(Call* call) noexcept:
    cdef Stream* stream = call.up
    if stream != NULL:
        stream.owner = NULL
        call.load.active -= 1
    call.up = NULL
    call.upstream = NULL
    return stream


# Takes leave of the backend. Always as CANCEL: whatever happened on our side says nothing of the request.
cdef int cancel_upstream(Call* call) except -1:
    cdef Peer upstream
    if call.queued:
        unqueue_call(call)
    if call.up != NULL:
        upstream = up_peer(call)
        upstream.reset_stream(detach_up(call), CANCEL)
    return 0


# Counts and logs the call, once. A mirror is counted elsewhere and not logged.
cdef int finish_call(Call* call, int grpc_status, EndedBy ended_by, const char* reason) except -1:
    cdef Context context = <Context>call.context
    if call.flags & CALL_FINISHED:
        return 0
    call.flags |= CALL_FINISHED
    if call.flags & CALL_MIRROR:
        if grpc_status != 0:
            context.counters.mirrors_failed += 1
        return 0
    call.grpc_status = grpc_status
    call.ended_by = ended_by
    call.reason = reason
    finish_series(call.series, grpc_status, context.turn_us - call.started_us)
    if context.access_log is not None:
        log_call(context, call)
    return 0


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
    cdef Py_ssize_t i, sent
    if stream == NULL:
        return False
    if fields == NULL:
        if call.deadline_us != 0:
            renew_timeout(context, call, call.head)
        fields = call.head.fields
        count = call.head.count
    if call.queued:
        unqueue_call(call)
    context.disarm(&call.pending)
    call.upstream = <PyObject*>upstream
    call.up = stream
    call.load.active += 1
    call.flags |= CALL_DELIVERED
    call.attempts += 1
    call.sent_us = context.turn_us
    context.counters.upstream_streams += 1
    upstream.begin_headers(stream)
    for i in range(count):
        upstream.encoder.encode_field(&upstream.out, &fields[i])
    upstream.end_headers(stream, ended and call.early.length == 0 and call.early_trailers == NULL)
    if call.early.length > 0 and call.up != NULL:
        sent = upstream.send_data(
            call.up, call.early.data, call.early.length, ended and call.early_trailers == NULL
        )
        if sent > 0 and call.down != NULL:
            down_peer(call).credit(call.down, sent)
    if call.early_trailers != NULL and call.up != NULL:
        upstream.send_trailers(call.up, call.early_trailers.fields, call.early_trailers.count)
    forget_section(call)
    return True


# ===== from the client =====

cdef int call_request_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
    cdef uint64_t messages = call.request.messages
    track(&call.request, data, length)
    call.request_octets += <uint64_t>length
    call.series.received_octets += <uint64_t>length
    call.series.request_messages += call.request.messages - messages
    if end_stream:
        call.flags |= CALL_REQUEST_ENDED
    if call.mirrors != NULL:
        mirror_data(call, data, length, end_stream)
    return pass_request_data(call, data, length, end_stream)


cdef int pass_request_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
    cdef Py_ssize_t sent
    if call.up == NULL:
        # Not credited, so the client's window bounds it.
        return buffer_append(&call.early, data, length) if length > 0 else 0
    sent = up_peer(call).send_data(call.up, data, length, end_stream)
    if sent > 0 and call.down != NULL:
        down_peer(call).credit(call.down, sent)
    return 0


cdef int call_request_trailers(Call* call, const Field* fields, Py_ssize_t count) except -1:
    cdef Call* mirror = call.mirrors
    cdef Call* following
    call.flags |= CALL_REQUEST_ENDED
    while mirror != NULL:
        following = mirror.mirror_next
        mirror.flags |= CALL_REQUEST_ENDED
        pass_request_trailers(mirror, fields, count)
        mirror = following
    return pass_request_trailers(call, fields, count)


cdef int pass_request_trailers(Call* call, const Field* fields, Py_ssize_t count) except -1:
    if call.up == NULL:
        call.early_trailers = copy_fields(fields, count)
        return 0
    return up_peer(call).send_trailers(call.up, fields, count)


cdef int call_request_drained(Call* call, Py_ssize_t octets) except -1:
    if call.down != NULL:
        down_peer(call).credit(call.down, octets)
    return 0


cdef int call_client_gone(Call* call, CloseCause cause) except -1:
    cdef Context context = <Context>call.context
    cdef const char* reason = "client reset the call"
    if cause == CLOSED_BY_ERROR:
        reason = "client broke HTTP/2 on this call"
    elif cause == CLOSED_CONNECTION:
        reason = "client connection lost"
    detach_down(call)
    context.counters.cancelled += 1
    finish_call(call, 1, ENDED_BY_CLIENT, reason)
    cancel_upstream(call)
    release_call(call)
    return 0


# ===== from the backend =====

# grpc-status as a number, 2 (UNKNOWN) where it is none (gRPC over HTTP2 "Responses").
cdef int read_status(const Field* field) noexcept:
    cdef int value = 0
    cdef uint32_t i
    if field == NULL:
        return -1
    if field.value_length == 0 or field.value_length > 4:
        return 2
    for i in range(field.value_length):
        if not b"0" <= field.value[i] <= b"9":
            return 2
        value = value * 10 + field.value[i] - 48
    return value


# The grpc-status that gRPC clients derive from an HTTP status (gRPC "HTTP to gRPC Status Code Mapping").
cdef int status_of_http(int http_status) noexcept:
    if http_status == 400:
        return 13
    if http_status == 401:
        return 16
    if http_status == 403:
        return 7
    if http_status == 404:
        return 12
    if http_status == 429 or 502 <= http_status <= 504:
        return 14
    return 2


cdef int call_response(Call* call, ResponseHead* head, Field* fields, Py_ssize_t count, bint end_stream) except -1:
    cdef Context context = <Context>call.context
    cdef int status
    if head.status < 200:
        call.interim += 1
        if call.interim > INTERIM_MAX:
            return fail_text(call, 13, "backend sent too many 1xx responses", "too many 1xx responses")
        if call.down != NULL and not call.flags & CALL_MIRROR:
            send_section(call, fields, count, False)
        return 0
    call.http_status = <uint16_t>head.status
    call.response_us = context.turn_us
    if call.flags & CALL_MIRROR:
        return end_mirror(call) if end_stream else 0
    call.flags |= CALL_RESPONSE_BEGUN
    if call.rule.response_edits.count > 0 or call.ref.response_edits.count > 0:
        count = apply_edits(
            context, <RouteTable>call.table, call.rule.response_edits, call.ref.response_edits, fields, count
        )
        fields = context.scratch
    if not end_stream:
        return send_section(call, fields, count, False)
    status = read_status(head.grpc_status)
    if status < 0:
        status = status_of_http(head.status) if head.status != 200 else 2
    return end_response(call, status, fields, count, True)


cdef int send_section(Call* call, const Field* fields, Py_ssize_t count, bint end_stream) except -1:
    cdef Peer downstream = down_peer(call)
    cdef Stream* down = call.down
    cdef Py_ssize_t i
    downstream.begin_headers(down)
    for i in range(count):
        downstream.encoder.encode_field(&downstream.out, &fields[i])
    return downstream.end_headers(down, end_stream)


# The backend has ended its response with these fields (trailers, or a head with END_STREAM). Both streams are let
# go first: a request that the client is still sending is of no use any more (RFC 9113 §8.1).
cdef int end_response(Call* call, int grpc_status, const Field* fields, Py_ssize_t count, bint is_head) except -1:
    cdef Peer downstream = down_peer(call)
    cdef Peer upstream = up_peer(call)
    cdef bint request_ended = call.flags & CALL_REQUEST_ENDED
    cdef Stream* down
    cdef Stream* up
    cdef Py_ssize_t i
    call.flags |= CALL_RESPONSE_ENDED
    finish_call(call, grpc_status, ENDED_BY_BACKEND, NULL)
    if not request_ended:
        drop_mirrors(call)
    down = detach_down(call)
    up = detach_up(call)
    release_call(call)
    if not up.flags & STREAM_END_SENT:
        upstream.reset_stream(up, CANCEL)
    if is_head:
        downstream.begin_headers(down)
        for i in range(count):
            downstream.encoder.encode_field(&downstream.out, &fields[i])
        downstream.end_headers(down, True)
    else:
        downstream.send_trailers(down, fields, count)
    if not request_ended:
        downstream.finish_with_reset(down, NO_ERROR)
    return 0


cdef int call_response_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
    cdef uint64_t messages = call.response.messages
    cdef Py_ssize_t sent
    if call.flags & CALL_MIRROR:
        if length > 0:
            up_peer(call).credit(call.up, length)
        return end_mirror(call) if end_stream else 0
    track(&call.response, data, length)
    call.response_octets += <uint64_t>length
    call.series.sent_octets += <uint64_t>length
    call.series.response_messages += call.response.messages - messages
    if end_stream:
        return end_without_trailers(call, data, length)
    sent = down_peer(call).send_data(call.down, data, length, False)
    if sent > 0 and call.up != NULL:
        up_peer(call).credit(call.up, sent)
    return 0


# DATA with END_STREAM: how any HTTP response may end, but not a gRPC one ("Responses": Trailers are required).
cdef int end_without_trailers(Call* call, const uint8_t* data, Py_ssize_t length) except -1:
    cdef Peer downstream = down_peer(call)
    cdef bint request_ended = call.flags & CALL_REQUEST_ENDED
    cdef Stream* down
    if length > 0:
        downstream.send_data(call.down, data, length, False)
        if call.down == NULL:
            return 0
    if call.flags & CALL_GRPC and call.http_status == 200:
        return fail_text(call, 13, "backend ended the response without grpc-status", "no grpc-status")
    call.flags |= CALL_RESPONSE_ENDED
    finish_call(call, status_of_http(call.http_status) if call.flags & CALL_GRPC else -1, ENDED_BY_BACKEND, NULL)
    down = detach_down(call)
    cancel_unfinished(call)
    release_call(call)
    downstream.send_data(down, NULL, 0, True)
    if not request_ended:
        downstream.finish_with_reset(down, NO_ERROR)
    return 0


# The response is over: what is left of the request is dropped.
cdef int cancel_unfinished(Call* call) except -1:
    cdef Peer upstream = up_peer(call)
    cdef Stream* up
    if call.up == NULL:
        return 0
    up = detach_up(call)
    if not up.flags & STREAM_END_SENT:
        upstream.reset_stream(up, CANCEL)
    return 0


cdef int call_response_trailers(Call* call, Field* fields, Py_ssize_t count, Field* grpc_status) except -1:
    cdef int status = read_status(grpc_status)
    if call.flags & CALL_MIRROR:
        return end_mirror(call)
    if status < 0:
        if call.flags & CALL_GRPC and call.http_status == 200:
            return fail_text(call, 13, "backend ended the response without grpc-status", "no grpc-status")
        status = status_of_http(call.http_status) if call.flags & CALL_GRPC else -1
    elif call.flags & CALL_GRPC and not at_boundary(&call.response):
        # Trailers may follow a cut message only where they report a failure; clients check that themselves.
        if status == 0:
            return fail_text(call, 13, "backend ended the response inside a message", "response ended inside a message")
    return end_response(call, status, fields, count, False)


cdef int call_response_drained(Call* call, Py_ssize_t octets) except -1:
    if call.up != NULL:
        up_peer(call).credit(call.up, octets)
    return 0


cdef int call_upstream_gone(Call* call, CloseCause cause, uint32_t code) except -1:
    detach_up(call)
    if cause == CLOSED_BY_PEER:
        if code == ENHANCE_YOUR_CALM:
            return fail_text(call, 8, "backend reset the call: ENHANCE_YOUR_CALM", "backend reset the call")
        return fail_text(call, 14, "backend reset the call", "backend reset the call")
    if cause == CLOSED_UNPROCESSED:
        return fail_text(call, 14, "backend refused the call", "backend refused the call")
    if cause == CLOSED_BY_ERROR:
        return fail_text(call, 13, "backend sent a malformed response", "malformed response")
    if cause == CLOSED_TOO_LARGE:
        return fail_text(call, 8, "response headers are larger than max_header_list_size", "response headers too large")
    if cause == CLOSED_CONNECTION:
        return fail_text(call, 14, "connection to the backend lost", "backend connection lost")
    # Complete without a response end that came here cannot be; end the call all the same.
    return fail_text(call, 13, "backend ended the stream", "stream ended")


# ===== failing =====

cdef int fail_text(Call* call, int grpc_status, const char* message, const char* reason) except -1:
    return call_failed(call, grpc_status, <const uint8_t*>message, <Py_ssize_t>strlen(message), reason)


cdef const char* NOT_GRPC = (
    "This is a gRPC gateway: it serves gRPC calls over HTTP/2 (POST, content-type: application/grpc).\n"
)
cdef const char* MISDIRECTED = (
    "The :authority of this request belongs to another listener than the TLS server name of its connection.\n"
)
cdef const char* NOT_POST = "gRPC calls use the POST method of HTTP/2; this request used another one.\n"


cdef int call_refused(Call* call) except -1:
    cdef Peer downstream = down_peer(call)
    cdef const char* text = (
        MISDIRECTED if call.http_status == 421 else NOT_POST if call.http_status == 405 else NOT_GRPC
    )
    cdef int status = call.http_status
    cdef bint head_only = call.flags & CALL_HEAD
    cdef Stream* down
    finish_call(call, -1, ENDED_BY_GATEWAY, "not a gRPC call")
    down = detach_down(call)
    release_call(call)
    return reply_http(downstream, down, status, <const uint8_t*>text, <Py_ssize_t>strlen(text), head_only)


# HTTP status for a failure of a call that is not gRPC.
cdef int http_of_status(int grpc_status) noexcept:
    if grpc_status == 4:
        return 504
    if grpc_status == 8:
        return 429
    if grpc_status == 14:
        return 503
    return 502


cdef int call_failed(Call* call, int grpc_status, const uint8_t* message, Py_ssize_t length, const char* reason) except -1:
    cdef Peer downstream = None
    cdef Stream* down
    cdef uint16_t flags
    cdef bint whole_messages = at_boundary(&call.response)
    if call.down != NULL:
        downstream = down_peer(call)
    finish_call(call, grpc_status, ENDED_BY_GATEWAY, reason)
    cancel_upstream(call)
    down = detach_down(call)
    flags = call.flags
    release_call(call)
    if down == NULL:
        return 0
    if not flags & CALL_RESPONSE_BEGUN:
        if flags & CALL_GRPC:
            return reply_trailers_only(downstream, down, grpc_status, message, length)
        return reply_http(downstream, down, http_of_status(grpc_status), message, length, False)
    if flags & CALL_GRPC and whole_messages:
        return reply_trailers(downstream, down, grpc_status, message, length)
    return downstream.reset_stream(down, CANCEL if grpc_status == 4 else INTERNAL_ERROR)


# ===== mirrors (RequestMirror: answers are ignored, the primary is never held up) =====

cdef void unlink_mirror(Call* mirror) noexcept:
    cdef Call** link = &mirror.primary.mirrors
    while link[0] != mirror:
        link = &link[0].mirror_next
    link[0] = mirror.mirror_next
    mirror.primary = NULL
    mirror.mirror_next = NULL


# The primary will send no more: mirrors whose request is not whole are given up, the others go on alone.
cdef void drop_mirrors(Call* call) noexcept:
    cdef Call* mirror
    while call.mirrors != NULL:
        mirror = call.mirrors
        unlink_mirror(mirror)
        if not mirror.flags & CALL_REQUEST_ENDED:
            end_mirror_early(mirror)


cdef void end_mirror_early(Call* mirror) noexcept:
    try:
        call_failed(mirror, 1, NULL, 0, "primary ended")
    except MemoryError:
        pass  # nothing was promised to anyone; the connection's own end cleans up


cdef int mirror_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
    cdef Context context = <Context>call.context
    cdef Call* mirror = call.mirrors
    cdef Call* following
    cdef Py_ssize_t waiting
    while mirror != NULL:
        following = mirror.mirror_next
        waiting = mirror.early.length if mirror.up == NULL else up_peer(mirror).pending_octets(mirror.up)
        if waiting + length > context.mirror_buffer:
            # A mirror that is slower than its primary loses the call: the primary's pace is not its to set.
            call_failed(mirror, 8, NULL, 0, "mirror too slow")
        else:
            if end_stream:
                mirror.flags |= CALL_REQUEST_ENDED
            pass_request_data(mirror, data, length, end_stream)
        mirror = following
    return 0


cdef int end_mirror(Call* mirror) except -1:
    finish_call(mirror, 0, ENDED_BY_BACKEND, NULL)
    cancel_unfinished(mirror)
    release_call(mirror)
    return 0
