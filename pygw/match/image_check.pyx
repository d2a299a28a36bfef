# image_check.pyx: proves an image before anything reads it. See image_check.pxd.
#
# The image comes from our own control process, but through a file descriptor: a truncated or stale one must give a
# clear error, never a read outside. So every length is checked with 64-bit arithmetic before it is used, and
# the matcher needs no checks of its own. Proved are memory safety and that look-ups end, not that routes are right.

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from .image_layout cimport *

cdef enum:
    PHASE_TABLES = SECTION_COUNT
    PHASE_SITES = SECTION_COUNT + TABLE_COUNT
    PHASE_GROUPS = PHASE_SITES + 1
    PHASE_HOSTS = PHASE_SITES + 2
    PHASE_END = PHASE_SITES + 3


# Not for the cycle collector: nothing here refers back, and its tp_clear would drop `image` without releasing it.
@cython.no_gc
cdef class ImageProof:

    def __cinit__(self, image):
        cdef const char* reason
        PyObject_GetBuffer(image, &self.buffer, PyBUF_SIMPLE)
        self.image = image
        self.proof.base = <const uint8_t*>self.buffer.buf
        self.proof.header = <const ImageHeader*>self.buffer.buf
        if <size_t>self.proof.base & 7:
            raise ValueError("not a usable route image: not aligned to 8 octets")
        reason = check_header(&self.proof, self.buffer.len)
        if reason != NULL:
            raise ValueError(f"not a usable route image: {reason.decode()}")

    def __dealloc__(self):
        if self.image is not None:
            PyBuffer_Release(&self.buffer)

    def step(self, uint32_t records):
        cdef const char* reason
        reason = check_some(&self.proof, records)
        if reason != NULL:
            raise ValueError(f"not a usable route image: {reason.decode()}")
        self.is_done = self.proof.phase == PHASE_END
        return self.is_done

    cdef const uint8_t* base(self) noexcept:
        return self.proof.base


# NULL, or what is wrong with the next so many records. They are proven in an order in which each may rely on the ones
# before: scopes only when every site, group and host is known to have one.
cdef const char* check_some(Proof* proof, uint32_t budget) noexcept:
    cdef const char* reason
    cdef uint32_t count, end
    while proof.phase < PHASE_END:
        count = phase_count(proof)
        end = count if count - proof.place <= budget else proof.place + budget
        budget -= end - proof.place
        while proof.place < end:
            reason = check_one(proof, proof.place)
            if reason != NULL:
                return reason
            proof.place += 1
        if proof.place < count:
            return NULL
        if PHASE_TABLES <= proof.phase < PHASE_SITES and proof.free_slots == 0:
            return "a hash table is full"
        proof.phase += 1
        proof.place = 0
        if PHASE_TABLES <= proof.phase < PHASE_SITES:
            proof.free_slots = 0
            if not is_table(proof, proof.header.tables[proof.phase - PHASE_TABLES]):
                return "a hash table lies outside"
    return NULL


cdef uint32_t phase_count(const Proof* proof) noexcept:
    if proof.phase < PHASE_TABLES:
        return proof.header.sections[proof.phase].count
    if proof.phase < PHASE_SITES:
        return proof.header.tables[proof.phase - PHASE_TABLES].count
    if proof.phase == PHASE_SITES:
        return proof.header.sections[<int>SECTION_SITES].count
    if proof.phase == PHASE_GROUPS:
        return proof.header.sections[<int>SECTION_GROUPS].count
    return proof.header.sections[<int>SECTION_HOSTS].count


cdef const char* check_one(Proof* proof, uint32_t i) noexcept:
    if proof.phase < PHASE_TABLES:
        if not check_record(proof, proof.phase, i):
            return "a record points outside"
    elif proof.phase < PHASE_SITES:
        if not check_slot(proof, proof.phase - PHASE_TABLES, i):
            return "a hash table points outside"
    elif not check_scope(proof, i):
        return "a hostname leads outside"
    return NULL


cdef inline bint has_span(const Proof* proof, Span span) noexcept:
    return <uint64_t>span.offset + span.length <= proof.header.heap_end


