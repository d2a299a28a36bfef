# image_layout.pxd: what lies in an image, the flat form of a GatewayConfig that all workers map.
#
# An image is a header, a heap of octets, then one array of fixed-size records for each Section, all in the byte
# order of the machine. Records name each other by index and name text by Span, never by pointer. tables.py and
# image_builder.pyx write it, image_check.pyx proves every index and Span of it once, _fastmatch.pyx reads it.
#
# From a request to a rule: Site (local address, port) -> Scope of its hostnames -> Group (the listeners of the most
# specific hostname) -> Scope of the hostnames of the routes attached there -> Bucket (the routes that have that
# hostname) -> Method (exact service and method) or PatternLeaf (regexes) -> Leaf -> HeaderTuple, HeaderValues -> Match
# -> Rule. Requests of HTTPRoutes go from the Bucket on by HttpBucket -> HttpPath -> HttpMatch -> Match -> Rule.
#
# Of 10,000 rules most records are not in the processor's cache, and each one that a call has to look at costs as much
# as all the arithmetic of a table. So where a list has one member, a field named sole_… leads past it.

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from .siphash cimport SipKey

cdef enum:
    IMAGE_VERSION = 3
    LONGEST_HOST = 255           # a DNS name has at most 253 octets; longer hostnames match nothing

cdef extern from *:
    """
    #define PYGW_NONE 0xffffffffu
    """
    const uint32_t NONE "PYGW_NONE"  # "no such record", where an index may be absent

cdef struct Span:                # octets of the image
    uint32_t offset              # from the start of the image
    uint32_t length

cdef struct ListRef:             # `count` records of one kind from index `first` on
    uint32_t first
    uint32_t count

# --- what the relay reads ---------------------------------------------------------------------------------------------

cdef enum EditOperation:
    EDIT_REMOVE = 0
    EDIT_SET = 1                 # replaces all fields of that name, or appends
    EDIT_ADD = 2                 # joins with "," to the last field of that name, or appends

cdef struct EditRecord:          # one step of a header modifier; lists are in the order of application
    Span name                    # lower case
    Span value
    uint16_t operation
    uint16_t token               # field.Token of `name`

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
    uint32_t http_failure        # HTTP status with `failure`, where the request is not gRPC
    uint32_t padding
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
    ListRef refs                 # BackendRefRecords; empty only with failure_status >= 0 or a redirect
    uint32_t picker              # which picker state is its own: its number in the image
    uint32_t kind                # 0 GRPCRoute, 1 HTTPRoute
    uint32_t redirect            # RedirectRecord, or NONE; with it there are no refs
    uint32_t timeout_ms          # 0: none

cdef enum RedirectPath:
    REDIRECT_SAME_PATH = 0
    REDIRECT_FULL_PATH = 1
    REDIRECT_PREFIX = 2          # `path` in place of the prefix that matched

cdef struct RedirectRecord:
    Span scheme                  # empty: that of the request
    Span hostname                # empty: that of the request
    Span path
    uint32_t port                # 0: what follows from the scheme
    uint16_t status
    uint16_t path_kind           # RedirectPath

# --- what only the matcher reads --------------------------------------------------------------------------------------

cdef struct ListenerRecord:
    Span key                     # namespace/gateway/listener

cdef struct SiteRecord:          # a local address and port
    Span address                 # empty: the shared addresses
    uint32_t port
    uint32_t scope               # of hostnames -> groups

cdef struct ScopeRecord:         # hostnames with a value each
    uint64_t wildcard_lengths[4]  # bit n: there is a wildcard whose fixed part (".example.com") has n octets
    uint32_t has_exact
    uint32_t any_host            # value where no hostname is given, or NONE
    uint32_t is_site             # its values are groups; else they are buckets
    uint32_t padding

cdef struct HostRecord:          # a hostname of a scope; a wildcard stands as its fixed part, ".example.com"
    Span host
    uint32_t scope
    uint32_t value               # a group in a site's scope, a bucket in a group's

cdef struct GroupRecord:         # the listeners of one site that have the same hostname
    uint32_t scope               # of hostnames -> buckets
    uint32_t listener            # the first of them
    uint32_t has_attachments     # more than one: the winner's listener is found by AttachmentRecord
    uint32_t has_http            # an HTTPRoute is attached

cdef struct AttachmentRecord:    # a route of a group and the listener through which it came
    uint32_t group
    uint32_t route               # number of the route (its place in the order of age and name)
    uint32_t listener

cdef struct BucketRecord:        # the routes that have one hostname of a group; groups share equal ones
    uint32_t any_leaf            # matches without service and method, or NONE
    uint32_t has_service_method  # which look-ups make sense
    uint32_t has_service
    uint32_t has_method
    uint32_t http                # HttpBucketRecord: the matches of HTTPRoutes, or NONE
    ListRef service_patterns     # PatternLeafs whose service is a regex
    ListRef method_patterns      # PatternLeafs without service whose method is a regex

