# endpoint.pxd: one address of a backend: its connections, the calls that wait for one, its health. No routes.
#
# One Endpoint per address, port and TLS setting in a worker, shared by all Backends that list it. Calls go to the
# first connection that takes another stream, so that they batch; another connection is opened only when all
# are at the peer's MAX_CONCURRENT_STREAMS.

from libc.stdint cimport uint64_t
from .call_record cimport Call, EndpointLoad
from .context cimport Context
from .peer cimport Peer
from .queue_delay cimport QueueDelay
from .timer_wheel cimport Timer

cdef class Endpoint:
    cdef:
        Context context
        readonly str host                    # IP address
        readonly int port
        readonly bytes label                 # "address:port"
        readonly object tls                  # tls.UpstreamTls; None: cleartext
        object dialer                        # opens connections: dial(endpoint)
        list upstreams                       # ready Peers, oldest first
        readonly Py_ssize_t dialing          # connections being opened
        EndpointLoad load
        QueueDelay delay                     # of load.queue
        readonly Py_ssize_t users            # Backends that list it
        Timer connect_timer                  # while `dialing`: calls should not wait longer; else: dials by itself

    # A connection that takes one more stream, but not the one with this encoder.id; or None.
    cdef Peer ready_upstream(self, uint64_t but)
    # Lets the call wait for a connection, opening one where that may help. False: the queue is full.
    cdef bint wait(self, Call* call) except -1
    # Connections are full, none is on its way, and too many calls wait already for another one to be served in time.
    cdef bint is_late(self) noexcept
    cdef uint64_t waited_us(self, const Call* call) noexcept
    # Sends the call, whose request is held, on another connection than call.refused_by, or lets it wait for one.
    cdef bint take(self, Call* call) except -1
    # It has a connection, or at least nothing is known against it: other endpoints need not come first.
    cdef bint is_fit(self, bint panic) noexcept
    # ... nor is a connection to it being opened, which may take long.
    cdef bint is_at_hand(self, bint panic) noexcept
    # Calls that wait go to what connections now take.
    cdef int serve_queue(self) except -1
    cdef int avoid(self) except -1
    cdef int start_connect_timer(self, double seconds) except -1
    cdef int move_queue(self) except -1
    cdef int connect_later(self, double seconds) except -1
    cdef int refuse_queue(self, str text) except -1
    # Opens another connection unless one is being opened or there are max_upstream_connections.
    # True: one is on its way.
    cdef bint dial_if_useful(self) except -1
    cdef int make_do(self) except -1
    cdef int add_upstream(self, Peer upstream) except -1
    # `is_useless`: it took no call, and not because we closed it.
    cdef int remove_upstream(self, Peer upstream, bint is_useless) except -1
