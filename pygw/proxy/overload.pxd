# overload.pxd: how many new calls a worker takes on when it cannot keep up. No connections, no calls.
#
# What comes during a loop turn waits for its end, so the length of a turn is how long input waits. A long turn alone
# says nothing: a pause of the garbage collector, one large batch, a stolen CPU. Overload is what CoDel (RFC 8289)
# calls a standing queue: turns over `limit_us` one after the other for SUSTAINED_US, and not falling by half, as they
# do where a burst is being worked off. (The mean of the last two turns counts: where a backend is fast, requests come
# in one and their responses in the next.) From then on a share of the new calls is refused, before they have cost more
# than their header block. Each turn that is still too long lowers the share in proportion, time raises it again: by
# itself within a second. Refused by lot, so that no client is favoured for where it stands in the poll's list.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    ADMIT_ALL = 65536
    LEAST_ADMITTED = 1024        # some get through whatever else keeps the worker busy

cdef struct Overload:
    uint64_t limit_us            # overload_lag; 0: off
    uint64_t began_us            # the present turn
    uint64_t ended_us            # the one before
    uint64_t late_since_us       # the end of the first turn of these that are too long; 0: the last one was not
    uint64_t late_us             # how long that was
    uint64_t before_us           # how long the turn before was
    uint32_t admitted            # of ADMIT_ALL new calls

# A turn has ended; `began_us` was set at its begin. True: with it overload has begun.
cdef bint end_turn(Overload* self, uint64_t now_us) noexcept
# A turn of a worker with next to nothing to do, which was not measured. Only where not is_alert().
cdef inline void note_short_turn(Overload* self) noexcept:
    self.before_us = 0

# A turn has come so far. True: it is clear already that overload has begun, for it is as long as the first that was
# too long, and they may double and treble. Worth asking only where is_alert().
cdef bint watch_turn(Overload* self, uint64_t now_us) noexcept

# Whether a new call is refused; `chance` is a random number below ADMIT_ALL. Behind the share there is a bound: a turn
# that is over the limit already takes on next to nothing more.
cdef inline bint refuses(const Overload* self, uint64_t now_us, uint32_t chance) noexcept:
    if self.admitted == ADMIT_ALL:
        return False
    return chance >= (LEAST_ADMITTED if now_us > self.began_us + self.limit_us else self.admitted)

# Whether a new call has to be looked at.
cdef inline bint is_alert(const Overload* self) noexcept:
    return self.admitted < ADMIT_ALL or self.late_since_us != 0
