# _fastmatch.pxd: from a request to a rule (RouteTable) and from a rule to one of its backends (pick).
#
# A RouteTable reads the flat image that pygw/tables.py compiles from a GatewayConfig: no Python object per
# rule, shared by all workers (a read-only mapping of one memfd). Records below lie in the image; Spans are
# relative to RouteTable.base. Of pygw it knows only field.pxd. The order of decision is
# shared/reference/gateway-api.md 2.2 and 3.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from .field cimport Field

cdef struct Span:
    uint32_t offset
    uint32_t length

cdef enum EditOperation:
    EDIT_REMOVE = 0
    EDIT_SET = 1                 # replaces all fields of that name, or appends
    EDIT_ADD = 2                 # joins with "," to the last field of that name, or appends

cdef struct EditRecord:          # one step of a header modifier; lists are in the order of application
    Span name                    # lower case
    Span value
    uint16_t operation
    uint16_t token               # field.Token of `name`

cdef struct ListRef:             # `count` records of one kind from index `first` on
    uint32_t first
    uint32_t count

cdef struct MirrorRecord:
    uint32_t backend             # index into the backend keys that came with the image
    uint32_t numerator
    uint32_t denominator

cdef struct BackendRefRecord:
    Span label                   # "namespace/name:port": metrics, access log, explain
    Span failure                 # what its calls are answered with (14) instead of being relayed; length 0: valid
    Span reason                  # RefNotPermitted, BackendNotFound, ...; length 0: valid
    int32_t backend              # index into the backend keys; -1 where `failure` stands
    uint32_t weight
    ListRef request_edits        # the rule's own first, then these
    ListRef response_edits
    ListRef mirrors

cdef struct RuleRecord:
    Span route                   # "namespace/name"
    Span rule_name               # spec.rules[].name, or empty
    Span failure                 # grpc-message where failure_status >= 0
    int32_t failure_status       # grpc-status that every call of this rule gets; -1: none
    uint32_t index               # place in spec.rules
    ListRef request_edits
    ListRef response_edits
    ListRef mirrors
    ListRef refs                 # BackendRefRecords; empty only with failure_status >= 0
    uint32_t picker              # which picker state is its own
    uint32_t kind                # 0 GRPCRoute, 1 HTTPRoute (later)

cdef struct Request:             # what match() reads; borrowed
    const uint8_t* authority     # as on the wire; NULL with length 0: none
    Py_ssize_t authority_length
    const uint8_t* path
    Py_ssize_t path_length
    const Field* fields          # the whole section (pseudo-header fields are skipped by their token)
    Py_ssize_t field_count
    bint is_grpc
    const Field* method          # :method

cdef struct Found:
    const RuleRecord* rule       # NULL: nothing matches
    int32_t listener             # index of the listener that was selected; -1: none for this authority
    uint32_t match               # place in the rule's matches

cdef class RouteTable:
    cdef:
        object owner             # what keeps `base` alive (bytes or an mmap)
        const uint8_t* base
        Py_ssize_t length
        # (the implementation's own fields follow)

    # Which set of listeners answers at this local address and port (the listener's own port, not the mapped one);
    # -1: none. `address` is the text of the local IP address; Gateways with addresses of their own bind only there.
    cpdef int site(self, str address, int port)
    # Fills `found`; returns 0. No Python object is made but for a regex that the cache does not hold.
    cdef int match(self, int site, const Request* request, Found* found) except -1
    # The place in rule.refs of the backendRef whose turn it is (smooth weighted round robin); -1: all weights are 0.
    cdef int pick(self, const RuleRecord* rule) noexcept
    cdef const BackendRefRecord* refs(self, const RuleRecord* rule) noexcept
    cdef const EditRecord* edits(self, ListRef list) noexcept
    cdef const MirrorRecord* mirrors(self, ListRef list) noexcept
    # "namespace/gateway/listener" of a Found.listener.
    cdef Span listener_label(self, int listener) noexcept
    cdef inline const uint8_t* octets(self, Span span) noexcept:
        return self.base + span.offset
