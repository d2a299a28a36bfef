# http_match.pyx: see http_match.pxd. The order of candidates, which is precedence, was settled in http_image.pyx.
#
# A request costs one look-up for an exact path, and one for each of its "/" where some prefix of that bucket has that
# length; paths past 1,087 octets are looked at as far as that. Then, in the order of precedence, every candidate of the
# path that asks for more than the request has.

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc

from .image_index cimport Walk, hash_http_path, span_is, walk_next, walk_start
from .image_layout cimport *
from .regex_cache cimport RegexSet
from .request_target cimport Request
from .request_values cimport HeaderValue, RequestValues


cdef HttpMatcher open_http_matcher(object owner, const uint8_t* base, RegexSet regexes, RequestValues values):
    cdef HttpMatcher opened = HttpMatcher.__new__(HttpMatcher)
    opened.owner = owner
    opened.base = base
    opened.header = <const ImageHeader*>base
    opened.regexes = regexes
    opened.values = values
    return opened


cdef class HttpMatcher:

    def __dealloc__(self):
        free(self.decoded)

    cdef bint begin(self, const Request* request) noexcept:
        self.request = request
        self.has_values = False
        self.path_length = plain_path(request.path, request.path_length)
        return self.path_length > 0

    cdef int search(self, uint32_t bucket, const HttpMatchRecord** winner) except -1:
        cdef const HttpBucketRecord* record = <const HttpBucketRecord*>records(self, SECTION_HTTP_BUCKETS) + bucket
        winner[0] = NULL
        if record.has_exact and self.path_length <= HTTP_PATH_MAX:
            self.search_path(bucket, HTTP_EXACT, self.path_length, winner)
        if winner[0] == NULL and record.patterns.count > 0:
            self.search_numbers(record.patterns, winner)
        if winner[0] == NULL:
            self.search_prefixes(bucket, record, winner)
        return 0

    # The longest first; a prefix ends where a segment does.
    cdef int search_prefixes(
        self, uint32_t bucket, const HttpBucketRecord* record, const HttpMatchRecord** winner
    ) except -1:
        cdef Py_ssize_t length = self.path_length if self.path_length < HTTP_PATH_MAX else HTTP_PATH_MAX
        cdef const uint8_t* path = self.request.path
        while length >= 0:
            if record.prefix_lengths[length >> 6] == 0:
                length = (length & ~63) - 1
                continue
            if (record.prefix_lengths[length >> 6] >> (length & 63)) & 1 and (
                length == self.path_length or path[length] == b"/"
            ):
                self.search_path(bucket, HTTP_PREFIX, length, winner)
                if winner[0] != NULL:
                    return 0
            length -= 1
        return 0

    cdef int search_path(
        self, uint32_t bucket, uint32_t kind, Py_ssize_t length, const HttpMatchRecord** winner
    ) except -1:
        cdef const uint8_t* path = self.request.path
        cdef ListRef slots = self.header.tables[<int>TABLE_HTTP_PATHS]
        cdef const HttpPathRecord* record
        cdef Walk walk
        cdef uint32_t entry
        walk_start(
            &walk, <const Slot*>records(self, SECTION_SLOTS) + slots.first, slots.count,
            hash_http_path(&self.header.key, bucket, kind, path, length),
        )
        while True:
            entry = walk_next(&walk)
            if entry == 0:
                return 0
            record = <const HttpPathRecord*>records(self, SECTION_HTTP_PATHS) + (entry - 1)
            if record.bucket == bucket and record.kind == kind and span_is(self.base, record.path, path, length):
                return self.search_numbers(record.candidates, winner)

    # The first that applies.
    cdef int search_numbers(self, ListRef numbers, const HttpMatchRecord** winner) except -1:
        cdef const uint32_t* number = <const uint32_t*>records(self, SECTION_NUMBERS) + numbers.first
        cdef const HttpMatchRecord* match
        cdef uint32_t i
        for i in range(numbers.count):
            match = <const HttpMatchRecord*>records(self, SECTION_HTTP_MATCHES) + number[i]
            if self.applies(match):
                winner[0] = match
                return 0
        return 0

    cdef int applies(self, const HttpMatchRecord* match) except -1:
        if match.method.length > 0 and not span_is(
            self.base, match.method, self.request.method.value, self.request.method.value_length
        ):
            return 0
        if match.path_regex != NONE and not self.regexes.matches(
            match.path_regex, self.request.path, self.path_length
        ):
            return 0
        return self.have_terms(match.headers) and self.have_terms(match.query)

    cdef int have_terms(self, ListRef terms) except -1:
        cdef const HttpTermRecord* term = <const HttpTermRecord*>records(self, SECTION_HTTP_TERMS) + terms.first
        cdef const HeaderValue* value
        cdef uint32_t i
        if terms.count == 0:
            return 1
        self.collect()
        for i in range(terms.count):
            value = self.values.of(term[i].name)
            if value == NULL:
                return 0
            if term[i].regex != NONE:
                if not self.regexes.matches(term[i].regex, value.octets, value.length):
                    return 0
            elif not span_is(self.base, term[i].value, value.octets, value.length):
                return 0
        return 1

    cdef int collect(self) except -1:
        cdef const Request* request = self.request
        if self.has_values:
            return 0
        self.has_values = True
        self.values.collect(request)
        if self.path_length < request.path_length:
            self.collect_query(request.path + self.path_length + 1, request.path_length - self.path_length - 1)
        return 0

    cdef int collect_query(self, const uint8_t* query, Py_ssize_t length) except -1:
        cdef Py_ssize_t needed = 2 * length + 1  # each parameter gets a "?" in front, and has a "&" or is the last
        cdef const uint8_t* end = query + length
        cdef const uint8_t* stop
        cdef const uint8_t* equals
        cdef uint8_t* out
        cdef uint8_t* name
        cdef uint8_t* value
        cdef void* grown
        if needed > self.decoded_capacity:
            grown = realloc(self.decoded, <size_t>needed)
            if grown == NULL:
                raise MemoryError()
            self.decoded = <uint8_t*>grown
            self.decoded_capacity = needed
        out = self.decoded
        while query < end:
            stop = query
            equals = NULL
            while stop < end and stop[0] != b"&":
                if stop[0] == b"=" and equals == NULL:
                    equals = stop
                stop += 1
            name = out
            name[0] = b"?"
            value = percent_decode(name + 1, query, stop if equals == NULL else equals)
            out = value if equals == NULL else percent_decode(value, equals + 1, stop)
            self.values.add_once(name, value - name, value, out - value)
            query = stop + 1
        return 0


