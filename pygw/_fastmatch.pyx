# _fastmatch.pyx: see _fastmatch.pxd; records are described in match/image_layout.pxd, what a match costs in tables.py.
#
# The order of search is the order of precedence (Gateway API, GRPCRouteRule.matches): hostnames from the
# most specific, then exact service and method, exact service with method regexes, service alone, service regexes,
# method alone, and at last matches without either. The first place that holds a match decides; within it
# the number of headers, then age, name and place (the number of the MatchRecord) do.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from .match.http_match cimport open_http_matcher
from .match.image_check cimport ImageProof
from .match.image_index cimport (
    Walk, hash_method, hash_octets, hash_pair, mix, span_is, walk_next, walk_start,
)
from .match.image_layout cimport *
from .match.match_memo cimport MEMO_SLOTS, MatchMemo, is_memo_of, memo_of, memorise
from .match.python_request cimport PythonRequest
from .match.regex_cache cimport DecisionCache, RegexSet
from .match.request_target cimport Host, Request, read_host, split_path
from .match.request_values cimport HeaderValue, open_values
from .match.weighted_picker cimport open_picker

from .local_address import canonical_address


cdef enum:
    WHOLE = 0x7fffffff           # records: more than any image has


cdef class RouteTable:

    def __cinit__(self, image, RouteTable previous=None, phase=0, regex_cache=4096):
        self.open(image if isinstance(image, ImageProof) else ImageProof(image))
        self.values = open_values(self.owner, self.base)
        self.open_regexes(previous, regex_cache)
        self.http = open_http_matcher(self.owner, self.base, self.regexes, self.values)
        self.picker = open_picker(self.owner, self.base, phase, None if previous is None else previous.picker)
        self.memos = <MatchMemo*>calloc(MEMO_SLOTS, sizeof(MatchMemo))
        if self.memos == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.memos)

    cdef int open(self, ImageProof proof) except -1:
        cdef const SiteRecord* site
        cdef uint32_t i
        while not proof.is_done:
            proof.step(WHOLE)
        self.owner = proof
        self.base = proof.base()
        self.header = <const ImageHeader*>self.base
        self.sites = {}
        site = <const SiteRecord*>records(self, SECTION_SITES)
        for i in range(self.header.sections[SECTION_SITES].count):
            self.sites[(text(self, site[i].address), site[i].port)] = i
            self.has_own_addresses |= site[i].address.length > 0
        return 0

    def inherit(self, uint32_t rules):
        return self.picker.inherit(rules)

    cdef int open_regexes(self, RouteTable previous, Py_ssize_t regex_cache) except -1:
        cdef const RegexRecord* regex = <const RegexRecord*>records(self, SECTION_REGEXES)
        cdef DecisionCache cache
        cdef list patterns = []
        cdef uint32_t i
        for i in range(self.header.sections[SECTION_REGEXES].count):
            patterns.append(octets_of(self, regex[i].pattern))
        if previous is not None:
            cache = previous.regexes.cache
        else:
            cache = DecisionCache(regex_cache)
        self.regexes = RegexSet(patterns, cache, None if previous is None else previous.regexes)
        return 0

    cpdef int site(self, str address, int port):
        cdef object found = None
        if self.has_own_addresses:
            found = self.sites.get((address, port))
            if found is None:
                found = self.sites.get((canonical_address(address), port))
        if found is None:
            found = self.sites.get(("", port), -1)
        return found

    cdef const BackendRefRecord* refs(self, const RuleRecord* rule) noexcept:
        return <const BackendRefRecord*>records(self, SECTION_REFS) + rule.refs.first

    cdef const EditRecord* edits(self, ListRef list) noexcept:
        return <const EditRecord*>records(self, SECTION_EDITS) + list.first

    cdef const MirrorRecord* mirrors(self, ListRef list) noexcept:
        return <const MirrorRecord*>records(self, SECTION_MIRRORS) + list.first

    cdef const RedirectRecord* redirect(self, const RuleRecord* rule) noexcept:
        if rule.redirect == NONE:
            return NULL
        return <const RedirectRecord*>records(self, SECTION_REDIRECTS) + rule.redirect

    # --- match ---

    cdef int32_t listener_at(self, int site, const uint8_t* authority, Py_ssize_t length) noexcept:
        cdef Host host
        cdef HostWalk walk
        cdef uint32_t number
        if site < 0 or <uint32_t>site >= self.header.sections[SECTION_SITES].count:
            return -1
        read_host(&host, authority, length)
        walk.scope = (<const SiteRecord*>records(self, SECTION_SITES))[site].scope
        walk.place = -1
        number = self.next_host(&walk, &host)
        if number == NONE:
            return -1
        return <int32_t>(<const GroupRecord*>records(self, SECTION_GROUPS) + number).listener

    cdef int match(self, int site, const Request* request, Found* found) except -1:
        cdef Question question
        cdef HostWalk walk
        cdef const GroupRecord* group
        cdef const MatchRecord* match
        cdef MatchMemo* memo = memo_of(self.memos, request) if request.is_grpc else NULL
        cdef uint32_t number
        cdef uint32_t best = NONE
        cdef Py_ssize_t method
        if memo != NULL and is_memo_of(memo, site, request):
            found.rule = memo.rule
            found.listener = memo.listener
            found.match = memo.match
            found.has_http = False
            return 0
        found.rule = NULL
        found.listener = -1
        found.match = 0
        found.has_http = False
        if site < 0 or <uint32_t>site >= self.header.sections[SECTION_SITES].count:
            return 0
        read_host(&question.host, request.authority, request.authority_length)
        walk.scope = (<const SiteRecord*>records(self, SECTION_SITES))[site].scope
        walk.place = -1
        number = self.next_host(&walk, &question.host)
        if number == NONE:
            return 0
        # Listener isolation: the most specific listener alone is considered.
        group = <const GroupRecord*>records(self, SECTION_GROUPS) + number
        found.listener = <int32_t>group.listener
        found.has_http = group.has_http
        method = split_path(request.path, request.path_length) if request.is_grpc else 0
        if method != 0:
            best = self.match_grpc(&question, request, method, group.scope)
        if best == NONE:
            memo = NULL
            if group.has_http:
                best = self.match_http(&question.host, request, group.scope, found)
        if best == NONE:
            return 0
        match = <const MatchRecord*>records(self, SECTION_MATCHES) + best
        found.rule = <const RuleRecord*>records(self, SECTION_RULES) + match.rule
        found.match = match.index
        if group.has_attachments:
            found.listener = self.listener_of(number, match.route)
        if memo != NULL and not question.has_values:
            memorise(memo, site, request, found.rule, found.listener, found.match)
        return 0

    cdef uint32_t match_grpc(
        self, Question* question, const Request* request, Py_ssize_t method, uint32_t scope
    ) except? 0xffffffff:
        cdef HostWalk walk
        cdef uint32_t bucket
        self.ask(question, request, method)
        walk.scope = scope
        walk.place = -1
        while question.best == NONE:
            bucket = self.next_host(&walk, &question.host)
            if bucket == NONE:
                return NONE
            self.search_bucket(question, bucket)
        return question.best

    cdef uint32_t match_http(
        self, const Host* host, const Request* request, uint32_t scope, Found* found
    ) except? 0xffffffff:
        cdef const HttpMatchRecord* winner = NULL
        cdef HostWalk walk
        cdef uint32_t bucket
        if not self.http.begin(request):
            return NONE
        walk.scope = scope
        walk.place = -1
        while winner == NULL:
            bucket = self.next_host(&walk, host)
            if bucket == NONE:
                return NONE
            bucket = (<const BucketRecord*>records(self, SECTION_BUCKETS) + bucket).http
            if bucket != NONE:
                self.http.search(bucket, &winner)
        found.prefix_length = winner.prefix_length
        return winner.match

    cdef void ask(self, Question* question, const Request* request, Py_ssize_t method) noexcept:
        question.request = request
        question.service = request.path + 1
        question.service_length = method - 2
        question.method = request.path + method
        question.method_length = request.path_length - method
        question.service_hash = hash_octets(&self.header.key, question.service, question.service_length)
        question.method_hash = hash_octets(&self.header.key, question.method, question.method_length)
        question.best = NONE
        question.best_headers = 0
        question.has_values = False
        question.service_regex = NONE
        question.service_decision = False

    # The value of the next hostname, NONE at the end.
    cdef uint32_t next_host(self, HostWalk* walk, const Host* host) noexcept:
        cdef const ScopeRecord* scope = <const ScopeRecord*>records(self, SECTION_SCOPES) + walk.scope
        cdef const uint64_t* lengths = &scope.wildcard_lengths[0]
        cdef uint32_t value
        cdef Py_ssize_t place, left
        if walk.place < 0:
            # A wildcard stands for one label or more: something must be left of its fixed part.
            walk.place = 0 if host.is_cut or host.length == 0 else 1
            if lengths[0] | lengths[1] | lengths[2] | lengths[3] == 0:
                walk.place = host.length
            if scope.has_exact and not host.is_cut and host.length > 0 and host.octets[0] != b".":
                value = self.find_host(walk.scope, host.octets, host.length)
                if value != NONE:
                    return value
        while walk.place < host.length:
            place = walk.place
            walk.place += 1
            left = host.length - place
            if host.octets[place] == b"." and (lengths[left >> 6] >> (left & 63)) & 1:
                value = self.find_host(walk.scope, host.octets + place, left)
                if value != NONE:
                    return value
        if walk.place == host.length:
            walk.place += 1
            return scope.any_host
        return NONE

    cdef uint32_t find_host(self, uint32_t scope, const uint8_t* host, Py_ssize_t length) noexcept:
        cdef const HostRecord* record
        cdef Walk walk
        cdef uint32_t entry
        start_walk(self, &walk, TABLE_HOSTS, mix(hash_octets(&self.header.key, host, length), scope))
        while True:
            entry = walk_next(&walk)
            if entry == 0:
                return NONE
            record = <const HostRecord*>records(self, SECTION_HOSTS) + (entry - 1)
            if record.scope == scope and span_is(self.base, record.host, host, length):
                return record.value

    # Precedence steps 3 and 4, in order; stops where a match is found.
    cdef int search_bucket(self, Question* question, uint32_t number) except -1:
        cdef const BucketRecord* bucket = <const BucketRecord*>records(self, SECTION_BUCKETS) + number
        cdef const MethodRecord* method
        if bucket.has_service_method:
            method = self.find_method(question, number, True, True)
            if method != NULL and self.search_method(question, method):
                return 0
        if bucket.has_service:
            method = self.find_method(question, number, True, False)
            if method != NULL:
                if method.patterns.count > 0 and self.search_patterns(question, method.patterns):
                    return 0
                if self.search_method(question, method):
                    return 0
        if bucket.service_patterns.count > 0 and self.search_patterns(question, bucket.service_patterns):
            return 0
        if bucket.has_method:
            method = self.find_method(question, number, False, True)
            if method != NULL and self.search_method(question, method):
                return 0
        if bucket.method_patterns.count > 0 and self.search_patterns(question, bucket.method_patterns):
            return 0
        self.search_leaf(question, bucket.any_leaf)
        return 0

    cdef int search_method(self, Question* question, const MethodRecord* method) except -1:
        if method.sole != NONE:
            question.best = method.sole
            return 1
        if method.sole_tuple != NONE:
            self.collect_values(question)
            self.search_tuple(question, method.sole_tuple)
            return question.best != NONE
        return self.search_leaf(question, method.leaf)

    cdef const MethodRecord* find_method(
        self, const Question* question, uint32_t bucket, bint with_service, bint with_method
    ) noexcept:
        cdef const MethodRecord* record
        cdef Py_ssize_t service_length = question.service_length if with_service else 0
        cdef Py_ssize_t method_length = question.method_length if with_method else 0
        cdef Walk walk
        cdef uint32_t entry
        start_walk(self, &walk, TABLE_METHODS, hash_method(
            bucket, question.service_hash if with_service else 0, question.method_hash if with_method else 0
        ))
        while True:
            entry = walk_next(&walk)
            if entry == 0:
                return NULL
            record = <const MethodRecord*>records(self, SECTION_METHODS) + (entry - 1)
            if (
                record.bucket == bucket
                and span_is(self.base, record.service, question.service, service_length)
                and span_is(self.base, record.method, question.method, method_length)
            ):
                return record

    # 1 where a match is found. Leaves of one rank are all asked: headers, age and place decide among them.
    cdef int search_patterns(self, Question* question, ListRef patterns) except -1:
        cdef const PatternLeafRecord* pattern = (
            <const PatternLeafRecord*>records(self, SECTION_PATTERN_LEAVES) + patterns.first
        )
        cdef uint32_t rank = 0
        cdef uint32_t i
        for i in range(patterns.count):
            if question.best != NONE and pattern[i].rank != rank:
                break
            rank = pattern[i].rank
            if self.pattern_applies(question, &pattern[i]):
                self.search_leaf(question, pattern[i].leaf)
        return question.best != NONE

    cdef int pattern_applies(self, Question* question, const PatternLeafRecord* pattern) except -1:
        if pattern.method.length > 0 and not span_is(
            self.base, pattern.method, question.method, question.method_length
        ):
            return 0
        if pattern.service_regex != NONE and pattern.service_regex != question.service_regex:
            question.service_decision = self.regexes.matches(
                pattern.service_regex, question.service, question.service_length
            )
            question.service_regex = pattern.service_regex
        if pattern.service_regex != NONE and not question.service_decision:
            return 0
        if pattern.method_regex != NONE:
            return self.regexes.matches(pattern.method_regex, question.method, question.method_length)
        return 1

    # Precedence steps 5 to 8. 1 where a match is found, here or before.
    cdef int search_leaf(self, Question* question, uint32_t number) except -1:
        cdef const LeafRecord* leaf
        cdef const AnchorRecord* anchor
        cdef Walk walk
        cdef uint32_t entry, i, k
        if number == NONE:
            return 0
        leaf = <const LeafRecord*>records(self, SECTION_LEAVES) + number
        if leaf.sole_tuple != NONE:
            self.collect_values(question)
            self.search_tuple(question, leaf.sole_tuple)
        elif leaf.tuple_count > 0:
            self.collect_values(question)
            for i in range(self.values.present_count):
                start_walk(self, &walk, TABLE_ANCHORS, hash_pair(&self.header.key, number, self.values.present[i]))
                entry = walk_next(&walk)
                while entry != 0:
                    anchor = <const AnchorRecord*>records(self, SECTION_ANCHORS) + (entry - 1)
                    if anchor.leaf == number and anchor.name == self.values.present[i]:
                        for k in range(anchor.tuples.count):
                            self.search_tuple(question, anchor.tuples.first + k)
                        break
                    entry = walk_next(&walk)
        self.search_candidates(question, leaf.plain)
        return question.best != NONE

    cdef int search_tuple(self, Question* question, uint32_t number) except -1:
        cdef const HeaderTupleRecord* names = <const HeaderTupleRecord*>records(self, SECTION_HEADER_TUPLES) + number
        cdef const HeaderValuesRecord* record
        cdef uint64_t hash
        cdef Walk walk
        cdef uint32_t entry
        if self.values.of(names.first_name) == NULL:
            return 0
        if names.sole_values != NONE:
            record = <const HeaderValuesRecord*>records(self, SECTION_HEADER_VALUES) + names.sole_values
            return self.search_values(question, record) if self.has_values(names, record) else 0
        if not self.hash_values(names, number, &hash):
            return 0
        start_walk(self, &walk, TABLE_HEADER_VALUES, hash)
        while True:
            entry = walk_next(&walk)
            if entry == 0:
                return 0
            record = <const HeaderValuesRecord*>records(self, SECTION_HEADER_VALUES) + (entry - 1)
            if record.tuple == number and self.has_values(names, record):
                return self.search_values(question, record)

    # False where the request lacks one of the headers.
    cdef bint hash_values(self, const HeaderTupleRecord* names, uint32_t number, uint64_t* hash) noexcept:
        cdef const uint32_t* name = <const uint32_t*>records(self, SECTION_NUMBERS) + names.names.first
        cdef HeaderValue* value
        cdef uint32_t i
        hash[0] = number
        for i in range(names.names.count):
            value = self.values.of(name[i])
            if value == NULL:
                return False
            if not value.is_hashed:
                value.hash = hash_octets(&self.header.key, value.octets, value.length)
                value.is_hashed = True
            hash[0] = mix(hash[0], value.hash)
        return True

    # Whether the request has these values in the headers of the tuple; the first header is known to be there.
    cdef bint has_values(self, const HeaderTupleRecord* names, const HeaderValuesRecord* record) noexcept:
        cdef const HeaderValue* value = self.values.of(names.first_name)
        cdef const uint32_t* name
        cdef const Span* span
        cdef uint32_t i
        if not span_is(self.base, record.first, value.octets, value.length):
            return False
        if names.names.count == 1:
            return True
        name = <const uint32_t*>records(self, SECTION_NUMBERS) + names.names.first
        span = <const Span*>records(self, SECTION_SPANS) + record.values
        for i in range(1, names.names.count):
            value = self.values.of(name[i])
            if value == NULL or not span_is(self.base, span[i], value.octets, value.length):
                return False
        return True

    cdef int search_values(self, Question* question, const HeaderValuesRecord* record) except -1:
        if record.sole == NONE:
            return self.search_candidates(question, record.candidates)
        if not is_beaten(question, record.header_count, record.sole):
            question.best = record.sole
            question.best_headers = record.header_count
        return 0

    cdef int search_candidates(self, Question* question, ListRef candidates) except -1:
        cdef const uint32_t* number = <const uint32_t*>records(self, SECTION_NUMBERS) + candidates.first
        cdef const MatchRecord* match
        cdef uint32_t i
        for i in range(candidates.count):
            match = <const MatchRecord*>records(self, SECTION_MATCHES) + number[i]
            if is_beaten(question, match.header_count, number[i]):
                return 0
            if match.patterns.count == 0 or self.patterns_match(question, match.patterns):
                question.best = number[i]
                question.best_headers = match.header_count
                return 0
        return 0

    cdef int patterns_match(self, Question* question, ListRef patterns) except -1:
        cdef const HeaderPatternRecord* pattern = (
            <const HeaderPatternRecord*>records(self, SECTION_HEADER_PATTERNS) + patterns.first
        )
        cdef const HeaderValue* value
        cdef uint32_t i
        self.collect_values(question)
        for i in range(patterns.count):
            value = self.values.of(pattern[i].name)
            if value == NULL or not self.regexes.matches(pattern[i].regex, value.octets, value.length):
                return 0
        return 1

    cdef int32_t listener_of(self, uint32_t group, uint32_t route) noexcept:
        cdef const AttachmentRecord* record
        cdef Walk walk
        cdef uint32_t entry
        start_walk(self, &walk, TABLE_ATTACHMENTS, hash_pair(&self.header.key, group, route))
        while True:
            entry = walk_next(&walk)
            if entry == 0:
                return -1
            record = <const AttachmentRecord*>records(self, SECTION_ATTACHMENTS) + (entry - 1)
            if record.group == group and record.route == route:
                return <int32_t>record.listener

    cdef int collect_values(self, Question* question) except -1:
        if not question.has_values:
            question.has_values = True
            self.values.collect(question.request)
        return 0

    cdef int pick(self, const RuleRecord* rule) noexcept:
        return self.picker.pick(rule)

    # --- for Python ---

    def match_request(self, int site, authority, bytes path, list fields, bint is_grpc=True, bytes method=b"POST"):
        cdef PythonRequest asked = PythonRequest(authority, path, fields, is_grpc, method)
        cdef Found found
        self.match(site, &asked.request, &found)
        return found_values(self, &found)

    def match_times(self, int rounds, int site, list questions):
        cdef list asked = [
            PythonRequest(authority, path, fields, True, b"POST") for authority, path, fields in questions
        ]
        cdef PythonRequest one
        cdef Found found
        cdef int matched = 0
        cdef int _
        for _ in range(rounds):
            for one in asked:
                self.match(site, &one.request, &found)
                matched += found.rule != NULL
        return matched

    def pick_times(self, int rule, int times):
        cdef const RuleRecord* record
        cdef list counts
        cdef int place, _
        if rule < 0 or <uint32_t>rule >= self.header.sections[SECTION_RULES].count:
            raise IndexError(f"no rule {rule} in this image")
        record = <const RuleRecord*>records(self, SECTION_RULES) + rule
        counts = [0] * record.refs.count
        for _ in range(times):
            place = self.pick(record)
            if place >= 0:
                counts[place] += 1
        return counts


