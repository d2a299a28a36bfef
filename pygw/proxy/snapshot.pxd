# snapshot.pxd: one configuration as calls use it: the RouteTable and the Backends it names. Immutable.
#
# A call keeps the Snapshot it began on; an old one dies with its last call.

from .._fastmatch cimport RouteTable

cdef class Snapshot:
    cdef:
        readonly long version
        readonly RouteTable table
        readonly list backends       # Backend, in the order of the image's backend keys
        list by_listener             # such a list for each listener; None: no Gateway has a client certificate
        dict secured                 # by site: its listeners by hostname (tls.ServerTls); sites in cleartext are absent
        double* mirror_debt          # a number for each MirrorRecord of the image: what it is owed of a call
        Py_ssize_t mirror_count

    # The Backends as the listener's Gateway reaches them: with its client certificate, where they are reached over TLS.
    cdef inline list backends_of(self, int listener):
        return self.backends if self.by_listener is None or listener < 0 else <list>self.by_listener[listener]
    # The listeners of a site by hostname, if it speaks TLS; else None.
    cdef inline dict secured_at(self, int site):
        return <dict>self.secured.get(site) if self.secured else None
    # Is it the mirror's turn? Exact shares over the calls of a worker: each adds the fraction, a whole one is due.
    cdef bint mirror_due(self, Py_ssize_t mirror, unsigned int numerator, unsigned int denominator) noexcept
