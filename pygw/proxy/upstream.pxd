# upstream.pxd: the HTTP/2 connection to an Endpoint (client end). Hands what it hears to the Calls of its streams.

from libc.stdint cimport uint32_t, uint64_t
from ..http2.connection cimport CloseCause
from .endpoint cimport Endpoint
from .peer cimport Peer
from .timer_wheel cimport Timer

cdef class Upstream(Peer):
    cdef:
        Endpoint endpoint
        bint is_ready                # SETTINGS came; listed by the Endpoint
        bint is_lost                 # it broke under a call
        bint retired                 # takes no more calls; closes when the last has ended
        readonly bytes failure       # why it went before it was ready
        object on_settled            # called once: it is ready, or it is gone
        uint64_t ready_us            # when it was
        int descriptor               # of the socket; -1: none
        uint32_t announced_limit     # the endpoint's own stream limit, while a lower one holds: see heed_refusal()
        uint32_t heeded_limit        # which
        Timer heed_timer             # until when

    cdef int explain(self, str text) except -1
    cdef int unlist(self) except -1      # the Endpoint gives it no more calls
    cdef int tell_dialer(self) except -1
    cdef int arm_idle(self) except -1
    cdef bint may_be_stale(self) noexcept
    cdef int fall_silent(self) except -1
    cdef bint is_failure(self, CloseCause cause) noexcept
    # REFUSED_STREAM came while other streams are open.
    cdef int heed_refusal(self) except -1
    cdef int forget_refusal(self) except -1