cdef struct MethodRecord:        # exact terms of a bucket: service and method, service alone, or method alone
    Span service                 # empty: any
    Span method                  # empty: any
    uint32_t bucket
    uint32_t leaf                # or NONE
    uint32_t sole                # the MatchRecord that always wins in `leaf`, or NONE
    uint32_t sole_tuple          # the HeaderTuple that all matches of `leaf` share, or NONE
    ListRef patterns             # PatternLeafs of this service whose method is a regex

cdef struct PatternLeafRecord:   # a leaf that a regex guards
    Span method                  # exact method, or empty
    uint32_t service_regex       # or NONE
    uint32_t method_regex        # or NONE
    uint32_t leaf
    uint32_t rank                # equal: precedence steps 3 and 4 cannot tell them apart

cdef struct LeafRecord:          # matches with equal service and method terms
    uint32_t tuple_count         # HeaderTuples of it
    uint32_t sole_tuple          # where there is just one; else NONE
    ListRef plain                # Candidates without Exact header

cdef struct AnchorRecord:        # the HeaderTuples of a leaf that are looked for when a header name is present
    uint32_t leaf
    uint32_t name
    ListRef tuples

cdef struct HeaderTupleRecord:   # names of Exact headers that some matches of a leaf ask for together
    ListRef names                # Numbers: NameRecords
    uint32_t first_name          # the first of them
    uint32_t sole_values         # the only HeaderValues, or NONE

cdef struct HeaderValuesRecord:  # one choice of values for the names of a HeaderTuple
    uint32_t tuple
    uint32_t values              # into Spans, as many as the tuple has names
    Span first                   # the first of them
    uint32_t sole                # the one candidate, where it asks for nothing more, or NONE
    uint32_t header_count        # of `sole`
    ListRef candidates

cdef struct NameRecord:          # a header that any match asks for, or with a "?" in front a query parameter
    Span name

cdef struct RegexRecord:
    Span pattern

cdef struct HeaderPatternRecord:
    uint32_t name
    uint32_t regex

cdef struct MatchRecord:         # in the order of precedence steps 6 to 8
    uint32_t rule
    uint32_t route               # number of its route
    uint16_t index               # place in the rule's matches
    uint16_t header_count
    ListRef patterns             # HeaderPatternRecords

cdef enum HttpPathKind:
    HTTP_EXACT = 0
    HTTP_PREFIX = 1

cdef enum:
    HTTP_PATH_WORDS = 17         # bits for paths of 0 to 1,087 octets; the CRD allows 1,024
    HTTP_PATH_MAX = 64 * HTTP_PATH_WORDS - 1

cdef struct HttpBucketRecord:    # the HTTPRoute matches of a bucket
    uint64_t[HTTP_PATH_WORDS] prefix_lengths  # bit n: some prefix has n octets
    uint32_t has_exact
    uint32_t padding
    ListRef patterns             # Numbers: HttpMatchRecords with a path_regex, in the order of precedence

cdef struct HttpPathRecord:      # the matches of a bucket with one exact path, or one prefix
    Span path                    # a prefix stands without a "/" at its end, so that "/" is empty
    uint32_t bucket              # its HttpBucketRecord
    uint32_t kind                # HttpPathKind
    ListRef candidates           # Numbers: HttpMatchRecords, in the order of precedence

cdef struct HttpMatchRecord:
    Span method                  # empty: any
    uint32_t match               # MatchRecord
    uint32_t path_regex          # or NONE
    uint32_t prefix_length       # of the path that HttpPathRecord names; what a redirect may replace
    uint32_t padding
    ListRef headers              # HttpTermRecords
    ListRef query                # HttpTermRecords

cdef struct HttpTermRecord:      # a header or a query parameter, and its value
    Span value                   # where `regex` is NONE
    uint32_t name                # NameRecord; a query parameter's begins with "?"
    uint32_t regex

cdef struct Slot:                # of an open-addressing hash table
    uint32_t tag                 # low half of the key's hash
    uint32_t entry               # index of the record + 1; 0: free

cdef enum:                       # sections; `Numbers` and `Spans` are pools for lists of indices and of texts
    SECTION_LISTENERS
    SECTION_SITES
    SECTION_SCOPES
    SECTION_HOSTS
    SECTION_GROUPS
    SECTION_ATTACHMENTS
    SECTION_BUCKETS
    SECTION_METHODS
    SECTION_PATTERN_LEAVES
    SECTION_LEAVES
    SECTION_ANCHORS
    SECTION_HEADER_TUPLES
    SECTION_HEADER_VALUES
    SECTION_NAMES
    SECTION_REGEXES
    SECTION_HEADER_PATTERNS
    SECTION_MATCHES
    SECTION_HTTP_BUCKETS
    SECTION_HTTP_PATHS
    SECTION_HTTP_MATCHES
    SECTION_HTTP_TERMS
    SECTION_REDIRECTS
    SECTION_RULES
    SECTION_REFS
    SECTION_EDITS
    SECTION_MIRRORS
    SECTION_NUMBERS
    SECTION_SPANS
    SECTION_SLOTS
    SECTION_COUNT

