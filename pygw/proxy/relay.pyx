# relay.pyx: the data plane of one worker, as plain Python sees it: configure, accept, drain, measure.
#
# Nothing here runs per call. What does is in downstream.pyx, call_*.pyx and upstream.pyx.

import logging

from .._fastmatch cimport RouteTable
from ..match.image_check cimport ImageProof
from .backend cimport Backend
from .call_failure cimport call_failed, call_refused
from .call_life cimport up_peer
from .call_metrics cimport LIMIT_PENDING_TIMEOUT, CallMetrics, relay_counters
from .call_record cimport Call
from .client_address cimport TrustedProxies
from .context cimport TIMER_DEADLINE, TIMER_UNSERVED, Context
from .dialer import Dialer
from .downstream cimport Downstream
from .endpoint cimport Endpoint
from .gate cimport Gate
from .peer cimport flush_peer
from .snapshot cimport Snapshot
from .tls import TlsSites
from .access_log cimport AccessLog

logger = logging.getLogger(__name__)

cdef enum:
    # What one step of a change does before calls go on: some 0.3 ms each.
    RECORDS_PER_STEP = 32768
    RULES_PER_STEP = 4096
    BACKENDS_PER_STEP = 128


# The next Snapshot in the making.
cdef class Change:
    cdef:
        object tls                   # TlsSites; None: all is cleartext
        dict backends                # as Relay.backends
        dict lists                   # by client certificate: the Backends in the order of the image

    cdef int begin(self, tls, previous) except -1:
        self.tls = None if tls is None else TlsSites(tls, previous)
        self.backends = {}
        self.lists = {None: []}
        if tls is not None:
            for certificate in tls.client_certificates:
                self.lists.setdefault(certificate, [])
        return 0

    # The lists by listener; None where no Gateway has a client certificate.
    cdef list by_listener(self):
        if len(self.lists) == 1:
            return None
        return [self.lists[certificate] for certificate in self.tls.snapshot.client_certificates]


