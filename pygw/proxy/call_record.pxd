# call_record.pxd: the data of one gRPC call. What is done with it is in call_*.pyx, by the part of its life.

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from .._fastmatch cimport BackendRefRecord, RuleRecord
from ..http2.stream cimport FieldBlock, Stream
from .access_log cimport EndedBy
from .call_metrics cimport CallSeries
from .endpoint_health cimport Health
from .grpc_wire cimport MessageTracker
from .timer_wheel cimport Timer

cdef enum CallFlag:
    CALL_GRPC = 0x0001           # content-type application/grpc...: failures are grpc-status, else HTTP status
    CALL_REQUEST_ENDED = 0x0002  # the client has half-closed
    CALL_RESPONSE_BEGUN = 0x0004  # a final response head went to the client
    CALL_FINISHED = 0x0010       # counted and logged
    CALL_MIRROR = 0x0020
    CALL_RELEASED = 0x0040       # over: see call_life.pxd
    CALL_UNSERVED = 0x0080       # not a gRPC call: waits for its end, to be answered with http_status
    CALL_HEAD = 0x0100           # ... by the HEAD method: without a body
    CALL_RETRIED = 0x0200        # was sent again, which is done once

cdef enum:
    HELD_INLINE = 40             # octets: a small message needs no memory of its own
    LAST_BLOCK_OCTETS = 96

cdef struct HeldBody:            # DATA of a request; zeroed it is empty. See held_request.pxd
    uint8_t* octets              # NULL: they are in `few`
    uint32_t length
    uint32_t capacity            # of `octets`
    uint8_t[HELD_INLINE] few

cdef struct Origin:              # what a section for a backend was made of, as far as that has a number or a place
    # HpackDecoder.run_number of a request that had no other fields, but for grpc-timeout; 0: it had. No other
    # connection has it, so it tells the client too, and within a generation the rule.
    uint64_t run
    uint64_t generation          # Gate.generation
    const BackendRefRecord* ref

cdef struct LastSection:         # the section sent to an Endpoint last: calls with the same one share its copy
    FieldBlock* fields
    Origin origin                # of a call that had it
    uint64_t encoder             # HpackEncoder.id that wrote it
    uint64_t insertions          # in that encoder's table, before and after
    uint64_t evictions           # ... likewise
    uint32_t length
    uint8_t[LAST_BLOCK_OCTETS] block

cdef struct CallQueue:           # calls that wait at one Endpoint, oldest first
    Call* first
    Call* last
    Py_ssize_t count

cdef struct EndpointLoad:        # what Calls need of their Endpoint
    Py_ssize_t active            # calls joined to one of its upstreams
    CallQueue queue
    LastSection last
    Health health
    uint64_t used_us             # when it was given a call last
    int64_t* pending_gauge       # RelayCounters.upstream_pending
    const char* label            # "address:port"
    Py_ssize_t label_length

cdef struct Call:
    Call* next                   # first: Context.calls, its released ones, or the freelist
    Call* previous
    Call* queue_next             # CallQueue
    Call* queue_previous
    bint queued
    Call* mirrors                # of a primary: its mirrors that still follow it
    Call* mirror_next
    Call* primary                # of a mirror that still follows one

    PyObject* context            # borrowed
    PyObject* downstream         # Peer, borrowed, set while `down` is
    Stream* down
    PyObject* upstream           # Peer, borrowed, set while `up` is
    Stream* up
    PyObject* snapshot           # owned: keeps `table`, and so `rule` and `ref`, and the Backends
    PyObject* table              # RouteTable, borrowed from the snapshot
    PyObject* backend            # Backend, borrowed from the snapshot
    PyObject* endpoint           # owned, once chosen
    EndpointLoad* load           # its load, where the call is counted in `active`

    const RuleRecord* rule
    const BackendRefRecord* ref
    CallSeries* series
    Timer deadline
    Timer pending                # how long it may wait for a connection
    uint64_t started_us          # CLOCK_MONOTONIC
    uint64_t deadline_us         # 0: none
    uint64_t sent_us             # when HEADERS first went upstream
    uint64_t response_us         # when the response's head came
    FieldBlock* head             # the request's section (without grpc-timeout) while it is held: see held_request.pxd
    FieldBlock* log_fields       # access log on: :authority, :path, user-agent
    HeldBody body                # its DATA, likewise
    FieldBlock* trailers         # its trailers, likewise
    uint64_t refused_by          # encoder.id of the connection that did not take it
    MessageTracker request
    MessageTracker response
    uint64_t request_octets      # of a mirror: how many of its primary's it was given
    uint64_t response_octets
    int listener
    int grpc_status              # what the client got; -1 none yet
    uint16_t http_status         # of the backend's response; before, what a failure is to be answered with (0: derived)
    uint16_t flags               # CallFlag
    uint8_t attempts
    EndedBy ended_by
    const char* reason           # static text