cdef enum:                       # tables
    TABLE_HOSTS                  # (scope, hostname) -> HostRecord
    TABLE_METHODS                # (bucket, service, method) -> MethodRecord
    TABLE_NAMES                  # header name -> NameRecord
    TABLE_ANCHORS                # (leaf, name) -> AnchorRecord
    TABLE_HEADER_VALUES          # (tuple, values) -> HeaderValuesRecord
    TABLE_ATTACHMENTS            # (group, route) -> AttachmentRecord
    TABLE_HTTP_PATHS             # (HTTP bucket, kind, path) -> HttpPathRecord
    TABLE_RULES                  # (route, name or index) -> RuleRecord
    TABLE_COUNT

cdef struct SectionRef:
    uint32_t offset              # from the start of the image, a multiple of 8
    uint32_t count               # of records

cdef struct ImageHeader:
    uint8_t magic[8]
    uint32_t version
    uint32_t length              # of the whole image
    SipKey key                   # of the hash tables; random for each image
    uint64_t name_lengths        # bit n: some NameRecord has n octets (63: or more)
    uint32_t heap_end            # the heap lies between the header and here
    uint32_t backend_count
    uint64_t layout              # layout_mark() of who wrote it
    SectionRef sections[SECTION_COUNT]
    ListRef tables[TABLE_COUNT]  # Slots; the count of each is a power of 2 and at least one Slot is free


cdef inline uint32_t record_size(int section) noexcept nogil:
    if section == SECTION_LISTENERS:
        return sizeof(ListenerRecord)
    if section == SECTION_SITES:
        return sizeof(SiteRecord)
    if section == SECTION_SCOPES:
        return sizeof(ScopeRecord)
    if section == SECTION_HOSTS:
        return sizeof(HostRecord)
    if section == SECTION_GROUPS:
        return sizeof(GroupRecord)
    if section == SECTION_ATTACHMENTS:
        return sizeof(AttachmentRecord)
    if section == SECTION_BUCKETS:
        return sizeof(BucketRecord)
    if section == SECTION_METHODS:
        return sizeof(MethodRecord)
    if section == SECTION_PATTERN_LEAVES:
        return sizeof(PatternLeafRecord)
    if section == SECTION_LEAVES:
        return sizeof(LeafRecord)
    if section == SECTION_ANCHORS:
        return sizeof(AnchorRecord)
    if section == SECTION_HEADER_TUPLES:
        return sizeof(HeaderTupleRecord)
    if section == SECTION_HEADER_VALUES:
        return sizeof(HeaderValuesRecord)
    if section == SECTION_NAMES:
        return sizeof(NameRecord)
    if section == SECTION_REGEXES:
        return sizeof(RegexRecord)
    if section == SECTION_HEADER_PATTERNS:
        return sizeof(HeaderPatternRecord)
    if section == SECTION_MATCHES:
        return sizeof(MatchRecord)
    if section == SECTION_HTTP_BUCKETS:
        return sizeof(HttpBucketRecord)
    if section == SECTION_HTTP_PATHS:
        return sizeof(HttpPathRecord)
    if section == SECTION_HTTP_MATCHES:
        return sizeof(HttpMatchRecord)
    if section == SECTION_HTTP_TERMS:
        return sizeof(HttpTermRecord)
    if section == SECTION_REDIRECTS:
        return sizeof(RedirectRecord)
    if section == SECTION_RULES:
        return sizeof(RuleRecord)
    if section == SECTION_REFS:
        return sizeof(BackendRefRecord)
    if section == SECTION_EDITS:
        return sizeof(EditRecord)
    if section == SECTION_MIRRORS:
        return sizeof(MirrorRecord)
    if section == SECTION_NUMBERS:
        return sizeof(uint32_t)
    if section == SECTION_SPANS:
        return sizeof(Span)
    return sizeof(Slot)


# The records that a table finds.
cdef inline int table_section(int table) noexcept nogil:
    if table == TABLE_HOSTS:
        return SECTION_HOSTS
    if table == TABLE_METHODS:
        return SECTION_METHODS
    if table == TABLE_NAMES:
        return SECTION_NAMES
    if table == TABLE_ANCHORS:
        return SECTION_ANCHORS
    if table == TABLE_HEADER_VALUES:
        return SECTION_HEADER_VALUES
    if table == TABLE_ATTACHMENTS:
        return SECTION_ATTACHMENTS
    if table == TABLE_HTTP_PATHS:
        return SECTION_HTTP_PATHS
    return SECTION_RULES


# Tells apart builds whose records differ in size, as IMAGE_VERSION does for those that differ in meaning.
@cython.overflowcheck(False)
cdef inline uint64_t layout_mark() noexcept nogil:
    cdef uint64_t mark = sizeof(ImageHeader)
    cdef int section
    for section in range(SECTION_COUNT):
        mark = mark * 31 + record_size(section)
    return mark
