# snapshot.pxd: one configuration as calls use it: the RouteTable and the Backends it names. Immutable.
#
# A call keeps the Snapshot it began on; an old one dies with its last call.

from .._fastmatch cimport RouteTable

cdef class Snapshot:
    cdef:
        readonly long version
        readonly RouteTable table
        readonly list backends       # Backend, in the order of the image's backend keys
        double* mirror_debt          # a number for each MirrorRecord of the image: what it is owed of a call
        Py_ssize_t mirror_count

    # Is it the mirror's turn? Exact shares over the calls of a worker: each adds the fraction, a whole one is due.
    cdef bint mirror_due(self, Py_ssize_t mirror, unsigned int numerator, unsigned int denominator) noexcept
