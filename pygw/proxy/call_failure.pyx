# call_failure.pyx: calls that do not end as their backend had it. See call_failure.pxd.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport strlen

from ..field cimport Field
from ..http2.connection cimport (
    CLOSED_BY_ERROR,
    CLOSED_BY_PEER,
    CLOSED_CONNECTION,
    CLOSED_STALLED,
    CLOSED_TOO_LARGE,
    CLOSED_UNPROCESSED,
    CLOSED_UNSENT,
    CloseCause,
)
from ..http2.constants cimport CANCEL, ENHANCE_YOUR_CALM, INTERNAL_ERROR, NO_ERROR
from ..http2.stream cimport Stream
from .access_log cimport ENDED_BY_CLIENT, ENDED_BY_GATEWAY, EndedBy
from .call_life cimport cancel_upstream, detach_down, detach_up, down_peer, finish_call, release_call, up_peer
from .call_metrics cimport RETRY_GOAWAY, RETRY_REFUSED, RETRY_UNSENT, RetryReason
from .call_record cimport (
    CALL_GRPC,
    CALL_HEAD,
    CALL_MIRROR,
    CALL_RELEASED,
    CALL_REQUEST_ENDED,
    CALL_RESPONSE_BEGUN,
    CALL_RETRIED,
    Call,
)
from .context cimport Context
from .grpc_wire cimport at_boundary
from .peer cimport Peer
from .reply cimport reply_http, reply_trailers, reply_trailers_only

cdef const char* NOT_GRPC = (
    "This is a gRPC gateway: it serves gRPC calls over HTTP/2 (POST, content-type: application/grpc).\n"
)
cdef const char* MISDIRECTED = (
    "The :authority of this request belongs to another listener than the TLS server name of its connection.\n"
)
cdef const char* NOT_POST = "gRPC calls use the POST method of HTTP/2; this request used another one.\n"
cdef const char* LARGE_RESPONSE = "the response's headers are larger than max_header_list_size"
cdef const char* MANY_RESPONSE_FIELDS = "the response has more header fields than max_header_fields"
cdef const char* STALLED = "stream_stall_timeout reached"
cdef const char* NOT_FOUND = "No route of this gateway matches the request: its host, path, method, headers or query.\n"
cdef const char* NOT_CONFIGURED = "This gateway has no configuration yet.\n"


cdef int call_failed(
    Call* call, int grpc_status, const uint8_t* message, Py_ssize_t length, const char* reason
) except -1:
    if call.flags & CALL_RELEASED:
        return 0
    if not call.flags & (CALL_GRPC | CALL_RESPONSE_BEGUN) and call.http_status == 0:
        call.http_status = <uint16_t>http_of_status(grpc_status)
    finish_call(call, grpc_status if call.flags & (CALL_GRPC | CALL_MIRROR) else -1, ENDED_BY_GATEWAY, reason)
    try:
        if call.down != NULL:
            tell_client(call, grpc_status, message, length)
    finally:
        cancel_upstream(call)
        release_call(call)
    return 0


cdef int tell_client(Call* call, int grpc_status, const uint8_t* message, Py_ssize_t length) except -1:
    cdef Peer downstream = down_peer(call)
    cdef Stream* down = detach_down(call)
    if not call.flags & CALL_RESPONSE_BEGUN:
        if call.flags & CALL_GRPC:
            return reply_trailers_only(downstream, down, grpc_status, message, length)
        return reply_http(downstream, down, call.http_status, message, length, call.flags & CALL_HEAD)
    if call.flags & CALL_GRPC and at_boundary(&call.response):
        return reply_trailers(downstream, down, grpc_status, message, length)
    return downstream.reset_stream(down, CANCEL if grpc_status == 4 else INTERNAL_ERROR)


# HTTP status for a failure of a call that is not gRPC.
cdef int http_of_status(int grpc_status) noexcept:
    if grpc_status == 4:
        return 504
    if grpc_status == 8:
        return 429
    if grpc_status == 14:
        return 503
    return 502


cdef int fail_text(Call* call, int grpc_status, const char* message, const char* reason) except -1:
    return call_failed(call, grpc_status, <const uint8_t*>message, <Py_ssize_t>strlen(message), reason)


cdef const char* refusal_text(int http_status) noexcept:
    if http_status == 404:
        return NOT_FOUND
    if http_status == 405:
        return NOT_POST
    if http_status == 421:
        return MISDIRECTED
    return NOT_CONFIGURED if http_status == 503 else NOT_GRPC


