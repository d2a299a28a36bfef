# gate.pxd: what the client connections of one worker share: where new calls go, and how many connections there may be.
#
# Rule for limits. At max_connections, or where descriptors run short, the worker stops accepting: connections wait in
# the kernel's queue until some have ended. What one address has too many of is closed at once, for its owner is known
# only once it is accepted. Descriptors are numbered from the lowest that is free, so a new one's number says how many
# there are.

from libc.stdint cimport uint64_t

from .client_address cimport Address
from .context cimport Context
from .snapshot cimport Snapshot

cdef class Gate:
    cdef:
        Context context
        Snapshot snapshot            # the present one; None: nothing to serve yet
        uint64_t generation          # counts snapshots
        object trusted               # TrustedProxies
        object proxy_senders         # TrustedProxies: who must send a PROXY header; None: nobody
        set connections
        Py_ssize_t handshakes        # TLS handshakes that are not done

        # ===== limits =====
        object on_accepting          # callable(bool): to stop accepting, to go on; None: nobody listens
        bint is_full
        Py_ssize_t max_connections
        Py_ssize_t max_per_address   # 0: no limit
        Py_ssize_t resume_at         # where full: with so few connections there is room again
        int descriptor_limit         # numbers from here on are not for clients
        uint64_t warned_us
        dict by_address              # of those that count: key -> connections

    # A client has connected. False: it is one too many.
    cdef bint enter(self, object connection, int descriptor) except -1
    cdef int leave(self, object connection) except -1
    # Counts a connection for its address. The key for forget_address(); None: there are too many already.
    cdef bytes count_address(self, const Address* address)
    cdef int forget_address(self, bytes key) except -1
    # A limit is reached with so many connections that stay.
    cdef int fill(self, int limit, Py_ssize_t count) except -1
