# downstream.pyx: the HTTP/2 connection of a client, and how its requests become Calls. See downstream.pxd.

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset, strlen

from .._fastmatch cimport BackendRefRecord, Found, MirrorRecord, ListRef, Request, RouteTable, RuleRecord
from ..field cimport TOKEN_AUTHORITY, TOKEN_GRPC_TIMEOUT, TOKEN_X_FORWARDED_FOR, Field
from ..http2.connection cimport CLOSED_BY_ERROR, CLOSED_BY_PEER, CLOSED_STALLED, CloseCause, Connection
from ..http2.constants cimport ENHANCE_YOUR_CALM, REFUSED_STREAM
from ..http2.hpack_decoder cimport HpackDecoder
from ..http2.message cimport RequestHead
from ..http2.stream cimport Stream, copy_fields
from .access_log cimport ENDED_BY_GATEWAY
from .backend cimport Backend
from .call_failure cimport call_client_gone, call_failed, call_refused
from .call_life cimport detach_down, finish_call, new_call, release_call
from .call_metrics cimport (
    LIMIT_MAX_CALLS,
    LIMIT_MAX_CONNECTION_AGE,
    LIMIT_MAX_CONNECTION_AGE_GRACE,
    LIMIT_MAX_CONNECTION_IDLE,
    LIMIT_STREAM_STALL_TIMEOUT,
    SHED_MAX_CALLS,
    SHED_OVERLOAD_LAG,
    SHED_PENDING_LAG,
    CallSeries,
)
from .call_metrics cimport start as start_series
from .call_record cimport (
    CALL_GRPC,
    CALL_HEAD,
    CALL_MIRROR,
    CALL_REQUEST_ENDED,
    CALL_UNSERVED,
    Call,
    Origin,
)
from .call_request cimport call_request_data, call_request_trailers, join_new_call, join_repeated_call
from .call_response cimport call_response_drained
from .client_address cimport FORWARDED_FOR_MAX, TrustedProxies
from .client_peer cimport Admission, ADMITTED, MISDIRECTED, ClientPeer
from .context cimport TIMER_AGE, TIMER_DEADLINE, TIMER_GRACE, TIMER_UNSERVED, Context
from .endpoint cimport Endpoint
from .gate cimport Gate
from .grpc_wire cimport parse_timeout
from .held_request cimport hold_section, repeats_last
from .overload cimport ADMIT_ALL, is_alert, refuses
from .peer cimport Peer
from .redirect cimport answer_redirect, location_of
from .reply cimport reply_http, reply_trailers_only
from .request_section cimport build_request
from .snapshot cimport Snapshot

cdef enum:
    UNSERVED_OCTETS = 16384      # of a request that is not gRPC; with more it is not waited for any longer

cdef const char* OVERLOADED = "the gateway is overloaded (overload_lag)"
cdef const char* QUEUE_LATE = "the backend is overloaded: calls wait too long for it (pending_lag)"
cdef const char* LARGE_REQUEST = "the request's headers are larger than max_header_list_size"
cdef const char* MANY_REQUEST_FIELDS = "the request has more header fields than max_header_fields"
cdef const char* TOO_MANY_CALLS = "the gateway has too many calls open (max_calls)"