cdef inline bint has_list(const Proof* proof, int section, ListRef refs) noexcept:
    return <uint64_t>refs.first + refs.count <= proof.header.sections[section].count


cdef inline bint has(const Proof* proof, int section, uint32_t index) noexcept:
    return index < proof.header.sections[section].count


cdef inline bint has_or_none(const Proof* proof, int section, uint32_t index) noexcept:
    return index == NONE or has(proof, section, index)


cdef inline const uint8_t* record_at(const Proof* proof, int section, uint32_t index) noexcept:
    return proof.base + proof.header.sections[section].offset + <uint64_t>index * record_size(section)


cdef const char* check_header(const Proof* proof, Py_ssize_t length) noexcept:
    cdef const ImageHeader* header = proof.header
    cdef int section
    if length < <Py_ssize_t>sizeof(ImageHeader):
        return "shorter than its header"
    if memcmp(header.magic, b"pygw\r\n\x1a\n", 8) != 0:
        return "no image of pygw"
    if header.version != IMAGE_VERSION or header.layout != layout_mark():
        return "an image of another version of pygw"
    if header.length != <uint64_t>length:
        return "truncated, or with trailing octets"
    if header.heap_end < sizeof(ImageHeader) or header.heap_end > header.length:
        return "the heap lies outside"
    for section in range(SECTION_COUNT):
        if header.sections[section].offset & 7 or (
            header.sections[section].offset + <uint64_t>header.sections[section].count * record_size(section)
            > header.length
        ):
            return "a section lies outside"
    return NULL


cdef bint check_record(const Proof* proof, int section, uint32_t i) noexcept:
    cdef const uint8_t* at = record_at(proof, section, i)
    if section == SECTION_LISTENERS:
        return has_span(proof, (<const ListenerRecord*>at).key)
    if section == SECTION_NAMES:
        return has_span(proof, (<const NameRecord*>at).name)
    if section == SECTION_REGEXES:
        return has_span(proof, (<const RegexRecord*>at).pattern)
    if section == SECTION_SPANS:
        return has_span(proof, (<const Span*>at)[0])
    if section == SECTION_SITES:
        return has_span(proof, (<const SiteRecord*>at).address) and has(
            proof, SECTION_SCOPES, (<const SiteRecord*>at).scope)
    if section == SECTION_HOSTS:
        return has_span(proof, (<const HostRecord*>at).host) and has(
            proof, SECTION_SCOPES, (<const HostRecord*>at).scope)
    if section == SECTION_GROUPS:
        return has(proof, SECTION_SCOPES, (<const GroupRecord*>at).scope) and has(
            proof, SECTION_LISTENERS, (<const GroupRecord*>at).listener)
    if section == SECTION_ATTACHMENTS:
        return has(proof, SECTION_LISTENERS, (<const AttachmentRecord*>at).listener)
    if section == SECTION_MATCHES:
        return has(proof, SECTION_RULES, (<const MatchRecord*>at).rule) and has_list(
            proof, SECTION_HEADER_PATTERNS, (<const MatchRecord*>at).patterns)
    if section == SECTION_HEADER_PATTERNS:
        return has(proof, SECTION_NAMES, (<const HeaderPatternRecord*>at).name) and has(
            proof, SECTION_REGEXES, (<const HeaderPatternRecord*>at).regex)
    if section == SECTION_RULES:
        return check_rule(proof, <const RuleRecord*>at, i)
    if section == SECTION_REFS:
        return check_ref(proof, <const BackendRefRecord*>at)
    if section == SECTION_EDITS:
        return has_span(proof, (<const EditRecord*>at).name) and has_span(proof, (<const EditRecord*>at).value)
    if section == SECTION_MIRRORS:
        return (<const MirrorRecord*>at).backend < proof.header.backend_count and (
            (<const MirrorRecord*>at).denominator > 0)
    if section == SECTION_REDIRECTS:
        return has_span(proof, (<const RedirectRecord*>at).scheme) and has_span(
            proof, (<const RedirectRecord*>at).hostname) and has_span(proof, (<const RedirectRecord*>at).path)
    if SECTION_HTTP_BUCKETS <= section <= SECTION_HTTP_TERMS:
        return check_http_record(proof, section, at)
    return check_index_record(proof, section, at)