cdef int call_refused(Call* call) except -1:
    cdef Peer downstream = down_peer(call)
    cdef const char* text = refusal_text(call.http_status)
    cdef int status = call.http_status
    cdef bint head_only = call.flags & CALL_HEAD
    cdef Stream* down
    finish_call(call, -1, ENDED_BY_GATEWAY, "no route matches" if status == 404 else "not a gRPC call")
    down = detach_down(call)
    release_call(call)
    return reply_http(downstream, down, status, <const uint8_t*>text, <Py_ssize_t>strlen(text), head_only)


cdef int call_answered(Call* call, const Field* fields, Py_ssize_t count) except -1:
    cdef Peer downstream = down_peer(call)
    cdef bint request_ended = call.flags & CALL_REQUEST_ENDED
    cdef Stream* down
    cdef Py_ssize_t i
    finish_call(call, -1, ENDED_BY_GATEWAY, "answered by the gateway")
    down = detach_down(call)
    try:
        downstream.begin_headers(down)
        for i in range(count):
            downstream.encoder.encode_field(&downstream.out, &fields[i])
        downstream.end_headers(down, True)
        if not request_ended:
            downstream.finish_with_reset(down, NO_ERROR)
    finally:
        release_call(call)
    return 0


cdef int call_client_gone(Call* call, CloseCause cause) except -1:
    cdef Context context = <Context>call.context
    cdef const char* reason = "client reset the call"
    cdef EndedBy ended_by = ENDED_BY_CLIENT
    if cause == CLOSED_BY_ERROR:
        reason = "client broke HTTP/2 on this call"
    elif cause == CLOSED_CONNECTION:
        reason = "client connection lost"
    elif cause == CLOSED_STALLED:
        reason = STALLED
        ended_by = ENDED_BY_GATEWAY
    detach_down(call)
    context.counters.cancelled += ended_by == ENDED_BY_CLIENT
    # CANCELLED, which is also what a client makes of RST_STREAM(CANCEL).
    finish_call(call, 1, ended_by, reason)
    try:
        cancel_upstream(call)
    finally:
        release_call(call)
    return 0


# gRPC's transparent retry (gRFC A6): what no backend has processed is sent once more, on another connection. (What is
# held of the request is let go with the first octet of an answer.)
cdef bint retry_call(Call* call, Peer upstream, CloseCause cause) except -1:
    cdef Context context = <Context>call.context
    cdef RetryReason reason = RETRY_REFUSED
    if call.head == NULL or call.flags & CALL_RETRIED:
        return False
    if cause == CLOSED_UNSENT:
        reason = RETRY_UNSENT
    elif upstream.goaway_received:
        reason = RETRY_GOAWAY
    call.flags |= CALL_RETRIED
    call.refused_by = upstream.encoder.id
    # Through Python, for backend.pyx knows this file.
    if not (<object>call.backend).retry(<size_t>call):
        return False
    context.counters.upstream_retries[<int>reason] += 1
    return True


cdef int call_upstream_gone(Call* call, CloseCause cause, uint32_t code) except -1:
    cdef Peer upstream = up_peer(call)
    detach_up(call)
    if (cause == CLOSED_UNPROCESSED or cause == CLOSED_UNSENT) and retry_call(call, upstream, cause):
        return 0
    if cause == CLOSED_BY_PEER:
        if code == ENHANCE_YOUR_CALM:
            return fail_text(call, 8, "backend reset the call: ENHANCE_YOUR_CALM", "backend reset the call")
        return fail_text(call, 14, "backend reset the call", "backend reset the call")
    if cause == CLOSED_UNPROCESSED:
        return fail_text(call, 14, "backend refused the call", "backend refused the call")
    if cause == CLOSED_BY_ERROR:
        return fail_text(call, 13, "backend sent a malformed response", "malformed response")
    if cause == CLOSED_TOO_LARGE:
        return fail_text(
            call, 8, LARGE_RESPONSE if upstream.is_list_too_large() else MANY_RESPONSE_FIELDS,
            "response headers too large",
        )
    if cause == CLOSED_STALLED:
        return fail_text(call, 14, "the backend does not read the request (stream_stall_timeout)", STALLED)
    if cause == CLOSED_CONNECTION or cause == CLOSED_UNSENT:
        return fail_text(call, 14, "connection to the backend lost", "backend connection lost")
    # Complete without a response end that came here cannot be; end the call all the same.
    return fail_text(call, 13, "backend ended the stream", "stream ended")