cdef class Relay:
    cdef:
        readonly Context context
        Gate gate
        object loop
        object dialer
        dict endpoints               # (address, port, tls) -> Endpoint
        list left                    # Endpoints that a Backend has let go of: the next forget_endpoints() looks at them
        dict backends                # key -> {client certificate: Backend}, those of the present snapshot
        object tls                   # TlsSites of the present snapshot; None: all is cleartext
        int worker

    def __init__(self, loop, settings, int worker, trusted_proxies=(), proxy_protocol_from=(), access_log=None):
        self.loop = loop
        self.worker = worker
        self.context = Context(
            loop, settings, CallMetrics(settings.max_label_values),
            AccessLog(loop, access_log) if access_log is not None else None,
        )
        self.context.call_timer = self.on_call_timer
        self.context.flush_peer = flush_peer
        self.gate = Gate(
            self.context,
            TrustedProxies(trusted_proxies, settings.trusted_proxy_hops),
            TrustedProxies(proxy_protocol_from, 1) if proxy_protocol_from else None,
        )
        self.dialer = Dialer(loop, self.context)
        self.endpoints = {}
        self.left = []
        self.backends = {}

    # ===== configuration =====

    def apply(self, long version, image, backends, tls=None):
        """Serve a new image from the next call on, all at once: see steps_to."""
        for _ in self.steps_to(version, image, [list(backends)], tls):
            pass

    def steps_to(self, long version, image, chunks, tls=None):
        """Serve a new image, in short steps: an iterator that stops where calls may go on in between.

        `chunks` are lists of (backend key, addresses), in the order of the image; `tls` is the TlsSnapshot that belongs
        to it (None: all is cleartext). Raises ValueError, and keeps the old image, where it is none. Until the
        iterator has ended, no other change may begin.
        """
        cdef Snapshot before
        cdef RouteTable table
        cdef ImageProof proof = ImageProof(image)
        cdef bint was_secured = self.tls is not None
        cdef Change change = Change()
        while not proof.step(RECORDS_PER_STEP):
            yield
        before = self.gate.snapshot
        table = RouteTable(
            proof, before.table if before is not None else None, self.worker * 7919, self.context.settings.regex_cache
        )
        before = None            # it goes with its last call, not with us
        change.begin(tls, self.tls)
        yield
        for chunk in chunks:
            self.add_backends(change, chunk)
            yield
        gone = self.swap(change, version, table)
        yield
        for chunk in [gone[i:i + BACKENDS_PER_STEP] for i in range(0, len(gone), BACKENDS_PER_STEP)]:
            for backend in chunk:
                self.update_backend(backend, [])
            self.forget_endpoints()
            yield
        while not table.inherit(RULES_PER_STEP):
            yield
        if was_secured or self.tls is not None:
            for connection in list(self.gate.connections):
                connection.reconsider()

    cdef int add_backends(self, Change change, chunk) except -1:
        # The Backends of a chunk, as Gateways with each of the client certificates reach them.
        for certificate, chosen in change.lists.items():
            for key, addresses in chunk:
                tls = None if change.tls is None else change.tls.upstream(key, certificate)
                shown = None if tls is None else certificate     # in cleartext, none is shown
                variants = change.backends.setdefault(key, {})
                backend = variants.get(shown)
                if backend is None:
                    backend = self.backends.get(key, {}).get(shown) or Backend(self.context, key)
                    variants[shown] = backend
                    backend.tls = tls
                    self.set_endpoints(backend, addresses)
                chosen.append(backend)
        self.forget_endpoints()
        return 0

    # From now on calls begin on the new snapshot. Gives the Backends that it does not know any more.
    cdef list swap(self, Change change, long version, RouteTable table):
        cdef dict before = self.backends
        cdef dict secured = None
        cdef dict variants
        cdef list gone = []
        if change.tls is not None:
            secured = {
                table.site(address, port): change.tls.site(address, port) for address, port in change.tls.snapshot.sites
            }
        self.gate.snapshot = Snapshot(
            version, table, change.lists[None], table.mirror_count(), change.by_listener(), secured
        )
        self.gate.generation += 1
        self.tls = change.tls
        self.backends = change.backends
        for key, variants in before.items():
            kept = self.backends.get(key)
            for certificate, backend in variants.items():
                if kept is None or kept.get(certificate) is not backend:
                    gone.append(backend)
        return gone

    def update_endpoints(self, backends):
        """New endpoints of some backends of the present image; names that it has not are ignored."""
        for key, addresses in backends:
            for backend in self.backends.get(key, {}).values():
                self.set_endpoints(backend, addresses)
        self.forget_endpoints()

    cdef int set_endpoints(self, Backend backend, addresses) except -1:
        # Those that exist are kept, and so their connections.
        cdef list chosen = []
        for host, port in addresses:
            key = (host, port, backend.tls)
            endpoint = self.endpoints.get(key)
            if endpoint is None:
                endpoint = self.endpoints[key] = Endpoint(self.context, host, port, self.dialer, backend.tls)
            chosen.append(endpoint)
        if chosen != backend.endpoints:
            self.update_backend(backend, chosen)
        return 0

    cdef int update_backend(self, Backend backend, list endpoints) except -1:
        self.left += backend.endpoints
        backend.update(endpoints)
        return 0

    cdef int forget_endpoints(self) except -1:
        # Drop what no backend lists any more; calls on it finish, for they hold it.
        cdef Endpoint endpoint
        for endpoint in self.left:
            key = (endpoint.host, endpoint.port, endpoint.tls)
            if endpoint.users == 0 and self.endpoints.get(key) is endpoint:
                del self.endpoints[key]
        self.left.clear()
        return 0

    @property
    def version(self):
        """The version given to apply() last, or -1."""
        return -1 if self.gate.snapshot is None else self.gate.snapshot.version

    # ===== connections =====

    def protocol_factory(self, str address, int port):
        """A callable that makes the protocol of one client connection to the site (address, port).

        `address` "" or a wildcard address: the connection's own local address is asked for.
        """
        context, gate = self.context, self.gate

        def make():
            return Downstream(context, gate, address, port)

        return make

    def watch_accepting(self, on_accepting):
        """`on_accepting(False)` is called where no more client connections should be accepted, (True) to go on."""
        self.gate.on_accepting = on_accepting

    def accept_again(self):
        """Look whether there is room by accepting: descriptors are also freed by others than clients."""
        self.gate.reopen()

    def on_call_timer(self, size_t address, int kind):
        """A timer of a call has fired."""
        cdef Call* call = <Call*>address
        cdef bytes message
        self.context.turn_us = self.context.time_us()
        if kind == TIMER_DEADLINE:
            self.context.counters.deadlines_exceeded += 1
            if call.up != NULL:
                up_peer(call).doubt(call.sent_us)
            message = b"deadline exceeded"
            call_failed(call, 4, message, len(message), "deadline exceeded")
        elif kind == TIMER_UNSERVED:
            call_refused(call)
        else:
            self.context.counters.limit_hits[<int>LIMIT_PENDING_TIMEOUT] += 1
            message = b"no connection to " + call.load.label[:call.load.label_length] + b" in time (pending_timeout)"
            call_failed(call, 14, message, len(message), "no connection in time")

    # ===== the end =====

    def start_drain(self):
        """First GOAWAY on all client connections, on new ones with their first request: calls go on, new ones work."""
        self.context.draining = True
        for connection in list(self.gate.connections):
            connection.drain()

    def finish_drain(self):
        """Second GOAWAY: connections close when their calls have ended."""
        self.context.closing = True
        for connection in list(self.gate.connections):
            connection.finish()

    def abort_calls(self):
        """What is left ends with UNAVAILABLE (14), then its connection closes."""
        cdef Call* call
        cdef bytes message = b"the gateway is shutting down"
        self.context.turn_us = self.context.time_us()
        while self.context.calls != NULL:
            call = <Call*>self.context.calls
            call_failed(call, 14, message, len(message), "drain timeout")
        for connection in list(self.gate.connections):
            connection.finish()

    def close(self):
        """Close everything at once: for the end of the process."""
        for connection in list(self.gate.connections):
            connection.abort()
        for endpoint in self.endpoints.values():
            for upstream in endpoint.connections:
                upstream.abort()
        self.dialer.close()
        self.context.stop()
        if self.context.access_log is not None:
            self.context.access_log.flush()

    @property
    def open_calls(self):
        """Calls that have not ended, mirrors not counted."""
        return self.context.call_count - self.context.mirror_count

    @property
    def open_connections(self):
        """Client connections."""
        return len(self.gate.connections)

    # ===== measuring =====

    def metrics(self):
        """All counters and histograms of this worker, as plain data."""
        self.context.counters.downstream_streams_open = sum(
            [connection.stream_count for connection in self.gate.connections]
        )
        self.context.counters.upstream_streams_open = sum(
            [endpoint.active for endpoint in self.endpoints.values()]
        )
        self.context.counters.endpoints_ejected = sum([endpoint.ejected for endpoint in self.endpoints.values()])
        collected = self.context.metrics.collect()
        collected["counters"] = collected["counters"] + relay_counters(&self.context.counters)
        return collected

    def endpoint_states(self):
        """What /endpoints shows: for each backend its endpoints with calls, connections and failures."""
        return {
            key: [
                {
                    "address": endpoint.label.decode(),
                    "calls": endpoint.active,
                    "waiting": endpoint.pending,
                    "connections": len(endpoint.connections),
                    "failures": endpoint.failures,
                    "ejected": endpoint.ejected,
                }
                for backend in variants.values()
                for endpoint in backend.endpoints
            ]
            for key, variants in self.backends.items()
        }
