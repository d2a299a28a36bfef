# http_image.pyx: see http_image.pxd. What a match costs is said in tables.py.
#
# Precedence (Gateway API, HTTPRouteRule.matches): an Exact path, then the longest prefix, then a method, then more
# headers, then more query parameters; then age, name and place, which the number of the MatchRecord stands for. Regular
# expressions, whose place the API leaves open, come between the two, longer ones first, as for GRPCRoutes. None of this
# depends on the request: so candidates are sorted here, and the first that applies is the winner.

cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from .image_layout cimport *
from .image_writer cimport ImageWriter


@cython.no_gc
cdef class HttpPlacement:
    pass


cdef HttpPlacement add_http_match(ImageWriter writer, match, uint32_t rule, uint32_t route, Py_ssize_t index):
    cdef HttpPlacement placement = HttpPlacement.__new__(HttpPlacement)
    cdef HttpMatchRecord record
    cdef MatchRecord* general
    cdef uint32_t number
    memset(&record, 0, sizeof(record))
    placement.kind = match.path_type
    placement.path = match.path.rstrip("/") if match.path_type == "PathPrefix" else match.path
    record.path_regex = NONE
    if match.path_type == "RegularExpression":
        record.path_regex = writer.regex(match.path)
    elif len(placement.path.encode("utf-8", "surrogatepass")) > HTTP_PATH_MAX:
        return None  # past what the CRD allows; no such request is looked up
    record.prefix_length = <uint32_t>len(placement.path.encode("utf-8", "surrogatepass"))
    record.method = writer.text(match.method or "")
    record.headers = add_terms(writer, match.headers, True)
    record.query = add_terms(writer, match.query, False)
    if index > 0xffff or record.headers.count > 0xffff:
        raise ValueError("a rule has at most 65,536 matches and a match as many headers")
    number = writer.count(SECTION_MATCHES)
    general = <MatchRecord*>writer.push(SECTION_MATCHES)
    general.rule = rule
    general.route = route
    general.index = <uint16_t>index
    general.header_count = <uint16_t>record.headers.count
    record.match = number
    placement.number = writer.count(SECTION_HTTP_MATCHES)
    placement.rank = (
        0 if match.path_type == "Exact" else -len(match.path),
        not match.method, -<int>record.headers.count, -<int>record.query.count, number,
    )
    (<HttpMatchRecord*>writer.push(SECTION_HTTP_MATCHES))[0] = record
    return placement


# Of equivalent names only the first counts.
cdef ListRef add_terms(ImageWriter writer, tuple terms, bint are_headers) except *:
    cdef ListRef added
    cdef HttpTermRecord record
    cdef set seen = set()
    added.first = writer.count(SECTION_HTTP_TERMS)
    for term in terms:
        if term.name in seen:
            continue
        seen.add(term.name)
        memset(&record, 0, sizeof(record))
        record.regex = NONE
        record.name = writer.name(term.name if are_headers else "?" + term.name)
        if term.is_regex:
            record.regex = writer.regex(term.value)
        else:
            record.value = writer.text(term.value)
        (<HttpTermRecord*>writer.push(SECTION_HTTP_TERMS))[0] = record
    added.count = writer.count(SECTION_HTTP_TERMS) - added.first
    return added


cdef tuple rank_of(HttpPlacement placement):
    return placement.rank


cdef uint32_t add_http_bucket(ImageWriter writer, list placements) except? 0xffffffff:
    cdef uint32_t number = writer.count(SECTION_HTTP_BUCKETS)
    cdef HttpBucketRecord record
    cdef HttpPathRecord path
    cdef HttpPlacement placement
    cdef dict paths = {}         # (kind, path) -> Placements
    cdef list patterns = []
    memset(&record, 0, sizeof(record))
    placements.sort(key=rank_of)
    for placement in placements:
        if placement.kind == "RegularExpression":
            patterns.append(placement)
        else:
            paths.setdefault((placement.kind == "PathPrefix", placement.path), []).append(placement)
    for (is_prefix, text), found in paths.items():
        memset(&path, 0, sizeof(path))
        path.path = writer.text(text)
        path.bucket = number
        path.kind = HTTP_PREFIX if is_prefix else HTTP_EXACT
        path.candidates = add_numbers(writer, found)
        if is_prefix:
            record.prefix_lengths[path.path.length >> 6] |= <uint64_t>1 << (path.path.length & 63)
        else:
            record.has_exact = 1
        (<HttpPathRecord*>writer.push(SECTION_HTTP_PATHS))[0] = path
    record.patterns = add_numbers(writer, patterns)
    (<HttpBucketRecord*>writer.push(SECTION_HTTP_BUCKETS))[0] = record
    return number


cdef ListRef add_numbers(ImageWriter writer, list placements) except *:
    cdef ListRef added
    cdef HttpPlacement placement
    added.first = writer.count(SECTION_NUMBERS)
    added.count = <uint32_t>len(placements)
    for placement in placements:
        (<uint32_t*>writer.push(SECTION_NUMBERS))[0] = placement.number
    return added