# Precedence steps 5 to 8: whether what was found before wins over this match.
cdef inline bint is_beaten(const Question* question, uint32_t header_count, uint32_t number) noexcept:
    return question.best != NONE and (
        header_count < question.best_headers
        or (header_count == question.best_headers and number > question.best)
    )


cdef inline const uint8_t* records(RouteTable self, int section) noexcept:
    return self.base + self.header.sections[section].offset


cdef inline void start_walk(RouteTable self, Walk* walk, int table, uint64_t hash) noexcept:
    cdef ListRef slots = self.header.tables[table]
    walk_start(walk, <const Slot*>records(self, SECTION_SLOTS) + slots.first, slots.count, hash)


cdef bytes octets_of(RouteTable self, Span span):
    return PyBytes_FromStringAndSize(<const char*>self.base + span.offset, span.length)


cdef str text(RouteTable self, Span span):
    return octets_of(self, span).decode("utf-8", "surrogatepass")


cdef dict found_values(RouteTable self, const Found* found):
    cdef const ListenerRecord* listeners = <const ListenerRecord*>records(self, SECTION_LISTENERS)
    cdef const RuleRecord* rule = found.rule
    cdef const BackendRefRecord* ref
    cdef list refs = []
    cdef uint32_t i
    cdef dict values = {
        "listener": None if found.listener < 0 else text(self, listeners[found.listener].key),
        "route": None,
    }
    if rule == NULL:
        return values
    for i in range(rule.refs.count):
        ref = self.refs(rule) + i
        refs.append({
            "label": text(self, ref.label),
            "backend": None if ref.backend < 0 else ref.backend,
            "weight": ref.weight,
            "reason": text(self, ref.reason) or None,
            "failure": text(self, ref.failure) or None,
        })
    values.update({
        "route": text(self, rule.route),
        "kind": "GRPCRoute" if rule.kind == 0 else "HTTPRoute",
        "rule": rule.index,
        "rule_name": text(self, rule.rule_name) or None,
        "match": found.match,
        "rule_number": rule.picker,
        "failure": None if rule.failure_status < 0 else (rule.failure_status, text(self, rule.failure)),
        "refs": refs,
    })
    return values