cdef bint check_http_record(const Proof* proof, int section, const uint8_t* at) noexcept:
    cdef const HttpMatchRecord* match
    cdef const HttpTermRecord* term
    if section == SECTION_HTTP_BUCKETS:
        return has_numbers(proof, (<const HttpBucketRecord*>at).patterns, SECTION_HTTP_MATCHES)
    if section == SECTION_HTTP_PATHS:
        return has_span(proof, (<const HttpPathRecord*>at).path) and has_numbers(
            proof, (<const HttpPathRecord*>at).candidates, SECTION_HTTP_MATCHES)
    if section == SECTION_HTTP_MATCHES:
        match = <const HttpMatchRecord*>at
        return (
            has_span(proof, match.method)
            and has(proof, SECTION_MATCHES, match.match)
            and has_or_none(proof, SECTION_REGEXES, match.path_regex)
            and has_list(proof, SECTION_HTTP_TERMS, match.headers)
            and has_list(proof, SECTION_HTTP_TERMS, match.query)
        )
    term = <const HttpTermRecord*>at
    return (
        has_span(proof, term.value) and has(proof, SECTION_NAMES, term.name)
        and has_or_none(proof, SECTION_REGEXES, term.regex)
    )


# The records between a hostname and a match.
cdef bint check_index_record(const Proof* proof, int section, const uint8_t* at) noexcept:
    cdef const BucketRecord* bucket
    cdef const MethodRecord* method
    cdef const PatternLeafRecord* pattern
    if section == SECTION_BUCKETS:
        bucket = <const BucketRecord*>at
        return (
            has_or_none(proof, SECTION_LEAVES, bucket.any_leaf)
            and has_or_none(proof, SECTION_HTTP_BUCKETS, bucket.http)
            and has_list(proof, SECTION_PATTERN_LEAVES, bucket.service_patterns)
            and has_list(proof, SECTION_PATTERN_LEAVES, bucket.method_patterns)
        )
    if section == SECTION_METHODS:
        method = <const MethodRecord*>at
        return (
            has_span(proof, method.service) and has_span(proof, method.method)
            and has_or_none(proof, SECTION_LEAVES, method.leaf)
            and has_or_none(proof, SECTION_MATCHES, method.sole)
            and has_or_none(proof, SECTION_HEADER_TUPLES, method.sole_tuple)
            and has_list(proof, SECTION_PATTERN_LEAVES, method.patterns)
        )
    if section == SECTION_PATTERN_LEAVES:
        pattern = <const PatternLeafRecord*>at
        return (
            has_span(proof, pattern.method) and has(proof, SECTION_LEAVES, pattern.leaf)
            and has_or_none(proof, SECTION_REGEXES, pattern.service_regex)
            and has_or_none(proof, SECTION_REGEXES, pattern.method_regex)
        )
    if section == SECTION_LEAVES:
        return has_candidates(proof, (<const LeafRecord*>at).plain) and has_or_none(
            proof, SECTION_HEADER_TUPLES, (<const LeafRecord*>at).sole_tuple)
    if section == SECTION_ANCHORS:
        return has(proof, SECTION_NAMES, (<const AnchorRecord*>at).name) and has_list(
            proof, SECTION_HEADER_TUPLES, (<const AnchorRecord*>at).tuples)
    if section == SECTION_HEADER_TUPLES:
        return check_header_tuple(proof, <const HeaderTupleRecord*>at)
    if section == SECTION_HEADER_VALUES:
        return check_header_values(proof, <const HeaderValuesRecord*>at)
    return True  # scopes (their values are checked through the hosts), numbers, slots


cdef bint has_numbers(const Proof* proof, ListRef numbers, int section) noexcept:
    cdef const uint32_t* number
    cdef uint32_t i
    if not has_list(proof, SECTION_NUMBERS, numbers):
        return False
    number = <const uint32_t*>record_at(proof, SECTION_NUMBERS, numbers.first)
    for i in range(numbers.count):
        if not has(proof, section, number[i]):
            return False
    return True


