# image_builder.pyx: the records of an image (image_layout.pxd): rules, backends, and the matches of GRPCRoutes.
#
# Compiled, because 10,000 rules must be served within a fraction of a second of their change: about 2 us a rule, so
# that an image is simply written anew for each configuration. Runs in the control process, never in a worker. It
# knows model.py's RouteConfig and below; which routes meet which hostnames is decided in tables.py.

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset

from ..field cimport (
    TOKEN_CONTENT_LENGTH, TOKEN_CONTENT_TYPE, TOKEN_COOKIE, TOKEN_GRPC_ENCODING, TOKEN_GRPC_MESSAGE,
    TOKEN_GRPC_STATUS, TOKEN_GRPC_TIMEOUT, TOKEN_HOST, TOKEN_OTHER, TOKEN_TE, TOKEN_USER_AGENT,
    TOKEN_X_FORWARDED_FOR, TOKEN_X_FORWARDED_PROTO,
)
from .http_image cimport HttpPlacement, add_http_bucket, add_http_match
from .image_layout cimport *
from .image_placement cimport Placement, is_segment, method_rank, reachable, sole_winner
from .image_writer cimport ImageWriter

cdef dict TOKENS = {
    "host": TOKEN_HOST,
    "te": TOKEN_TE,
    "content-length": TOKEN_CONTENT_LENGTH,
    "content-type": TOKEN_CONTENT_TYPE,
    "cookie": TOKEN_COOKIE,
    "user-agent": TOKEN_USER_AGENT,
    "grpc-timeout": TOKEN_GRPC_TIMEOUT,
    "grpc-status": TOKEN_GRPC_STATUS,
    "grpc-message": TOKEN_GRPC_MESSAGE,
    "grpc-encoding": TOKEN_GRPC_ENCODING,
    "x-forwarded-for": TOKEN_X_FORWARDED_FOR,
    "x-forwarded-proto": TOKEN_X_FORWARDED_PROTO,
}
cdef str UNSUPPORTED_PROTOCOL = "UnsupportedProtocol"
cdef str NO_BACKENDS = "the rule that matches has no backendRefs"


