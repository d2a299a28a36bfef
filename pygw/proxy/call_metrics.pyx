# call_metrics.pyx: the series of calls, and their form for whoever exposes them. See call_metrics.pxd.

import os

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

cdef extern from *:
    """
    static inline uint64_t pygw_fold(uint64_t a, uint64_t b) {
        __uint128_t product = (__uint128_t)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    uint64_t fold "pygw_fold" (uint64_t a, uint64_t b) noexcept nogil

cdef enum:
    CHUNK = 32                   # series allocated at once
    FIRST_BUCKETS = 64
    NAME_MAX = 512               # octets of a route's or backend's label that are kept; Kubernetes' names are shorter

cdef struct Chunk:
    Chunk* previous
    CallSeries[CHUNK] series

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
OTHER = "_other"


# Multiply and fold, 8 octets a step (as wyhash does): with a secret seed nobody can aim at a bucket.
cdef inline uint64_t hash_octets(const uint8_t* octets, Py_ssize_t length, uint64_t seed, uint64_t state) noexcept:
    cdef uint64_t word
    state ^= <uint64_t>length
    while length >= 8:
        memcpy(&word, octets, 8)
        state = fold(state ^ word, seed)
        octets += 8
        length -= 8
    if length > 0:
        word = 0
        memcpy(&word, octets, <size_t>length)
        state = fold(state ^ word, seed)
    return state


# A path that may become labels: /service/method, both not empty, nothing more, printable ASCII (so that different
# paths never show as the same text), and not what the shared series is called.
cdef bint is_method_path(const uint8_t* path, Py_ssize_t length) noexcept:
    cdef Py_ssize_t i, slash = 0
    if length < 4 or length > LABEL_MAX or path[0] != b"/":
        return False
    for i in range(1, length):
        if not 0x20 < path[i] < 0x7F or path[i] == b"?":
            return False
        if path[i] == b"/":
            if slash > 0 or i == 1 or i == length - 1:
                return False
            slash = i
    return slash > 0 and not (length == 14 and memcmp(path, b"/_other/_other", 14) == 0)


cdef class CallMetrics:

    def __cinit__(self, Py_ssize_t max_series):
        cdef bytes seed = os.urandom(16)
        if max_series < 0:
            raise ValueError(f"max_series must be 0 or more, not {max_series}")
        self.max_series = max_series
        memcpy(&self.seed0, <const uint8_t*>seed, 8)
        memcpy(&self.seed1, <const uint8_t*>seed + 8, 8)
        self.seed0 |= 1
        self.chunk_used = CHUNK
        self.mask = FIRST_BUCKETS - 1
        self.buckets = <CallSeries**>calloc(FIRST_BUCKETS, sizeof(CallSeries*))
        if self.buckets == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef Chunk* chunk = <Chunk*>self.chunks
        cdef Chunk* previous
        cdef Py_ssize_t i
        while chunk != NULL:
            for i in range(CHUNK):
                free(chunk.series[i].labels)
            previous = chunk.previous
            free(chunk)
            chunk = previous
        free(self.buckets)

    cdef CallSeries* series(
        self, const uint8_t* path, Py_ssize_t path_length, const uint8_t* route, uint32_t route_length,
        const uint8_t* backend, uint32_t backend_length,
    ) except NULL:
        cdef uint64_t names, hash
        cdef CallSeries* found
        if route_length > NAME_MAX:
            route_length = NAME_MAX
        if backend_length > NAME_MAX:
            backend_length = NAME_MAX
        names = hash_octets(route, route_length, self.seed0, self.seed1)
        names = hash_octets(backend, backend_length, self.seed0, names)
        if route_length > 0 and 0 < path_length <= LABEL_MAX:
            hash = hash_octets(path, path_length, self.seed0, names)
            found = self.find(
                hash, path, <uint32_t>path_length, route, route_length, backend, backend_length
            )
            if found != NULL:
                return found
            if is_method_path(path, path_length):
                if self.series_count < self.max_series:
                    self.series_count += 1
                    return self.insert(
                        hash, path, <uint32_t>path_length, route, route_length, backend, backend_length
                    )
                self.overflow_lookups += 1
        hash = hash_octets(NULL, 0, self.seed0, names)
        found = self.find(hash, NULL, 0, route, route_length, backend, backend_length)
        if found != NULL:
            return found
        # The series of calls without a route and backend is always there, for it is only one.
        if self.other_count < self.max_series or route_length + backend_length == 0:
            self.other_count += 1
            return self.insert(hash, NULL, 0, route, route_length, backend, backend_length)
        if self.rest == NULL:
            self.rest = self.allocate()
            self.rest.is_rest = True
        return self.rest

    cdef CallSeries* find(
        self, uint64_t hash, const uint8_t* path, uint32_t path_length, const uint8_t* route, uint32_t route_length,
        const uint8_t* backend, uint32_t backend_length,
    ) noexcept:
        cdef CallSeries* series = self.buckets[hash & self.mask]
        while series != NULL:
            if (
                series.hash == hash
                and series.path_length == path_length
                and series.route_length == route_length
                and series.backend_length == backend_length
                and equal(series.labels, path, path_length)
                and equal(series.labels + path_length, route, route_length)
                and equal(series.labels + path_length + route_length, backend, backend_length)
            ):
                return series
            series = series.next
        return NULL

    cdef CallSeries* insert(
        self, uint64_t hash, const uint8_t* path, uint32_t path_length, const uint8_t* route, uint32_t route_length,
        const uint8_t* backend, uint32_t backend_length,
    ) except NULL:
        cdef CallSeries* series
        cdef uint8_t* labels = <uint8_t*>malloc(path_length + route_length + backend_length + 1)
        if labels == NULL:
            raise MemoryError()
        copy(labels, path, path_length)
        copy(labels + path_length, route, route_length)
        copy(labels + path_length + route_length, backend, backend_length)
        try:
            self.make_room()
            series = self.allocate()
        except MemoryError:
            free(labels)
            raise
        series.hash = hash
        series.labels = labels
        series.path_length = path_length
        series.route_length = route_length
        series.backend_length = backend_length
        series.next = self.buckets[hash & self.mask]
        self.buckets[hash & self.mask] = series
        return series

    # A zeroed series, counted in no table yet.
    cdef CallSeries* allocate(self) except NULL:
        cdef Chunk* chunk
        cdef CallSeries* series
        if self.chunk_used == CHUNK:
            chunk = <Chunk*>calloc(1, sizeof(Chunk))
            if chunk == NULL:
                raise MemoryError()
            chunk.previous = <Chunk*>self.chunks
            self.chunks = chunk
            self.chunk_used = 0
        series = &(<Chunk*>self.chunks).series[self.chunk_used]
        self.chunk_used += 1
        return series

    # Doubles the hash table when it is as full as it is wide.
    cdef int make_room(self) except -1:
        cdef CallSeries** buckets
        cdef CallSeries* series
        cdef CallSeries* following
        cdef uint64_t i, mask = self.mask * 2 + 1
        if <uint64_t>(self.series_count + self.other_count) <= self.mask:
            return 0
        buckets = <CallSeries**>calloc(mask + 1, sizeof(CallSeries*))
        if buckets == NULL:
            raise MemoryError()
        for i in range(self.mask + 1):
            series = self.buckets[i]
            while series != NULL:
                following = series.next
                series.next = buckets[series.hash & mask]
                buckets[series.hash & mask] = series
                series = following
        free(self.buckets)
        self.buckets = buckets
        self.mask = mask
        return 0

    def collect(self):
        cdef list counters = []
        cdef list histograms = []
        cdef Chunk* chunk = <Chunk*>self.chunks
        cdef Py_ssize_t i, used = self.chunk_used
        while chunk != NULL:
            for i in range(used):
                collect_series(&chunk.series[i], counters, histograms)
            used = CHUNK
            chunk = chunk.previous
        counters.append(["pygw_metric_series", {}, self.series_count + self.other_count])
        counters.append(["pygw_metric_series_overflow_total", {}, self.overflow_lookups])
        return {"counters": counters, "histograms": histograms}


cdef inline bint equal(const uint8_t* a, const uint8_t* b, uint32_t length) noexcept:
    return length == 0 or memcmp(a, b, length) == 0


cdef inline void copy(uint8_t* to, const uint8_t* octets, uint32_t length) noexcept:
    if length > 0:
        memcpy(to, octets, length)


cdef str text_of(const uint8_t* octets, uint32_t length):
    return octets[:length].decode("utf-8", "replace")


cdef dict labels_of(const CallSeries* series):
    cdef str service = OTHER, method = OTHER, route = OTHER, backend = OTHER
    if series.path_length > 0:
        _, service, method = text_of(series.labels, series.path_length).split("/")
    if not series.is_rest:
        route = text_of(series.labels + series.path_length, series.route_length)
        backend = text_of(series.labels + series.path_length + series.route_length, series.backend_length)
    return {"service": service, "method": method, "route": route, "backend": backend}


cdef int collect_series(const CallSeries* series, list counters, list histograms) except -1:
    cdef dict labels = labels_of(series)
    cdef int status
    for status in range(STATUS_COUNT):
        if series.finished[status] > 0:
            name = "none" if status == STATUS_NONE else str(status)
            counters.append(["pygw_calls_total", {**labels, "grpc_status": name}, series.finished[status]])
    counters.append(["pygw_calls_started_total", labels, series.started])
    counters.append(["pygw_calls_open", labels, series.open])
    counters.append(["pygw_call_received_bytes_total", labels, series.received_octets])
    counters.append(["pygw_call_sent_bytes_total", labels, series.sent_octets])
    counters.append(["pygw_request_messages_total", labels, series.request_messages])
    counters.append(["pygw_response_messages_total", labels, series.response_messages])
    histograms.append([
        "pygw_call_duration_seconds", labels, list(BOUNDS),
        [series.durations[i] for i in range(LATENCY_BUCKETS)], series.duration_us / 1e6,
    ])
    return 0


# ===== RelayCounters =====

LIMITS = (
    "max_concurrent_streams", "max_header_list_size", "max_header_fields", "handshake_timeout", "keepalive_timeout",
    "max_connection_idle", "max_connection_age", "max_connection_age_grace", "pending_calls", "pending_timeout",
    "max_upstream_connections", "connect_timeout", "max_handshakes", "overload_lag", "max_calls", "max_connections",
    "descriptor_reserve", "max_connections_per_address", "frame_timeout", "write_timeout",
    "stream_stall_timeout", "max_header_block", "max_continuations", "max_interim_responses", "max_blocked_output",
    "flood_control_frames", "flood_settings_frames", "flood_rapid_resets", "flood_provoked_resets",
    "flood_refused_streams",
)
SHEDS = ("overload_lag", "max_calls", "pending_lag")
RETRIES = ("connect", "refused", "goaway", "unsent")


cdef list relay_counters(const RelayCounters* counters):
    cdef list rows = [
        ["pygw_downstream_accepts_total", {}, counters.downstream_connections],
        ["pygw_downstream_connections", {}, counters.downstream_connections_open],
        ["pygw_downstream_connection_errors_total", {}, counters.downstream_connection_errors],
        ["pygw_downstream_http1_total", {}, counters.downstream_http1],
        ["pygw_downstream_proxy_errors_total", {}, counters.downstream_proxy_errors],
        ["pygw_downstream_tls_handshakes_total", {}, counters.downstream_tls_handshakes],
        ["pygw_downstream_tls_errors_total", {}, counters.downstream_tls_errors],
        ["pygw_downstream_misdirected_total", {}, counters.downstream_misdirected],
        ["pygw_downstream_streams_opened_total", {}, counters.downstream_streams],
        ["pygw_downstream_streams", {}, counters.downstream_streams_open],
        ["pygw_downstream_received_bytes_total", {}, counters.downstream_received_octets],
        ["pygw_downstream_sent_bytes_total", {}, counters.downstream_sent_octets],
        ["pygw_downstream_resets_received_total", {}, counters.downstream_resets_received],
        ["pygw_downstream_resets_sent_total", {}, counters.downstream_resets_sent],
        ["pygw_downstream_malformed_total", {}, counters.downstream_malformed],
        ["pygw_upstream_connects_total", {}, counters.upstream_connects],
        ["pygw_upstream_connect_failures_total", {}, counters.upstream_connect_failures],
        ["pygw_upstream_tls_errors_total", {}, counters.upstream_tls_errors],
        ["pygw_upstream_connections", {}, counters.upstream_connections_open],
        ["pygw_upstream_connection_errors_total", {}, counters.upstream_connection_errors],
        ["pygw_upstream_streams_opened_total", {}, counters.upstream_streams],
        ["pygw_upstream_streams", {}, counters.upstream_streams_open],
        ["pygw_upstream_received_bytes_total", {}, counters.upstream_received_octets],
        ["pygw_upstream_sent_bytes_total", {}, counters.upstream_sent_octets],
        ["pygw_upstream_resets_received_total", {}, counters.upstream_resets_received],
        ["pygw_upstream_resets_sent_total", {}, counters.upstream_resets_sent],
        ["pygw_upstream_malformed_total", {}, counters.upstream_malformed],
        ["pygw_upstream_pending_calls", {}, counters.upstream_pending],
        ["pygw_endpoint_ejections_total", {}, counters.endpoint_ejections],
        ["pygw_endpoints_ejected", {}, counters.endpoints_ejected],
        ["pygw_endpoint_panics_total", {}, counters.endpoint_panics],
        ["pygw_held_request_bytes", {}, counters.held_octets],
        ["pygw_deadlines_exceeded_total", {}, counters.deadlines_exceeded],
        ["pygw_calls_cancelled_total", {}, counters.cancelled],
        ["pygw_mirrors_total", {}, counters.mirrored],
        ["pygw_mirrors_failed_total", {}, counters.mirrors_failed],
    ]
    cdef int i
    for i in range(<int>SHED_COUNT):
        rows.append(["pygw_overload_shed_total", {"limit": SHEDS[i]}, counters.shed[i]])
    for i in range(<int>RETRY_COUNT):
        rows.append(["pygw_upstream_retries_total", {"reason": RETRIES[i]}, counters.upstream_retries[i]])
    for i in range(<int>LIMIT_COUNT):
        rows.append(["pygw_limit_hits_total", {"limit": LIMITS[i]}, counters.limit_hits[i]])
    return rows


# ===== what the names mean: (type, help) as Prometheus has them =====

HELP = {
    "pygw_calls_total": ("counter", "Calls that ended, by the grpc-status that the client got (none: it got none)."),
    "pygw_calls_started_total": ("counter", "Calls that began."),
    "pygw_calls_open": ("gauge", "Calls that began and have not ended."),
    "pygw_call_duration_seconds": ("histogram", "From a call's first octet to its end."),
    "pygw_call_received_bytes_total": ("counter", "DATA from clients, message prefixes included."),
    "pygw_call_sent_bytes_total": ("counter", "DATA to clients, message prefixes included."),
    "pygw_request_messages_total": ("counter", "Whole gRPC messages from clients."),
    "pygw_response_messages_total": ("counter", "Whole gRPC messages to clients."),
    "pygw_metric_series": ("gauge", "Distinct label sets of the call metrics; max_label_values limits them."),
    "pygw_metric_series_overflow_total": (
        "counter", 'Calls counted as service and method "_other" because of max_label_values.'),
    "pygw_downstream_accepts_total": ("counter", "Client connections accepted."),
    "pygw_downstream_connections": ("gauge", "Client connections open."),
    "pygw_downstream_connection_errors_total": ("counter", "Client connections ended for what the client did wrong."),
    "pygw_downstream_http1_total": ("counter", "Client connections that spoke HTTP/1 and were told to use HTTP/2."),
    "pygw_downstream_proxy_errors_total": ("counter", "Connections closed for a malformed or missing PROXY header."),
    "pygw_downstream_tls_handshakes_total": ("counter", "TLS handshakes with clients that were finished."),
    "pygw_downstream_tls_errors_total": (
        "counter", "TLS handshakes and sessions with clients that failed; --log-level debug says why."),
    "pygw_downstream_misdirected_total": (
        "counter", "Requests answered with 421: their :authority is of another listener than the TLS server name."),
    "pygw_downstream_streams_opened_total": ("counter", "Streams that clients opened."),
    "pygw_downstream_streams": ("gauge", "Streams of clients open."),
    "pygw_downstream_received_bytes_total": ("counter", "Received from clients, all of HTTP/2 included."),
    "pygw_downstream_sent_bytes_total": ("counter", "Sent to clients, all of HTTP/2 included."),
    "pygw_downstream_resets_received_total": ("counter", "RST_STREAM from clients."),
    "pygw_downstream_resets_sent_total": ("counter", "RST_STREAM to clients."),
    "pygw_downstream_malformed_total": ("counter", "Requests reset because RFC 9113 section 8 calls them malformed."),
    "pygw_upstream_connects_total": ("counter", "Connections to endpoints begun."),
    "pygw_upstream_connect_failures_total": ("counter", "Connections to endpoints that did not come about."),
    "pygw_upstream_tls_errors_total": (
        "counter", "TLS handshakes and sessions with endpoints that failed, also by certificates not trusted."),
    "pygw_upstream_connections": ("gauge", "Connections to endpoints open."),
    "pygw_upstream_connection_errors_total": ("counter", "Connections ended for what the endpoint did wrong."),
    "pygw_upstream_streams_opened_total": ("counter", "Streams opened to endpoints: attempts of calls and mirrors."),
    "pygw_upstream_streams": ("gauge", "Streams to endpoints open."),
    "pygw_upstream_received_bytes_total": ("counter", "Received from endpoints, all of HTTP/2 included."),
    "pygw_upstream_sent_bytes_total": ("counter", "Sent to endpoints, all of HTTP/2 included."),
    "pygw_upstream_resets_received_total": ("counter", "RST_STREAM from endpoints."),
    "pygw_upstream_resets_sent_total": ("counter", "RST_STREAM to endpoints."),
    "pygw_upstream_malformed_total": ("counter", "Responses reset because RFC 9113 section 8 calls them malformed."),
    "pygw_upstream_retries_total": (
        "counter", "Attempts after a call's first, where nothing was processed: by what became of that."),
    "pygw_upstream_pending_calls": ("gauge", "Calls that wait for a connection to their endpoint."),
    "pygw_endpoint_ejections_total": (
        "counter", "Endpoints left out for failing eject_failures calls in a row, each time."),
    "pygw_endpoints_ejected": ("gauge", "Endpoints left out now, until they answer a call."),
    "pygw_endpoint_panics_total": (
        "counter", "Calls that went to any endpoint, because more than eject_panic percent were ejected."),
    "pygw_held_request_bytes": (
        "gauge", "Held of requests, small messages aside, while they wait or may have to be sent again."),
    "pygw_deadlines_exceeded_total": ("counter", "Calls ended because their grpc-timeout had passed."),
    "pygw_calls_cancelled_total": ("counter", "Calls that the client cancelled or left."),
    "pygw_overload_shed_total": (
        "counter", "Calls refused early, by the limit: overload_lag and max_calls (in no other metric), pending_lag."),
    "pygw_mirrors_total": ("counter", "Copies of calls begun for RequestMirror."),
    "pygw_mirrors_failed_total": ("counter", "Copies given up; their calls were not touched."),
    "pygw_limit_hits_total": ("counter", "How often a limit of --list-settings cut something short."),
}


# ===== for Python: tests and benchmarks =====

def record_call(
    CallMetrics metrics, bytes path, bytes route=b"", bytes backend=b"", int grpc_status=0, uint64_t duration_us=0,
    bint ended=True, uint64_t received=0, uint64_t sent=0, uint64_t requests=0, uint64_t responses=0,
):
    cdef CallSeries* series = metrics.series(
        <const uint8_t*>path, len(path), <const uint8_t*>route, <uint32_t>len(route),
        <const uint8_t*>backend, <uint32_t>len(backend),
    )
    start(series)
    series.received_octets += received
    series.sent_octets += sent
    series.request_messages += requests
    series.response_messages += responses
    if ended:
        finish(series, grpc_status, duration_us)
    return <size_t>series


def count_everything():
    """A RelayCounters whose words are 1, 2, 3... in the order of their declaration, as rows."""
    cdef RelayCounters counters
    cdef Py_ssize_t i
    for i in range(<Py_ssize_t>(sizeof(RelayCounters) // sizeof(uint64_t))):
        (<uint64_t*>&counters)[i] = i + 1
    return relay_counters(&counters)


def measure_series(CallMetrics metrics, bytes path, Py_ssize_t rounds):
    """Looks one series up `rounds` times."""
    cdef Py_ssize_t _
    for _ in range(rounds):
        metrics.series(
            <const uint8_t*>path, len(path), <const uint8_t*>path, <uint32_t>len(path), <const uint8_t*>path, 1
        )
