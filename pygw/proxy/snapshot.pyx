# snapshot.pyx: one configuration as calls use it. See snapshot.pxd.

from libc.stdlib cimport calloc, free

from .._fastmatch cimport RouteTable


cdef class Snapshot:

    def __cinit__(
        self, long version, RouteTable table, list backends, Py_ssize_t mirrors, list by_listener=None,
        dict secured=None,
    ):
        self.version = version
        self.table = table
        self.backends = backends
        self.by_listener = by_listener
        self.secured = secured
        self.mirror_count = mirrors
        self.mirror_debt = <double*>calloc(<size_t>mirrors + 1, sizeof(double))
        if self.mirror_debt == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.mirror_debt)

    cdef bint mirror_due(self, Py_ssize_t mirror, unsigned int numerator, unsigned int denominator) noexcept:
        cdef double* debt
        if mirror >= self.mirror_count:
            return False
        debt = &self.mirror_debt[mirror]
        debt[0] += <double>numerator / <double>denominator
        # A hair below one: 100 times 0.01 must be due the hundredth time, not the hundred-and-first.
        if debt[0] < 1 - 1e-9:
            return False
        debt[0] -= 1
        return True
