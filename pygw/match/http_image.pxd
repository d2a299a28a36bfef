# http_image.pxd: the matches of HTTPRoutes, written into an image.

from libc.stdint cimport uint32_t
from .image_writer cimport ImageWriter

cdef class HttpPlacement:        # a match on its way into an image; it goes into as many buckets as its route
    cdef:
        uint32_t number          # of the HttpMatchRecord
        str kind                 # Exact, PathPrefix or RegularExpression
        str path                 # as HttpPathRecord names it
        tuple rank               # precedence among matches of one path; the smaller one wins

# None where no request can match.
cdef HttpPlacement add_http_match(ImageWriter writer, match, uint32_t rule, uint32_t route, Py_ssize_t index)
# The number of the HttpBucketRecord.
cdef uint32_t add_http_bucket(ImageWriter writer, list placements) except? 0xffffffff
