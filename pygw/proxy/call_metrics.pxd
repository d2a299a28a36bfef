# call_metrics.pxd: what a worker counts: CallSeries for calls, RelayCounters for connections and octets.
#
# Plain numbers in C, incremented where things happen and read by collect() when somebody scrapes. A CallSeries is
# one set of labels; a call looks its series up once and keeps the pointer, which stays valid for the life of the
# CallMetrics. Knows no connections and no formats of exposition.
#
# Bounds: labels come from peers, so the number of series is limited (max_series). Beyond it a call is counted in
# the series of its route and backend with service and method "_other" (at most max_series of these), beyond that
# in one series with all labels "_other". Calls that no route matched (route_length 0) never get a series of their
# own, nor do paths that are not /service/method in printable ASCII or are longer than LABEL_MAX: anyone could use the
# limit up with them. A catch-all route lets a client do so still, with methods that do not exist; then the sums by
# route and backend stay right.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    STATUS_COUNT = 18            # grpc-status 0..16; 17: none or another
    STATUS_NONE = 17
    LATENCY_BUCKETS = 15         # the bounds of bucket_of() and +Inf
    LABEL_MAX = 256              # octets of a path that may become labels

cdef struct CallSeries:
    # ===== labels =====
    uint64_t hash
    CallSeries* next             # in its bucket of the hash table
    uint8_t* labels              # path, route and backend, one behind the other
    uint32_t path_length         # 0: service and method are "_other"
    uint32_t route_length
    uint32_t backend_length
    bint is_rest                 # route and backend are "_other" too
    # ===== numbers =====
    uint64_t started
    int64_t open                 # started and not finished
    uint64_t[STATUS_COUNT] finished         # by grpc-status
    uint64_t[LATENCY_BUCKETS] durations     # not cumulative
    uint64_t duration_us         # sum
    uint64_t received_octets     # DATA octets from the client
    uint64_t sent_octets         # DATA octets to the client
    uint64_t request_messages
    uint64_t response_messages

# The place in CallSeries.durations: upper bounds 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500 ms, 1, 2.5, 5, 10 s, +Inf.
cdef inline int bucket_of(uint64_t duration_us) noexcept:
    if duration_us <= 10000:
        if duration_us <= 1000:
            return 0 if duration_us <= 500 else 1
        return 2 if duration_us <= 2500 else 3 if duration_us <= 5000 else 4
    if duration_us <= 250000:
        if duration_us <= 50000:
            return 5 if duration_us <= 25000 else 6
        return 7 if duration_us <= 100000 else 8
    if duration_us <= 2500000:
        if duration_us <= 1000000:
            return 9 if duration_us <= 500000 else 10
        return 11
    return 12 if duration_us <= 5000000 else 13 if duration_us <= 10000000 else 14

# Once for each call, when its series is known.
cdef inline void start(CallSeries* series) noexcept:
    series.started += 1
    series.open += 1

# Once for each call that was started. `grpc_status` below 0 or above 16: none.
cdef inline void finish(CallSeries* series, int grpc_status, uint64_t duration_us) noexcept:
    series.open -= 1
    series.finished[grpc_status if 0 <= grpc_status < STATUS_NONE else STATUS_NONE] += 1
    series.durations[bucket_of(duration_us)] += 1
    series.duration_us += duration_us

cdef class CallMetrics:
    cdef:
        CallSeries** buckets     # hash table, chained; as many as a power of two
        uint64_t mask
        uint64_t seed0           # random: peers must not be able to aim at one bucket
        uint64_t seed1
        void* chunks             # of series, the newest first
        Py_ssize_t chunk_used    # series in use of the newest
        CallSeries* rest         # the series with all labels "_other"; made when needed
        readonly Py_ssize_t max_series
        readonly Py_ssize_t series_count     # with labels of their own
        readonly Py_ssize_t other_count      # with service and method "_other"
        readonly uint64_t overflow_lookups   # calls counted as "_other" because of max_series

    # The series of a call; `route` is "namespace/name", empty where nothing matched; `backend` the label of the
    # backendRef, empty where none was picked. No Python object on a hit. Raises MemoryError.
    cdef CallSeries* series(
        self, const uint8_t* path, Py_ssize_t path_length, const uint8_t* route, uint32_t route_length,
        const uint8_t* backend, uint32_t backend_length,
    ) except NULL
    cdef CallSeries* find(
        self, uint64_t hash, const uint8_t* path, uint32_t path_length, const uint8_t* route, uint32_t route_length,
        const uint8_t* backend, uint32_t backend_length,
    ) noexcept
    cdef CallSeries* insert(
        self, uint64_t hash, const uint8_t* path, uint32_t path_length, const uint8_t* route, uint32_t route_length,
        const uint8_t* backend, uint32_t backend_length,
    ) except NULL
    cdef CallSeries* allocate(self) except NULL
    cdef int make_room(self) except -1

# ===== everything that is not one call's =====

