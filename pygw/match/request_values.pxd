# request_values.pxd: the headers of a request that any match asks for, by their number in the image.
#
# Collected once for a request, and only when a match asks for a header. Nothing is allocated but where a request
# has more fields, or longer repeated values, than any before. The image must outlive it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from .image_layout cimport ImageHeader
from .request_target cimport Request

cdef struct HeaderValue:         # of one NameRecord, in the request at hand
    uint64_t request             # which request this is of: stale where it differs from RequestValues.request_count
    const uint8_t* octets        # all values joined with ","
    Py_ssize_t length
    uint64_t hash
    uint32_t repeats
    bint is_hashed

cdef class RequestValues:
    cdef:
        object owner             # of the image
        const uint8_t* base
        const ImageHeader* header
        HeaderValue* values      # by NameRecord
        uint32_t* present        # the names that the request carries
        uint32_t present_count
        uint32_t* field_names    # by place in Request.fields: its NameRecord, or NONE
        Py_ssize_t field_capacity
        uint8_t* joined          # where repeated values are joined
        Py_ssize_t joined_capacity
        uint64_t request_count

    # Replaces what was collected. The values live as long as the request's octets, and until the next collect().
    cdef int collect(self, const Request* request) except -1
    # Adds what is no header, under a name of the image that no header can have; the first of a name counts. After
    # collect(), and the octets must live as long as what that collected.
    cdef int add_once(
        self, const uint8_t* name, Py_ssize_t name_length, const uint8_t* octets, Py_ssize_t length
    ) noexcept
    # NULL: the request has no such header.
    cdef inline HeaderValue* of(self, uint32_t name) noexcept:
        return &self.values[name] if self.values[name].request == self.request_count else NULL

    cdef int grow_fields(self, Py_ssize_t count) except -1
    cdef int join_repeated(self, const Request* request) except -1
    cdef int reserve_joined(self) except -1
    cdef uint32_t find_name(self, const uint8_t* name, Py_ssize_t length) noexcept

# For a proven image.
cdef RequestValues open_values(object owner, const uint8_t* base)
