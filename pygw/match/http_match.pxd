# http_match.pxd: from a request to a match of an HTTPRoute, within one bucket of an image.
#
# Paths are compared as sent, never decoded or merged: a gateway that is more lenient than the server behind it is a way
# around its routes. A path with a "." or ".." segment (also as %2e), or with a fragment, is matched by nothing.
# Query parameters are percent-decoded; of a repeated one the first counts (HTTPQueryParamMatch.name).

from libc.stdint cimport uint8_t, uint32_t
from .image_layout cimport HttpBucketRecord, HttpMatchRecord, ImageHeader, ListRef
from .regex_cache cimport RegexSet
from .request_target cimport Request
from .request_values cimport RequestValues

cdef class HttpMatcher:
    cdef:
        object owner             # of the image
        const uint8_t* base
        const ImageHeader* header
        RegexSet regexes
        RequestValues values     # headers and query parameters of the request at hand
        const Request* request
        Py_ssize_t path_length   # without the query
        bint has_values
        uint8_t* decoded         # the query, percent-decoded
        Py_ssize_t decoded_capacity

    # Whether any match can take this request; search() is for it from now on.
    cdef bint begin(self, const Request* request) noexcept
    # The HttpMatchRecord that wins in this HttpBucketRecord, or NULL. 0; -1 is an exception.
    cdef int search(self, uint32_t bucket, const HttpMatchRecord** winner) except -1

    # private from here on
    cdef int search_path(
        self, uint32_t bucket, uint32_t kind, Py_ssize_t length, const HttpMatchRecord** winner
    ) except -1
    cdef int search_prefixes(
        self, uint32_t bucket, const HttpBucketRecord* record, const HttpMatchRecord** winner
    ) except -1
    cdef int search_numbers(self, ListRef numbers, const HttpMatchRecord** winner) except -1
    cdef int applies(self, const HttpMatchRecord* match) except -1
    cdef int have_terms(self, ListRef terms) except -1
    cdef int collect(self) except -1
    cdef int collect_query(self, const uint8_t* query, Py_ssize_t length) except -1

# For a proven image; `values` may be shared with whatever looks at the same request before or after.
cdef HttpMatcher open_http_matcher(object owner, const uint8_t* base, RegexSet regexes, RequestValues values)