cdef enum Limit:                 # pygw_limit_hits_total{limit}; the names are those of Settings
    LIMIT_MAX_CONCURRENT_STREAMS
    LIMIT_MAX_HEADER_LIST_SIZE
    LIMIT_MAX_HEADER_FIELDS
    LIMIT_HANDSHAKE_TIMEOUT
    LIMIT_KEEPALIVE_TIMEOUT
    LIMIT_MAX_CONNECTION_IDLE
    LIMIT_MAX_CONNECTION_AGE
    LIMIT_MAX_CONNECTION_AGE_GRACE
    LIMIT_PENDING_CALLS
    LIMIT_PENDING_TIMEOUT
    LIMIT_MAX_UPSTREAM_CONNECTIONS
    LIMIT_CONNECT_TIMEOUT
    LIMIT_MAX_HANDSHAKES
    LIMIT_OVERLOAD_LAG           # how often overload began; `shed` counts the calls
    LIMIT_MAX_CALLS
    LIMIT_MAX_CONNECTIONS
    LIMIT_DESCRIPTOR_RESERVE
    LIMIT_MAX_CONNECTIONS_PER_ADDRESS
    LIMIT_FRAME_TIMEOUT
    LIMIT_WRITE_TIMEOUT
    LIMIT_STREAM_STALL_TIMEOUT
    # Those of http2/limits, both ends. (flood_answers ends nothing: what is beyond is flood_control_frames'.)
    LIMIT_MAX_HEADER_BLOCK
    LIMIT_MAX_CONTINUATIONS
    LIMIT_MAX_INTERIM_RESPONSES
    LIMIT_MAX_BLOCKED_OUTPUT
    LIMIT_FLOOD_CONTROL_FRAMES
    LIMIT_FLOOD_SETTINGS_FRAMES
    LIMIT_FLOOD_RAPID_RESETS
    LIMIT_FLOOD_PROVOKED_RESETS
    LIMIT_FLOOD_REFUSED_STREAMS
    LIMIT_COUNT

cdef enum RetryReason:           # pygw_upstream_retries_total{reason}
    RETRY_CONNECT                # no connection came about: the call was not sent yet
    RETRY_REFUSED                # RST_STREAM(REFUSED_STREAM)
    RETRY_GOAWAY                 # GOAWAY with a lower last stream id
    RETRY_UNSENT                 # the connection was found closed before the request left
    RETRY_COUNT

cdef enum ShedReason:            # pygw_overload_shed_total{limit}
    SHED_OVERLOAD_LAG
    SHED_MAX_CALLS
    SHED_PENDING_LAG
    SHED_COUNT

cdef struct RelayCounters:       # one to a worker, zeroed; int64_t are gauges
    # ===== client connections =====
    uint64_t downstream_connections          # accepted
    int64_t downstream_connections_open
    uint64_t downstream_connection_errors    # ended by GOAWAY for what the peer did wrong
    uint64_t downstream_http1                # answered that HTTP/2 is needed
    uint64_t downstream_proxy_errors         # closed for a malformed or missing PROXY header
    uint64_t downstream_tls_handshakes       # done
    uint64_t downstream_tls_errors           # handshakes and sessions that failed
    uint64_t downstream_misdirected          # requests answered with 421
    uint64_t downstream_streams
    int64_t downstream_streams_open
    uint64_t downstream_received_octets
    uint64_t downstream_sent_octets
    uint64_t downstream_resets_received
    uint64_t downstream_resets_sent
    uint64_t downstream_malformed            # requests reset by RFC 9113 §8
    # ===== connections to endpoints =====
    uint64_t upstream_connects               # begun
    uint64_t upstream_connect_failures
    uint64_t upstream_tls_errors
    int64_t upstream_connections_open
    uint64_t upstream_connection_errors
    uint64_t upstream_streams
    int64_t upstream_streams_open
    uint64_t upstream_received_octets
    uint64_t upstream_sent_octets
    uint64_t upstream_resets_received
    uint64_t upstream_resets_sent
    uint64_t upstream_malformed              # responses reset by RFC 9113 §8
    uint64_t[RETRY_COUNT] upstream_retries   # attempts after the first
    int64_t upstream_pending                 # calls that wait for a connection
    uint64_t endpoint_ejections
    int64_t endpoints_ejected
    uint64_t endpoint_panics                 # calls that went to any endpoint, for too many were ejected
    int64_t held_octets                      # of requests: see held_request.pxd
    # ===== calls =====
    uint64_t deadlines_exceeded
    uint64_t cancelled                       # by the client
    uint64_t[SHED_COUNT] shed                # refused early, for overload
    uint64_t mirrored                        # copies begun
    uint64_t mirrors_failed
    uint64_t[LIMIT_COUNT] limit_hits

# [[name, {label: value}, number], ...], as CallMetrics.collect() has them under "counters".
cdef list relay_counters(const RelayCounters* counters)