cdef bint has_candidates(const Proof* proof, ListRef candidates) noexcept:
    return has_numbers(proof, candidates, SECTION_MATCHES)


cdef bint check_header_tuple(const Proof* proof, const HeaderTupleRecord* record) noexcept:
    return (
        record.names.count > 0
        and has_numbers(proof, record.names, SECTION_NAMES)
        and has(proof, SECTION_NAMES, record.first_name)
        and has_or_none(proof, SECTION_HEADER_VALUES, record.sole_values)
    )


cdef bint check_header_values(const Proof* proof, const HeaderValuesRecord* record) noexcept:
    cdef ListRef values
    if not has(proof, SECTION_HEADER_TUPLES, record.tuple):
        return False
    values.first = record.values
    values.count = (<const HeaderTupleRecord*>record_at(proof, SECTION_HEADER_TUPLES, record.tuple)).names.count
    return (
        has_list(proof, SECTION_SPANS, values)
        and has_span(proof, record.first)
        and has_or_none(proof, SECTION_MATCHES, record.sole)
        and has_candidates(proof, record.candidates)
    )


cdef bint check_rule(const Proof* proof, const RuleRecord* rule, uint32_t number) noexcept:
    return (
        has_span(proof, rule.route) and has_span(proof, rule.rule_name) and has_span(proof, rule.failure)
        and has_list(proof, SECTION_EDITS, rule.request_edits)
        and has_list(proof, SECTION_EDITS, rule.response_edits)
        and has_list(proof, SECTION_MIRRORS, rule.mirrors)
        and has_list(proof, SECTION_REFS, rule.refs)
        and rule.picker == number
        and has_or_none(proof, SECTION_REDIRECTS, rule.redirect)
        and (rule.refs.count > 0 or rule.failure_status >= 0 or rule.redirect != NONE)
    )


cdef bint check_ref(const Proof* proof, const BackendRefRecord* ref) noexcept:
    return (
        has_span(proof, ref.label) and has_span(proof, ref.failure) and has_span(proof, ref.reason)
        and has_list(proof, SECTION_EDITS, ref.request_edits)
        and has_list(proof, SECTION_EDITS, ref.response_edits)
        and has_list(proof, SECTION_MIRRORS, ref.mirrors)
        and ref.backend >= -1 and (ref.backend < 0 or <uint32_t>ref.backend < proof.header.backend_count)
        and (ref.backend >= 0 or ref.failure.length > 0)
        and ref.weight <= 1000000
        and 400 <= ref.http_failure <= 599
    )


cdef bint is_table(const Proof* proof, ListRef table) noexcept:
    return table.count != 0 and not table.count & (table.count - 1) and has_list(proof, SECTION_SLOTS, table)


cdef bint check_slot(Proof* proof, int table, uint32_t i) noexcept:
    cdef const Slot* slot = <const Slot*>record_at(proof, SECTION_SLOTS, proof.header.tables[table].first) + i
    proof.free_slots += slot.entry == 0
    return slot.entry <= proof.header.sections[table_section(table)].count


# What a hostname leads to: a group in the scopes of sites, a bucket in those of groups.
cdef bint check_scope(const Proof* proof, uint32_t i) noexcept:
    cdef const HostRecord* host
    cdef const ScopeRecord* scope
    if proof.phase == PHASE_SITES:
        scope = scope_at(proof, (<const SiteRecord*>record_at(proof, SECTION_SITES, i)).scope)
        return scope.is_site and has_or_none(proof, SECTION_GROUPS, scope.any_host)
    if proof.phase == PHASE_GROUPS:
        scope = scope_at(proof, (<const GroupRecord*>record_at(proof, SECTION_GROUPS, i)).scope)
        return not scope.is_site and has_or_none(proof, SECTION_BUCKETS, scope.any_host)
    host = <const HostRecord*>record_at(proof, SECTION_HOSTS, i)
    scope = scope_at(proof, host.scope)
    return has(proof, SECTION_GROUPS if scope.is_site else SECTION_BUCKETS, host.value)


cdef inline const ScopeRecord* scope_at(const Proof* proof, uint32_t scope) noexcept:
    return <const ScopeRecord*>record_at(proof, SECTION_SCOPES, scope)
