# call_response.pyx: a call's way from its backend to its client. See call_response.pxd.
#
# All of this runs within receive() of the upstream: what its streams' ends set off there comes later.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from .._fastmatch cimport RouteTable
from ..field cimport TOKEN_GRPC_STATUS, Field
from ..http2.constants cimport NO_ERROR
from ..http2.message cimport ResponseHead
from ..http2.stream cimport Stream
from .access_log cimport ENDED_BY_BACKEND
from .call_failure cimport fail_text
from .call_life cimport (
    cancel_unfinished,
    complete_mirror,
    detach_down,
    down_peer,
    finish_call,
    release_call,
    up_peer,
)
from .call_record cimport CALL_GRPC, CALL_MIRROR, CALL_REQUEST_ENDED, CALL_RESPONSE_BEGUN, Call
from .context cimport Context
from .endpoint_health cimport is_flawless, note_answer
from .grpc_wire cimport at_boundary, track
from .header_edits cimport apply_edits
from .held_request cimport let_request_go
from .peer cimport Peer


cdef const char* TWO_STATUSES = "backend ended the response with several grpc-status"


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


# Clients differ in which of several they believe.
cdef bint has_two_statuses(const Field* fields, Py_ssize_t count) noexcept:
    cdef int seen = 0
    cdef Py_ssize_t i
    for i in range(count):
        seen += fields[i].token == TOKEN_GRPC_STATUS
    return seen > 1


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
    if call.head != NULL:
        # It has been processed (RFC 9113 §8.7): from now on it is not sent again.
        let_request_go(call)
    if not is_flawless(&call.load.health):
        note_answer(&call.load.health)
    if head.status < 200:
        # The engine counts them (max_interim_responses).
        return send_section(down_peer(call), call.down, fields, count, False) if call.down != NULL else 0
    call.http_status = <uint16_t>head.status
    call.response_us = context.turn_us
    if call.flags & CALL_MIRROR:
        return complete_mirror(call) if end_stream else 0
    if end_stream and call.flags & CALL_GRPC and has_two_statuses(fields, count):
        return fail_text(call, 13, TWO_STATUSES, "malformed response")
    call.flags |= CALL_RESPONSE_BEGUN
    if call.rule.response_edits.count > 0 or call.ref.response_edits.count > 0:
        count = apply_edits(
            context, <RouteTable>call.table, call.rule.response_edits, call.ref.response_edits, fields, count
        )
        fields = context.scratch
    if not end_stream:
        return send_section(down_peer(call), call.down, fields, count, False)
    status = read_status(head.grpc_status)
    if status < 0 and call.flags & CALL_GRPC:
        status = status_of_http(head.status) if head.status != 200 else 2
    return end_response(call, status, fields, count, True)


cdef int send_section(Peer downstream, Stream* down, const Field* fields, Py_ssize_t count, bint end_stream) except -1:
    cdef Py_ssize_t i
    downstream.begin_headers(down)
    for i in range(count):
        downstream.encoder.encode_field(&downstream.out, &fields[i])
    return downstream.end_headers(down, end_stream)


# The backend has ended its response with these fields (trailers, or a head with END_STREAM). A request that the
# client is still sending is of no use any more (RFC 9113 §8.1).
cdef int end_response(Call* call, int grpc_status, const Field* fields, Py_ssize_t count, bint is_head) except -1:
    cdef Peer downstream = down_peer(call)
    cdef bint request_ended = call.flags & CALL_REQUEST_ENDED
    cdef Stream* down
    finish_call(call, grpc_status, ENDED_BY_BACKEND, NULL)
    cancel_unfinished(call)
    down = detach_down(call)
    try:
        # `fields` may be in context.scratch, so before anything that uses it: release_call() may end mirrors.
        if is_head:
            send_section(downstream, down, fields, count, True)
        else:
            downstream.send_trailers(down, fields, count)
        if not request_ended:
            downstream.finish_with_reset(down, NO_ERROR)
    finally:
        release_call(call)
    return 0


cdef int call_response_data(Call* call, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
    cdef uint64_t messages = call.response.messages
    cdef Py_ssize_t sent
    if call.flags & CALL_MIRROR:
        if length > 0:
            up_peer(call).credit(call.up, length)
        return complete_mirror(call) if end_stream else 0
    if call.flags & CALL_GRPC:
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
    if call.flags & CALL_GRPC and call.http_status == 200:
        if length > 0:
            downstream.send_data(call.down, data, length, False)
        return fail_text(call, 13, "backend ended the response without grpc-status", "no grpc-status")
    finish_call(call, status_of_http(call.http_status) if call.flags & CALL_GRPC else -1, ENDED_BY_BACKEND, NULL)
    cancel_unfinished(call)
    down = detach_down(call)
    try:
        downstream.send_data(down, data, length, True)
        if not request_ended:
            downstream.finish_with_reset(down, NO_ERROR)
    finally:
        release_call(call)
    return 0


cdef int call_response_trailers(Call* call, Field* fields, Py_ssize_t count, Field* grpc_status) except -1:
    cdef int status = read_status(grpc_status)
    if call.flags & CALL_MIRROR:
        return complete_mirror(call)
    if status >= 0 and call.flags & CALL_GRPC and has_two_statuses(fields, count):
        return fail_text(call, 13, TWO_STATUSES, "malformed response")
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