cdef inline const uint8_t* records(HttpMatcher self, int section) noexcept:
    return self.base + self.header.sections[section].offset


cdef inline int hex_digit(uint8_t c) noexcept:
    if b"0" <= c <= b"9":
        return c - 48
    c |= 0x20
    return c - 87 if b"a" <= c <= b"f" else -1


# The end of what was written. A "%" that no two hexadecimal digits follow stands for itself.
cdef uint8_t* percent_decode(uint8_t* out, const uint8_t* text, const uint8_t* end) noexcept:
    while text < end:
        if text[0] == b"%" and end - text > 2 and hex_digit(text[1]) >= 0 and hex_digit(text[2]) >= 0:
            out[0] = <uint8_t>(hex_digit(text[1]) * 16 + hex_digit(text[2]))
            text += 3
        else:
            out[0] = text[0]
            text += 1
        out += 1
    return out


# Whether a segment is "." or "..", dots also as %2e.
cdef bint is_dot_segment(const uint8_t* segment, const uint8_t* end) noexcept:
    cdef int dots = 0
    while segment < end:
        if segment[0] == b".":
            segment += 1
        elif end - segment > 2 and segment[0] == b"%" and segment[1] == b"2" and (segment[2] | 0x20) == b"e":
            segment += 3
        else:
            return False
        dots += 1
    return 1 <= dots <= 2


# The length of a path without its query; 0 for one that nothing may match.
cdef Py_ssize_t plain_path(const uint8_t* path, Py_ssize_t length) noexcept:
    cdef Py_ssize_t i
    cdef Py_ssize_t start = 1
    cdef Py_ssize_t plain = length
    if length == 0 or path[0] != b"/":
        return 0
    for i in range(1, length):
        if path[i] == b"#":
            return 0
        if plain == length:
            if path[i] == b"?":
                plain = i
            if path[i] == b"/" or path[i] == b"?":
                if is_dot_segment(path + start, path + i):
                    return 0
                start = i + 1
    return 0 if plain == length and is_dot_segment(path + start, path + length) else plain