cdef class ImageBuilder(ImageWriter):
    cdef:
        readonly list backend_keys
        dict backends            # key -> index
        list routes              # of each route: list of Placements, or of HttpPlacements

    def __cinit__(self, seed):  # ImageWriter's takes the seed
        self.backend_keys = []
        self.backends = {}
        self.routes = []

    # --- routes, rules, backends ---

    def add_route(self, route):
        cdef uint32_t number = <uint32_t>len(self.routes)
        cdef Span name = self.text(f"{route.namespace}/{route.name}")
        cdef list placements = []
        cdef RuleRecord record
        cdef Placement placement
        cdef HttpPlacement http_placement
        cdef Py_ssize_t index
        for hostname in route.hostnames:
            self.text(hostname[1:] if hostname.startswith("*.") else hostname)
        for rule in route.rules:
            memset(&record, 0, sizeof(record))
            record.route = name
            record.kind = 0 if route.kind == "GRPCRoute" else 1
            self.fill_rule(&record, rule)
            record.picker = self.count(SECTION_RULES)
            (<RuleRecord*>self.push(SECTION_RULES))[0] = record
            for index, match in enumerate(rule.http_matches):
                http_placement = add_http_match(self, match, record.picker, number, index)
                if http_placement is not None:
                    placements.append(http_placement)
            for index, match in enumerate(rule.matches):
                placement = self.add_match(match, record.picker, number, index)
                if placement.key is not None:
                    placements.append(placement)
        self.routes.append(placements)
        return number

    cdef int fill_rule(self, RuleRecord* record, rule) except -1:
        cdef tuple failure = rule.failure
        if failure is None and rule.redirect is None and not rule.backends:
            failure = (12, NO_BACKENDS)
        record.index = rule.index
        record.rule_name = self.text(rule.name or "")
        record.failure_status = -1
        if failure is not None:
            record.failure_status = failure[0]
            record.failure = self.text(failure[1])
        record.request_edits = self.add_edits(rule.request_headers)
        record.response_edits = self.add_edits(rule.response_headers)
        record.mirrors = self.add_mirrors(rule.mirrors)
        record.refs = self.add_refs(rule.backends)
        record.timeout_ms = <uint32_t>min(rule.timeout * 1000, 0xffffffff)
        record.redirect = NONE if rule.redirect is None else self.add_redirect(rule.redirect)
        return 0

    cdef uint32_t add_redirect(self, redirect) except? 0xffffffff:
        cdef uint32_t number = self.count(SECTION_REDIRECTS)
        cdef RedirectRecord record
        memset(&record, 0, sizeof(record))
        record.status = redirect.status
        record.scheme = self.text(redirect.scheme or "")
        record.hostname = self.text(redirect.hostname or "")
        record.port = redirect.port
        if redirect.full_path is not None:
            record.path_kind = REDIRECT_FULL_PATH
            record.path = self.text(redirect.full_path)
        elif redirect.prefix is not None:
            record.path_kind = REDIRECT_PREFIX
            record.path = self.text(redirect.prefix)
        (<RedirectRecord*>self.push(SECTION_REDIRECTS))[0] = record
        return number

    cdef ListRef add_refs(self, tuple refs) except *:
        cdef ListRef added
        cdef BackendRefRecord record
        added.first = self.count(SECTION_REFS)
        added.count = <uint32_t>len(refs)
        for ref in refs:
            memset(&record, 0, sizeof(record))
            label = f"{ref.namespace}/{ref.name}:{ref.port}"
            record.label = self.text(label)
            record.reason = self.text(ref.reason or "")
            record.backend = -1
            record.http_failure = 502 if ref.reason == UNSUPPORTED_PROTOCOL else 500
            if ref.reason is not None:
                record.failure = self.text(ref.message or f"backend {label}: {ref.reason}")
            elif ref.failure is not None:
                record.failure = self.text(ref.failure or f"backend {label}: a filter is not supported")
            else:
                record.backend = self.backend(ref.backend)
            record.weight = ref.weight
            record.request_edits = self.add_edits(ref.request_headers)
            record.response_edits = self.add_edits(ref.response_headers)
            record.mirrors = self.add_mirrors(ref.mirrors)
            (<BackendRefRecord*>self.push(SECTION_REFS))[0] = record
        return added

    cdef int32_t backend(self, str key) except -1:
        cdef object index = self.backends.get(key)
        if index is None:
            index = len(self.backend_keys)
            self.backends[key] = index
            self.backend_keys.append(key)
        return index

    cdef ListRef add_mirrors(self, tuple mirrors) except *:
        cdef ListRef added
        cdef MirrorRecord* record
        added.first = self.count(SECTION_MIRRORS)
        added.count = <uint32_t>len(mirrors)
        for mirror in mirrors:
            record = <MirrorRecord*>self.push(SECTION_MIRRORS)
            record.backend = self.backend(mirror.backend)
            record.numerator = mirror.numerator
            record.denominator = mirror.denominator
        return added

    cdef ListRef add_edits(self, modifier) except *:
        cdef ListRef added
        added.first = self.count(SECTION_EDITS)
        added.count = 0
        if modifier is not None:
            for name in modifier.remove:
                self.add_edit(EDIT_REMOVE, name, "")
            for name, value in modifier.set:
                self.add_edit(EDIT_SET, name, value)
            for name, value in modifier.add:
                self.add_edit(EDIT_ADD, name, value)
            added.count = self.count(SECTION_EDITS) - added.first
        return added

    cdef int add_edit(self, int operation, str name, str value) except -1:
        cdef EditRecord* record = <EditRecord*>self.push(SECTION_EDITS)
        record.name = self.text(name)
        record.value = self.text(value)
        record.operation = operation
        record.token = TOKENS.get(name, TOKEN_OTHER)
        return 0

    # --- matches ---

    cdef Placement add_match(self, match, uint32_t rule, uint32_t route, Py_ssize_t index):
        cdef Placement placement = Placement.__new__(Placement)
        cdef dict exact = {}
        cdef dict patterns = {}
        cdef MatchRecord record
        cdef HeaderPatternRecord* pattern
        service, method = match.service, match.method
        service_is_regex = service is not None and match.service_is_regex
        method_is_regex = method is not None and match.method_is_regex
        if (service is None or service_is_regex or is_segment(service)) and (
            method is None or method_is_regex or is_segment(method)
        ):
            placement.key = (service, service_is_regex, method, method_is_regex)
        if service is not None and not service_is_regex:
            placement.service = self.fresh_text(service)
        if method is not None and not method_is_regex:
            placement.method = self.fresh_text(method)
        for header in match.headers:
            name = header.name
            if name not in exact and name not in patterns:
                (patterns if header.is_regex else exact)[name] = header.value
        memset(&record, 0, sizeof(record))
        record.rule = rule
        record.route = route
        if index > 0xffff or len(exact) + len(patterns) > 0xffff:
            raise ValueError("a rule has at most 65,536 matches and a match as many headers")
        record.index = <uint16_t>index
        record.header_count = <uint16_t>(len(exact) + len(patterns))
        record.patterns.first = self.count(SECTION_HEADER_PATTERNS)
        record.patterns.count = <uint32_t>len(patterns)
        for name, value in patterns.items():
            pattern = <HeaderPatternRecord*>self.push(SECTION_HEADER_PATTERNS)
            pattern.name = self.name(name)
            pattern.regex = self.regex(value)
        placement.number = self.count(SECTION_MATCHES)
        placement.header_count = record.header_count
        placement.has_patterns = record.patterns.count > 0
        if exact:
            placement.names = tuple(sorted(exact)) if len(exact) > 1 else tuple(exact)
            placement.values = tuple([exact[name] for name in placement.names])
            placement.first_value = self.count(SECTION_SPANS)
            for value in placement.values:
                self.push_span(self.fresh_text(value))
        (<MatchRecord*>self.push(SECTION_MATCHES))[0] = record
        return placement

    def add_bucket(self, routes):
        cdef uint32_t bucket = self.count(SECTION_BUCKETS)
        cdef dict leaves = {}    # key -> Placements
        cdef dict services = {}  # exact service -> [a match with it, leaf of any method, pattern leaves, its matches]
        cdef list by_service = []
        cdef list by_method = []
        cdef list http = []
        cdef BucketRecord record
        cdef ListRef patterns
        cdef Span no_method
        cdef Placement placement
        memset(&no_method, 0, sizeof(no_method))
        memset(&record, 0, sizeof(record))
        record.any_leaf = NONE
        for route in routes:
            for item in self.routes[route]:
                if type(item) is HttpPlacement:
                    http.append(item)
                    continue
                placement = item
                leaves.setdefault(placement.key, []).append(placement)
        record.http = add_http_bucket(self, http) if http else NONE
        for key, placements in leaves.items():
            leaf = self.add_leaf(placements)
            service, service_is_regex, method, method_is_regex = key
            if service is not None and service_is_regex:
                by_service.append((-len(service), method_rank(key), service, method, method_is_regex, leaf))
            elif method is not None and method_is_regex:
                item = (0, method_rank(key), None, method, True, leaf)
                if service is None:
                    by_method.append(item)
                else:
                    services.setdefault(service, [placements[0], NONE, [], None])[2].append(item)
            elif service is None and method is None:
                record.any_leaf = leaf
            elif method is None:
                services.setdefault(service, [placements[0], NONE, [], None])[1::2] = leaf, placements
            else:
                placement = placements[0]
                self.add_method(bucket, placement.service, placement.method, leaf, placements)
                record.has_service_method |= service is not None
                record.has_method |= service is None
        for placement, leaf, items, placements in services.values():
            record.has_service = 1
            patterns = self.add_pattern_leaves(items)
            self.add_method(bucket, placement.service, no_method, leaf, placements).patterns = patterns
        record.service_patterns = self.add_pattern_leaves(by_service)
        record.method_patterns = self.add_pattern_leaves(by_method)
        (<BucketRecord*>self.push(SECTION_BUCKETS))[0] = record
        return bucket

    cdef MethodRecord* add_method(
        self, uint32_t bucket, Span service, Span method, uint32_t leaf, list placements
    ) except NULL:
        cdef MethodRecord record
        memset(&record, 0, sizeof(record))
        record.service = service
        record.method = method
        record.bucket = bucket
        record.leaf = leaf
        record.sole = NONE if placements is None else sole_winner(placements)
        record.sole_tuple = NONE if leaf == NONE else self.sole_tuple(leaf)
        cdef MethodRecord* place = <MethodRecord*>self.push(SECTION_METHODS)
        place[0] = record
        return place

    # The HeaderTuple to which all matches of a leaf belong, or NONE.
    cdef uint32_t sole_tuple(self, uint32_t leaf) noexcept:
        cdef const LeafRecord* record = &(<LeafRecord*>self.sections[<int>SECTION_LEAVES].data)[leaf]
        return record.sole_tuple if record.plain.count == 0 else NONE

    # `items` are (-length of the service pattern, method_rank, service pattern, method, is regex, leaf).
    cdef ListRef add_pattern_leaves(self, list items) except *:
        cdef ListRef added
        cdef PatternLeafRecord record
        cdef tuple previous = None
        cdef uint32_t rank = 0
        added.first = self.count(SECTION_PATTERN_LEAVES)
        added.count = <uint32_t>len(items)
        # Equal patterns side by side, so that each is decided once.
        items.sort(key=lambda item: (item[0], item[1], item[2] or "", item[3] or ""))
        for item in items:
            if previous is not None and item[:2] != previous:
                rank += 1
            previous = item[:2]
            memset(&record, 0, sizeof(record))
            record.service_regex = NONE if item[2] is None else self.regex(item[2])
            record.method_regex = NONE
            if item[3] is not None and item[4]:
                record.method_regex = self.regex(item[3])
            else:
                record.method = self.text(item[3] or "")
            record.leaf = item[5]
            record.rank = rank
            (<PatternLeafRecord*>self.push(SECTION_PATTERN_LEAVES))[0] = record
        return added

    cdef uint32_t add_leaf(self, list placements) except? 0xffffffff:
        cdef uint32_t leaf = self.count(SECTION_LEAVES)
        cdef dict tuples = {}    # names -> values -> Placements
        cdef dict uses = {}      # name -> how many tuples have it
        cdef list plain = []
        cdef LeafRecord record
        cdef Placement placement
        memset(&record, 0, sizeof(record))
        for placement in placements:
            if placement.names is None:
                plain.append(placement)
                continue
            by_values = tuples.get(placement.names)
            if by_values is None:
                by_values = tuples[placement.names] = {}
                for name in placement.names:
                    uses[name] = uses.get(name, 0) + 1
            by_values.setdefault(placement.values, []).append(placement)
        record.tuple_count = <uint32_t>len(tuples)
        record.sole_tuple = self.count(SECTION_HEADER_TUPLES) if record.tuple_count == 1 else NONE
        record.plain = self.add_candidates(plain)
        (<LeafRecord*>self.push(SECTION_LEAVES))[0] = record
        if tuples:
            self.add_anchors(leaf, tuples, uses)
        return leaf

    cdef int add_anchors(self, uint32_t leaf, dict tuples, dict uses) except -1:
        cdef dict anchors = {}   # name -> its tuples
        for names in tuples:
            # Under its rarest name, so that few tuples are tried for a header that is in nearly all of them.
            anchor = names[0] if len(names) == 1 else min(names, key=uses.__getitem__)
            anchors.setdefault(anchor, []).append(names)
        for anchor, name_tuples in anchors.items():
            self.add_anchor(leaf, anchor, name_tuples, tuples)
        return 0

    cdef int add_anchor(self, uint32_t leaf, str name, list name_tuples, dict tuples) except -1:
        cdef AnchorRecord record
        cdef HeaderTupleRecord header_tuple
        cdef HeaderValuesRecord header_values
        cdef Placement placement
        cdef uint32_t number
        record.leaf = leaf
        record.name = self.name(name)
        record.tuples.first = self.count(SECTION_HEADER_TUPLES)
        record.tuples.count = <uint32_t>len(name_tuples)
        (<AnchorRecord*>self.push(SECTION_ANCHORS))[0] = record
        for names in name_tuples:
            header_tuple.names.count = <uint32_t>len(names)
            header_tuple.names.first = self.count(SECTION_NUMBERS)
            for item in names:
                number = self.name(item)
                (<uint32_t*>self.push(SECTION_NUMBERS))[0] = number
            header_tuple.first_name = self.name(names[0])
            header_tuple.sole_values = self.count(SECTION_HEADER_VALUES) if len(tuples[names]) == 1 else NONE
            header_values.tuple = self.count(SECTION_HEADER_TUPLES)
            (<HeaderTupleRecord*>self.push(SECTION_HEADER_TUPLES))[0] = header_tuple
            for placements in (<dict>tuples[names]).values():
                placement = placements[0]
                header_values.values = placement.first_value
                header_values.first = (<Span*>self.sections[<int>SECTION_SPANS].data)[placement.first_value]
                header_values.candidates = self.add_candidates(placements)
                header_values.sole = NONE
                if len(placements) == 1 and not placement.has_patterns:
                    header_values.sole = placement.number
                    header_values.header_count = placement.header_count
                (<HeaderValuesRecord*>self.push(SECTION_HEADER_VALUES))[0] = header_values
        return 0

    cdef ListRef add_candidates(self, list placements) except *:
        cdef ListRef added
        cdef Placement placement
        added.first = self.count(SECTION_NUMBERS)
        for placement in reachable(placements):
            (<uint32_t*>self.push(SECTION_NUMBERS))[0] = placement.number
        added.count = self.count(SECTION_NUMBERS) - added.first
        return added

    # --- listeners and hostnames ---

    def add_listener(self, str key):
        cdef uint32_t number = self.count(SECTION_LISTENERS)
        cdef Span span = self.text(key)
        (<ListenerRecord*>self.push(SECTION_LISTENERS)).key = span
        return number

    def add_scope(self, dict values, bint is_site=False):
        cdef uint32_t number = self.count(SECTION_SCOPES)
        cdef ScopeRecord record
        cdef HostRecord host
        memset(&record, 0, sizeof(record))
        record.any_host = NONE
        record.is_site = is_site
        for name, value in values.items():
            if name == "":
                record.any_host = value
                continue
            host.host = self.text(name[1:] if name.startswith("*.") else name)
            host.scope = number
            host.value = value
            if host.host.length > LONGEST_HOST:
                continue
            if name.startswith("*."):
                record.wildcard_lengths[host.host.length >> 6] |= <uint64_t>1 << (host.host.length & 63)
            else:
                record.has_exact = 1
            (<HostRecord*>self.push(SECTION_HOSTS))[0] = host
        (<ScopeRecord*>self.push(SECTION_SCOPES))[0] = record
        return number

    def add_group(self, uint32_t scope, uint32_t listener, list attachments, bint has_http):
        cdef uint32_t number = self.count(SECTION_GROUPS)
        cdef GroupRecord* group = <GroupRecord*>self.push(SECTION_GROUPS)
        cdef AttachmentRecord* record
        group.scope = scope
        group.listener = listener
        group.has_attachments = len(attachments) > 0
        group.has_http = has_http
        for route, via in attachments:
            record = <AttachmentRecord*>self.push(SECTION_ATTACHMENTS)
            record.group = number
            record.route = route
            record.listener = via
        return number

    def add_site(self, str address, uint32_t port, uint32_t scope):
        cdef uint32_t number = self.count(SECTION_SITES)
        cdef Span span = self.text(address)
        cdef SiteRecord* site = <SiteRecord*>self.push(SECTION_SITES)
        site.address = span
        site.port = port
        site.scope = scope
        return number

    def finish(self):
        return self.image(<uint32_t>len(self.backend_keys))
