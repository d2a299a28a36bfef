# _fastmatch.pxd: from a request to a rule (RouteTable) and from a rule to one of its backends (pick).
#
# A RouteTable reads the flat image that pygw/tables.py compiles from a GatewayConfig: no Python object per
# rule, shared by all workers (a read-only mapping of one memfd). The records lie in the image (match/image_layout.pxd);
# Spans are relative to RouteTable.base; a Request is what match() reads (match/request_target.pxd). Of pygw's data path
# it knows only field.pxd. The order of decision is that of the Gateway API's GRPCRouteRule.matches; what is no gRPC
# call, or none that a GRPCRoute takes, is for HTTPRoutes (match/http_match.pxd).

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from .field cimport Field
from .match.http_match cimport HttpMatcher
from .match.image_check cimport ImageProof
from .match.image_layout cimport (
    EDIT_ADD, EDIT_REMOVE, EDIT_SET, SECTION_LISTENERS, SECTION_MIRRORS, BackendRefRecord, EditOperation, EditRecord,
    HeaderTupleRecord, HeaderValuesRecord, ImageHeader, ListenerRecord, ListRef, MethodRecord, MirrorRecord,
    PatternLeafRecord, RedirectRecord, RuleRecord, SECTION_REDIRECTS, Span,
)
from .match.match_memo cimport MatchMemo
from .match.regex_cache cimport RegexSet
from .match.request_target cimport Host, Request
from .match.request_values cimport RequestValues
from .match.weighted_picker cimport WeightedPicker

cdef struct Found:
    const RuleRecord* rule       # NULL: nothing matches
    int32_t listener             # index of the listener that was selected; -1: none for this authority
    uint32_t match               # place in the rule's matches
    bint has_http                # the listener has HTTPRoutes: what nothing matches was not found
    uint32_t prefix_length       # of :path, where the match is one of a path prefix

cdef struct HostWalk:            # over the hostnames of a scope that match a host, the most specific first
    uint32_t scope
    Py_ssize_t place             # in the host; -1: at the start

cdef struct Question:            # a request on its way through match()
    const Request* request
    Host host
    const uint8_t* service
    Py_ssize_t service_length
    uint64_t service_hash
    const uint8_t* method
    Py_ssize_t method_length
    uint64_t method_hash
    uint32_t best                # MatchRecord, or NONE
    uint32_t best_headers
    bint has_values              # RouteTable.values are of this request
    uint32_t service_regex       # the latest decision on the service, which neighbours share
    bint service_decision

cdef class RouteTable:
    cdef:
        ImageProof owner         # what keeps `base` alive
        const uint8_t* base
        # private from here on
        const ImageHeader* header
        readonly RegexSet regexes
        dict sites               # (address, port) -> index
        bint has_own_addresses
        WeightedPicker picker
        RequestValues values     # of the request at hand
        HttpMatcher http
        MatchMemo* memos         # MEMO_SLOTS

    # Which set of listeners answers at this local address and port (the listener's own port, not the mapped one);
    # -1: none. `address` is the text of the local IP address; Gateways with addresses of their own bind only there.
    cpdef int site(self, str address, int port)
    # The listener for an :authority or a TLS server name: the first of those that share its hostname; -1: none.
    cdef int32_t listener_at(self, int site, const uint8_t* authority, Py_ssize_t length) noexcept
    # Fills `found`; returns 0. No Python object is made but for a regex that the cache does not hold.
    cdef int match(self, int site, const Request* request, Found* found) except -1
    # The place in rule.refs of the backendRef whose turn it is (smooth weighted round robin); -1: all weights are 0.
    cdef int pick(self, const RuleRecord* rule) noexcept
    cdef const BackendRefRecord* refs(self, const RuleRecord* rule) noexcept
    cdef const EditRecord* edits(self, ListRef list) noexcept
    cdef const MirrorRecord* mirrors(self, ListRef list) noexcept
    # NULL: the rule relays.
    cdef const RedirectRecord* redirect(self, const RuleRecord* rule) noexcept
    cdef inline const uint8_t* octets(self, Span span) noexcept:
        return self.base + span.offset
    # "namespace/gateway/listener" of a Found.listener.
    cdef inline Span listener_label(self, int listener) noexcept:
        return (<const ListenerRecord*>(self.base + self.header.sections[SECTION_LISTENERS].offset))[listener].key
    # How many MirrorRecords the image has.
    cdef inline Py_ssize_t mirror_count(self) noexcept:
        return self.header.sections[SECTION_MIRRORS].count

    # private from here on
    cdef int open(self, ImageProof proof) except -1
    cdef int open_regexes(self, RouteTable previous, Py_ssize_t regex_cache) except -1
    cdef uint32_t match_grpc(
        self, Question* question, const Request* request, Py_ssize_t method, uint32_t scope
    ) except? 0xffffffff
    cdef uint32_t match_http(
        self, const Host* host, const Request* request, uint32_t scope, Found* found
    ) except? 0xffffffff
    cdef void ask(self, Question* question, const Request* request, Py_ssize_t method) noexcept
    cdef uint32_t next_host(self, HostWalk* walk, const Host* host) noexcept
    cdef uint32_t find_host(self, uint32_t scope, const uint8_t* host, Py_ssize_t length) noexcept
    cdef int search_bucket(self, Question* question, uint32_t bucket) except -1
    cdef int search_method(self, Question* question, const MethodRecord* method) except -1
    cdef const MethodRecord* find_method(
        self, const Question* question, uint32_t bucket, bint with_service, bint with_method
    ) noexcept
    cdef int pattern_applies(self, Question* question, const PatternLeafRecord* pattern) except -1
    cdef int search_patterns(self, Question* question, ListRef patterns) except -1
    cdef int search_leaf(self, Question* question, uint32_t leaf) except -1
    cdef int search_tuple(self, Question* question, uint32_t number) except -1
    cdef bint hash_values(self, const HeaderTupleRecord* names, uint32_t number, uint64_t* hash) noexcept
    cdef bint has_values(self, const HeaderTupleRecord* names, const HeaderValuesRecord* record) noexcept
    cdef int search_values(self, Question* question, const HeaderValuesRecord* record) except -1
    cdef int search_candidates(self, Question* question, ListRef candidates) except -1
    cdef int patterns_match(self, Question* question, ListRef patterns) except -1
    cdef int collect_values(self, Question* question) except -1
    cdef int32_t listener_of(self, uint32_t group, uint32_t route) noexcept