cdef class Downstream(ClientPeer):

    def __init__(self, Context context, Gate gate, str site_address, int site_port):
        Connection.__init__(self, context.downstream_options, context.pool)
        self.context = context
        self.gate = gate
        self.site_address = site_address
        self.site_port = site_port
        self.site = -1

    # ===== uvloop's side =====

    def connection_made(self, transport):
        """A client has connected."""
        ClientPeer.connection_made(self, transport)
        self.age_timer.owner = <void*>self
        self.age_timer.kind = TIMER_AGE
        if self.context.max_connection_age > 0:
            # Jitter of 10 %, so that clients that came together do not leave together.
            self.context.arm(
                &self.age_timer, self.context.max_connection_age * (0.9 + self.context.random() % 2001 / 10000.0)
            )
        self.arm_idle()
        if self.context.closing:
            self.finish()

    def connection_lost(self, exception):
        """The client is gone."""
        self.context.disarm(&self.age_timer)
        ClientPeer.connection_lost(self, exception)

    # ===== leaving =====

    def leave(self):
        """First GOAWAY (RFC 9113 §6.8): open calls go on, new ones should go elsewhere."""
        if not self.is_leaving and not self.failed:
            self.is_leaving = True
            self.announce_goaway()

    def finish(self):
        """Second GOAWAY: later streams are ignored; closes when the last call has ended."""
        if self.failed:
            return
        self.is_leaving = self.is_final = True
        self.final_goaway()
        if self.stream_count == 0:
            self.close_after_flush()

    def drain(self):
        """As leave(), but only with or after the first request: grpc-core fails the call for which it has just made a
        connection where GOAWAY comes before the call's HEADERS have left."""
        if self.last_peer_stream_id != 0:
            self.leave()

    def leave_soon(self):
        """First GOAWAY now, the second one when the first was surely heard."""
        if self.is_leaving:
            return
        self.leave()
        self.age_timer.kind = TIMER_GRACE
        # A second for the GOAWAY to be heard before the last stream id is fixed.
        self.context.arm(&self.age_timer, 1.0)

    def reconsider(self):
        """The configuration is another one: leave where it would not admit this connection."""
        self.current_site(self.gate.snapshot)
        if self.is_stale:
            self.leave_soon()

    def on_timer(self, int kind):
        """One of this connection's timers has fired."""
        self.context.turn_us = self.context.time_us()
        if kind == TIMER_AGE:
            self.context.counters.limit_hits[<int>LIMIT_MAX_CONNECTION_AGE] += 1
            self.leave_soon()
        elif kind == TIMER_GRACE:
            self.on_grace()
        else:
            Peer.on_timer(self, kind)

    def on_grace(self):
        """The client knows that it should leave; later, the grace is over."""
        if not self.is_final:
            self.finish()
            if self.context.max_connection_age_grace > 0:
                self.context.arm(&self.age_timer, self.context.max_connection_age_grace)
            return
        self.context.counters.limit_hits[<int>LIMIT_MAX_CONNECTION_AGE_GRACE] += 1
        self.fail(0, "max_connection_age_grace has passed")

    cdef int arm_idle(self) except -1:
        if self.context.max_connection_idle > 0:
            self.context.arm(&self.idle_timer, self.context.max_connection_idle)
        return 0

    cdef int on_idle(self) except -1:
        cdef double silent = (self.context.turn_us - self.last_read_us) / 1e6
        if self.stream_count > 0:
            return 0
        if silent < self.context.max_connection_idle:
            self.context.arm(&self.idle_timer, self.context.max_connection_idle - silent)
            return 0
        self.context.counters.limit_hits[<int>LIMIT_MAX_CONNECTION_IDLE] += 1
        self.finish()
        return 0

    cdef double keepalive_seconds(self) noexcept:
        return self.context.keepalive_time

    # ===== a request =====

    cdef int current_site(self, Snapshot snapshot) except? -2:
        if self.site_generation != self.gate.generation:
            self.last_series = NULL
        return ClientPeer.current_site(self, snapshot)

    cdef int on_request(self, Stream* stream, RequestHead* head, Field* fields, Py_ssize_t count,
                        bint end_stream, bint too_large) except -1:
        cdef Snapshot snapshot = self.gate.snapshot
        cdef Request request
        cdef Found found
        cdef Admission admission
        cdef int site
        self.context.counters.downstream_streams += 1
        if self.context.draining:
            self.leave()
        if too_large:
            self.count_large_headers()
            return self.refuse(stream, 8, LARGE_REQUEST if self.is_list_too_large() else MANY_REQUEST_FIELDS)
        if is_alert(&self.context.overload, self.context.turn_us) or self.context.call_count >= self.context.max_calls:
            if self.must_shed():
                return self.shed(stream, head)
        if snapshot is not None:
            admission = self.admission(snapshot, head)
            if admission == MISDIRECTED:
                return self.refuse_http(stream, 421, head, end_stream)
            if admission != ADMITTED:
                # Safe to send again (RFC 9113 §8.7), on a connection that is admitted as things are now.
                self.reset_stream(stream, REFUSED_STREAM)
                self.leave_soon()
                return 0
        if head.is_grpc and not is_method(head.method, "POST"):
            return self.refuse_http(stream, 405, head, end_stream)
        if snapshot is None:
            if not head.is_grpc:
                return self.refuse_http(stream, 503, head, end_stream)
            return self.refuse(stream, 14, "the gateway has no configuration yet")
        request.authority = NULL if head.authority == NULL else head.authority.value
        request.authority_length = 0 if head.authority == NULL else head.authority.value_length
        request.path = head.path.value
        request.path_length = head.path.value_length
        request.fields = fields
        request.field_count = count
        request.is_grpc = head.is_grpc
        request.method = head.method
        site = self.current_site(snapshot)
        found.rule = NULL
        found.listener = -1
        found.has_http = False
        if site >= 0:
            snapshot.table.match(site, &request, &found)
        if found.rule == NULL:
            if not head.is_grpc:
                return self.refuse_http(stream, 404 if found.has_http else 415, head, end_stream)
            return self.answer(stream, snapshot, &found, NULL, head, 12, "no route matches this call")
        if snapshot.table.redirect(found.rule) != NULL:
            return self.redirect(stream, snapshot, &found, head, fields, count, end_stream)
        return self.start_call(stream, snapshot, &found, head, fields, count, end_stream)

    # RequestRedirect of an HTTPRoute.
    cdef int redirect(self, Stream* stream, Snapshot snapshot, Found* found, RequestHead* head, Field* fields,
                      Py_ssize_t count, bint end_stream) except -1:
        cdef TrustedProxies proxies = <TrustedProxies>self.gate.trusted
        cdef const char* scheme = proxies.forwarded_proto(self.client.is_tls, self.client.is_trusted, fields, count)
        cdef bint is_https = strlen(scheme) == 5
        # Where a proxy in front ended TLS, its port is not ours: the one that the scheme implies.
        cdef int port = self.site_port if is_https == self.client.is_tls else (443 if is_https else 80)
        cdef bytes location = location_of(snapshot.table, found, head, scheme, port)
        cdef Call* call = self.make_call(stream, snapshot, found, NULL, head)
        if end_stream:
            call.flags |= CALL_REQUEST_ENDED
        return answer_redirect(call, location)

    cdef int refuse(self, Stream* stream, int grpc_status, const char* message) except -1:
        return reply_trailers_only(self, stream, grpc_status, <const uint8_t*>message, <Py_ssize_t>strlen(message))

    cdef bint must_shed(self) except -1:
        cdef Context context = self.context
        # A read may hold many calls, so turn_us is too old.
        cdef uint64_t now = context.time_us()
        context.watch_overload(now)
        return (
            context.call_count - context.mirror_count >= context.max_calls
            or refuses(&context.overload, now, <uint32_t>(context.random() % ADMIT_ALL))
        )

    # Overload: nothing more is done for this call, not even to count it by its method.
    cdef int shed(self, Stream* stream, RequestHead* head) except -1:
        cdef Context context = self.context
        cdef bint is_lag = context.call_count - context.mirror_count < context.max_calls
        cdef const char* text = OVERLOADED if is_lag else TOO_MANY_CALLS
        context.counters.shed[<int>(SHED_OVERLOAD_LAG if is_lag else SHED_MAX_CALLS)] += 1
        if not is_lag:
            context.counters.limit_hits[<int>LIMIT_MAX_CALLS] += 1
        return self.push_back(
            stream, head.is_grpc, is_method(head.method, "HEAD"), 14 if is_lag else 8, text
        )

    cdef int push_back(self, Stream* stream, bint is_grpc, bint is_head, int grpc_status, const char* text) except -1:
        if not is_grpc:
            return reply_http(self, stream, 503, <const uint8_t*>text, <Py_ssize_t>strlen(text), is_head)
        return reply_trailers_only(
            self, stream, grpc_status, <const uint8_t*>text, <Py_ssize_t>strlen(text),
            # Jitter, lest all come back at once.
            <uint32_t>(self.context.overload_pushback * (500 + self.context.random() % 1001)),
        )

    # Its backend cannot keep up. Counted and logged like any call: it is known by now whose fault it is.
    cdef int shed_late(self, Call* call) except -1:
        cdef bint is_grpc = call.flags & CALL_GRPC
        cdef bint is_head = call.flags & CALL_HEAD
        cdef Stream* down
        self.context.counters.shed[<int>SHED_PENDING_LAG] += 1
        if call.flags & CALL_MIRROR:
            return call_failed(call, 14, NULL, 0, "pending_lag reached")
        if not is_grpc:
            call.http_status = 503
        finish_call(call, 14 if is_grpc else -1, ENDED_BY_GATEWAY, "pending_lag reached")
        down = detach_down(call)
        release_call(call)
        return self.push_back(down, is_grpc, is_head, 14, QUEUE_LATE)

    # What is not a gRPC call is answered when it is whole, so that what is malformed further on is still reset as
    # malformed (RFC 9113 §8.1.1); but it need not be whole for long, nor be long.
    cdef int refuse_http(self, Stream* stream, int status, RequestHead* head, bint end_stream) except -1:
        cdef Context context = self.context
        cdef CallSeries* series = context.metrics.series(NULL, 0, NULL, 0, NULL, 0)
        cdef Call* call = new_call(context)
        call.flags = CALL_UNSERVED
        if is_method(head.method, "HEAD"):
            call.flags |= CALL_HEAD
        call.http_status = <uint16_t>status
        call.downstream = <PyObject*>self
        call.down = stream
        stream.owner = call
        call.started_us = context.turn_us
        call.series = series
        start_series(series)
        if context.access_log is not None:
            self.keep_for_log(call, head)
        if end_stream:
            return call_refused(call)
        call.deadline.owner = call
        call.deadline.kind = TIMER_UNSERVED
        context.arm(&call.deadline, context.unserved_wait)
        return 0

    # A call that the gateway answers itself at once: counted and logged like any other.
    cdef int answer(self, Stream* stream, Snapshot snapshot, Found* found, const BackendRefRecord* ref,
                    RequestHead* head, int grpc_status, const char* message) except -1:
        return self.answer_octets(
            stream, snapshot, found, ref, head, grpc_status, <const uint8_t*>message, <Py_ssize_t>strlen(message)
        )

    cdef int answer_octets(self, Stream* stream, Snapshot snapshot, Found* found, const BackendRefRecord* ref,
                           RequestHead* head, int grpc_status, const uint8_t* message, Py_ssize_t length,
                           int http_status=0) except -1:
        cdef Call* call = self.make_call(stream, snapshot, found, ref, head)
        call.http_status = <uint16_t>(0 if head.is_grpc else http_status)
        return call_failed(call, grpc_status, message, length, "answered by the gateway")

    cdef Call* make_call(self, Stream* stream, Snapshot snapshot, Found* found, const BackendRefRecord* ref,
                         RequestHead* head) except NULL:
        cdef Context context = self.context
        cdef RouteTable table = snapshot.table
        # What may raise comes before anything holds the call.
        cdef CallSeries* series = self.find_series(table, found.rule, ref, head)
        cdef Call* call = new_call(context)
        if head.is_grpc:
            call.flags = CALL_GRPC
        elif is_method(head.method, "HEAD"):
            call.flags = CALL_HEAD
        call.downstream = <PyObject*>self
        call.down = stream
        stream.owner = call
        Py_INCREF(snapshot)
        call.snapshot = <PyObject*>snapshot
        call.table = <PyObject*>table
        call.rule = found.rule
        call.ref = ref
        call.listener = found.listener
        call.started_us = context.turn_us
        call.series = series
        start_series(series)
        if context.access_log is not None:
            self.keep_for_log(call, head)
        return call

    # Only gRPC has methods to count by: other paths are whatever clients make up.
    cdef CallSeries* find_series(self, RouteTable table, const RuleRecord* rule, const BackendRefRecord* ref,
                                 const RequestHead* head) except NULL:
        cdef CallSeries* series = self.last_series
        cdef const Field* path = head.path
        if (
            series != NULL and head.is_grpc and rule == self.last_rule and ref == self.last_ref
            and series.path_length == path.value_length
            and memcmp(series.labels, path.value, path.value_length) == 0
        ):
            return series
        series = self.context.metrics.series(
            path.value, path.value_length if head.is_grpc else 0,
            NULL if rule == NULL else table.octets(rule.route), 0 if rule == NULL else rule.route.length,
            NULL if ref == NULL else table.octets(ref.label), 0 if ref == NULL else ref.label.length,
        )
        # "_other" (path_length 0) is not remembered: another path of the same rule may have a series of its own.
        self.last_series = series if series.path_length > 0 else NULL
        self.last_rule = rule
        self.last_ref = ref
        return series

    cdef int keep_for_log(self, Call* call, RequestHead* head) except -1:
        cdef Field[4] kept
        cdef uint8_t[FORWARDED_FOR_MAX] forwarded
        cdef Py_ssize_t count = 2
        memset(kept, 0, sizeof(kept))
        kept[0] = head.path[0]
        kept[1].name = b"x-forwarded-for"
        kept[1].name_length = 15
        kept[1].value = forwarded
        kept[1].value_length = <uint32_t>(<TrustedProxies>self.gate.trusted).forwarded_for(
            self.client.address, self.client.address_length, self.client.is_trusted, head.x_forwarded_for,
            head.x_forwarded_for_span, forwarded, FORWARDED_FOR_MAX,
        )
        kept[1].token = TOKEN_X_FORWARDED_FOR
        if head.authority != NULL:
            kept[count] = head.authority[0]
            kept[count].token = TOKEN_AUTHORITY
            count += 1
        if head.user_agent != NULL:
            kept[count] = head.user_agent[0]
            count += 1
        call.log_fields = copy_fields(kept, count)
        return 0

    cdef int start_call(self, Stream* stream, Snapshot snapshot, Found* found, RequestHead* head,
                        Field* fields, Py_ssize_t count, bint end_stream) except -1:
        cdef Context context = self.context
        cdef RouteTable table = snapshot.table
        cdef const RuleRecord* rule = found.rule
        cdef const BackendRefRecord* ref
        cdef Backend backend
        cdef Endpoint endpoint
        cdef int64_t timeout = 0
        cdef Call* call
        cdef Origin origin
        cdef int pick
        if rule.failure_status >= 0:
            return self.answer_octets(
                stream, snapshot, found, NULL, head, rule.failure_status,
                table.octets(rule.failure), rule.failure.length, 500,
            )
        pick = table.pick(rule)
        if pick < 0:
            return self.answer(stream, snapshot, found, NULL, head, 14, "all backends of this route have weight 0")
        ref = table.refs(rule) + pick
        if ref.failure.length > 0:
            return self.answer_octets(
                stream, snapshot, found, ref, head, 14, table.octets(ref.failure), ref.failure.length,
                ref.http_failure,
            )
        if head.is_grpc and head.grpc_timeout != NULL:
            timeout = parse_timeout(head.grpc_timeout.value, head.grpc_timeout.value_length)
            if timeout < 0:
                return self.answer(stream, snapshot, found, ref, head, 13, "malformed grpc-timeout")
            if timeout == 0:
                return self.answer(stream, snapshot, found, ref, head, 4, "deadline exceeded")
        if rule.timeout_ms > 0 and (timeout == 0 or timeout > <int64_t>rule.timeout_ms * 1000):
            timeout = <int64_t>rule.timeout_ms * 1000
        backend = <Backend>snapshot.backends_of(found.listener)[ref.backend]
        endpoint = backend.next_endpoint()
        call = self.make_call(stream, snapshot, found, ref, head)
        if end_stream:
            call.flags |= CALL_REQUEST_ENDED
        if endpoint is None:
            message = f"no ready endpoints for {backend.key}".encode()
            return call_failed(call, 14, message, len(message), "no ready endpoints")
        if timeout > 0:
            call.deadline_us = call.started_us + <uint64_t>timeout
            call.deadline.owner = call
            call.deadline.kind = TIMER_DEADLINE
            context.arm(&call.deadline, timeout / 1e6)
        if rule.mirrors.count > 0 or ref.mirrors.count > 0:
            self.start_mirrors(call, snapshot, rule.mirrors, fields, count, timeout)
            self.start_mirrors(call, snapshot, ref.mirrors, fields, count, timeout)
        self.note_origin(&origin, call, fields, count)
        return self.send_call(call, backend, endpoint, fields, count, &origin)

    cdef void note_origin(self, Origin* origin, const Call* call, const Field* fields, Py_ssize_t count) noexcept:
        cdef HpackDecoder decoder = self.decoder
        cdef Py_ssize_t more = count - decoder.run_fields
        origin.run = 0
        origin.generation = self.gate.generation
        origin.ref = call.ref
        if call.flags & CALL_GRPC and (more == 0 or (more == 1 and fields[count - 1].token == TOKEN_GRPC_TIMEOUT)):
            origin.run = decoder.run_number

    # Sends what came, edited, to the endpoint, or lets the call wait there.
    cdef int send_call(self, Call* call, Backend backend, Endpoint endpoint, const Field* fields, Py_ssize_t count,
                       const Origin* origin) except -1:
        cdef Peer upstream = endpoint.ready_upstream(0)
        # Those that wait already go first.
        cdef bint is_free = upstream is not None and endpoint.load.queue.count == 0
        call.backend = <PyObject*>backend
        Py_INCREF(endpoint)
        call.endpoint = <PyObject*>endpoint
        call.load = &endpoint.load
        if is_free and repeats_last(&endpoint.load.last, origin, upstream.encoder):
            if join_repeated_call(call, upstream):
                return 0
        count = build_request(
            self.context, <RouteTable>call.table, call.rule, call.ref, fields, count,
            <TrustedProxies>self.gate.trusted, &self.client, call.flags & CALL_GRPC,
        )
        if is_free and join_new_call(call, upstream, self.context.scratch, count, origin):
            return 0
        if endpoint.is_late():
            return self.shed_late(call)
        hold_section(call, self.context.scratch, count)
        if not endpoint.wait(call):
            message = f"too many calls wait for {endpoint.label.decode()} (pending_calls)".encode()
            return call_failed(call, 8, message, len(message), "pending_calls reached")
        return 0

    cdef int start_mirrors(self, Call* primary, Snapshot snapshot, ListRef list, Field* fields, Py_ssize_t count,
                           int64_t timeout) except -1:
        cdef const MirrorRecord* mirrors = snapshot.table.mirrors(list)
        cdef Context context = self.context
        cdef Backend backend
        cdef Endpoint endpoint
        cdef Call* mirror
        cdef Origin unknown
        cdef uint32_t i
        unknown.run = 0
        for i in range(list.count):
            if not snapshot.mirror_due(list.first + i, mirrors[i].numerator, mirrors[i].denominator):
                continue
            backend = <Backend>snapshot.backends_of(primary.listener)[mirrors[i].backend]
            endpoint = backend.next_endpoint()
            if endpoint is None or context.mirror_count >= context.max_mirror_calls:
                context.counters.mirrors_failed += 1
                continue
            context.counters.mirrored += 1
            mirror = new_call(context)
            mirror.flags = CALL_MIRROR | (primary.flags & (CALL_GRPC | CALL_HEAD | CALL_REQUEST_ENDED))
            context.mirror_count += 1
            Py_INCREF(snapshot)
            mirror.snapshot = <PyObject*>snapshot
            mirror.table = <PyObject*>snapshot.table
            mirror.rule = primary.rule
            mirror.ref = primary.ref
            mirror.started_us = context.turn_us
            mirror.deadline_us = primary.deadline_us
            if timeout > 0:
                mirror.deadline.owner = mirror
                mirror.deadline.kind = TIMER_DEADLINE
                context.arm(&mirror.deadline, timeout / 1e6)
            if not primary.flags & CALL_REQUEST_ENDED:
                mirror.primary = primary
                mirror.mirror_next = primary.mirrors
                primary.mirrors = mirror
            self.send_call(mirror, backend, endpoint, fields, count, &unknown)
        return 0

    # ===== hooks of a stream =====

    cdef int on_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
        cdef Call* call = <Call*>stream.owner
        if call != NULL:
            if call.flags & CALL_UNSERVED:
                call.request_octets += <uint64_t>length
                return call_refused(call) if end_stream or call.request_octets >= UNSERVED_OCTETS else 0
            return call_request_data(call, data, length, end_stream)
        if length > 0:
            self.credit(stream, length)
        return 0

    cdef int on_trailers(self, Stream* stream, Field* fields, Py_ssize_t count, Field* grpc_status) except -1:
        cdef Call* call = <Call*>stream.owner
        if call != NULL:
            if call.flags & CALL_UNSERVED:
                return call_refused(call)
            call_request_trailers(call, fields, count)
        return 0

    cdef int on_drained(self, Stream* stream, Py_ssize_t octets) except -1:
        if stream.owner != NULL:
            call_response_drained(<Call*>stream.owner, octets)
        return 0

    cdef int on_closed(self, Stream* stream, CloseCause cause, uint32_t code) except -1:
        if cause == CLOSED_BY_PEER:
            self.context.counters.downstream_resets_received += 1
        elif cause == CLOSED_BY_ERROR:
            self.context.counters.downstream_malformed += 1
            if code == ENHANCE_YOUR_CALM:        # trailers
                self.count_large_headers()
        elif cause == CLOSED_STALLED:
            self.context.counters.limit_hits[<int>LIMIT_STREAM_STALL_TIMEOUT] += 1
        if stream.owner != NULL:
            call_client_gone(<Call*>stream.owner, cause)
        return 0

    cdef int on_stream_available(self) except -1:
        if self.stream_count == 0:
            if self.is_final:
                self.close_after_flush()
            elif not self.idle_timer.armed:
                self.arm_idle()
        return 0

    cdef int on_failed(self) except -1:
        self.context.counters.downstream_connection_errors += 1
        self.count_broken_limit()
        return self.close_after_flush()


cdef inline bint is_method(const Field* method, const char* name) noexcept:
    cdef size_t length = strlen(name)
    return method.value_length == length and memcmp(method.value, name, length) == 0
