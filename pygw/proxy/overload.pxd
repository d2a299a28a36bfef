# overload.pxd: how many new calls a worker takes on when it cannot keep up. No connections, no calls.
#
# What comes during a loop turn waits for its end, so the length of turns is how long input waits. A long turn alone
# says nothing: a pause of the garbage collector, one large batch, a stolen CPU. There are two signs of overload.
#
# A standing queue, as CoDel (RFC 8289) calls it: turns over `limit_us` one after the other for SUSTAINED_US, and not
# falling by half, as they do where a burst is being worked off. (The mean of the last two turns counts: where a backend
# is fast, requests come in one and their responses in the next.)
#
# A demand over 1, which tells in the middle of a turn: they may double and treble, and within one turn the connections
# that are read last have collected the most. A read's demand is the time that it takes by the time since its connection
# was read last; the sum over the reads of a turn is what work comes in a second, in seconds. It says so whatever made
# the turn long: after a pause there is more to read, but of a longer time. Only the read in which the pause itself
# fell looks like much, so the largest does not count. Where the sum is over 1 and input may have waited longer than
# `limit_us` and half as much, the queue grows from here. (Half as much, so that a burst of twice `limit_us` of work
# gets through even on connections that are never silent; after a silence it is no demand.)
#
# From then on a share of the new calls is refused, before they have cost more than their header block. Each turn that
# is still too long lowers the share in proportion, time raises it again: by itself within a second. Refused by lot, so
# that no client is favoured for where it stands in the poll's list.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    ADMIT_ALL = 65536
    LEAST_ADMITTED = 1024        # some get through whatever else keeps the worker busy
    IDLE_US = 1000               # more than that between two turns, and what the second one reads has come in between

cdef enum:
    NO_LIMIT = 0x7fffffff        # half an hour, which nothing waits

cdef struct Overload:
    uint64_t limit_us            # overload_lag; NO_LIMIT: off
    uint64_t began_us            # the present turn
    uint64_t ended_us            # the one before
    uint64_t late_since_us       # the end of the first turn of these that are too long; 0: the last one was not
    uint64_t late_us             # how long that was
    uint64_t before_us           # how long the turn before was
    uint64_t read_us             # when the present read, or the last one of this turn, began
    uint64_t interval_us         # the time since its connection was read before
    double demand                # of this turn's reads before it
    double largest               # of them
    uint32_t admitted            # of ADMIT_ALL new calls

# `interval_us` as below; NO_LIMIT where it begins with something else than a read.
cdef inline void begin_turn(Overload* self, uint64_t now_us, uint64_t interval_us) noexcept:
    self.began_us = now_us
    self.read_us = now_us
    self.interval_us = interval_us + 1
    self.demand = self.largest = 0

# Another read of this turn begins, of a connection that was read last `interval_us` ago. What the one before has taken
# shows now, without another look at the clock.
cdef inline void note_read(Overload* self, uint64_t now_us, uint64_t interval_us) noexcept:
    cdef double demand = <double>(now_us - self.read_us) / <double>self.interval_us
    self.demand += demand
    if demand > self.largest:
        self.largest = demand
    self.read_us = now_us
    self.interval_us = interval_us + 1

# A turn has ended; begin_turn() was called at its begin. True: with it overload has begun.
cdef bint end_turn(Overload* self, uint64_t now_us) noexcept
# A turn of a worker with next to nothing to do, which was not measured. Only where not is_alert().
cdef inline void note_short_turn(Overload* self) noexcept:
    self.before_us = 0

# A turn has come so far. True: it is clear already that overload has begun. Worth asking only where is_alert().
cdef bint watch_turn(Overload* self, uint64_t now_us) noexcept

# How long what is read now may have waited at most, as far as turns tell.
cdef inline uint64_t waited_us(const Overload* self, uint64_t now_us) noexcept:
    return now_us - self.began_us + (self.before_us if self.began_us - self.ended_us < IDLE_US else 0)

# Whether a new call is refused; `chance` is a random number below ADMIT_ALL. Behind the share there is a bound: of what
# may have waited too long already next to nothing is taken on.
cdef inline bint refuses(const Overload* self, uint64_t now_us, uint32_t chance) noexcept:
    if self.admitted == ADMIT_ALL:
        return False
    return chance >= (LEAST_ADMITTED if waited_us(self, now_us) > self.limit_us else self.admitted)

# Whether a new call has to be looked at. (What else than turns has passed since the last one does no harm here.)
cdef inline bint is_alert(const Overload* self, uint64_t now_us) noexcept:
    return (
        self.admitted < ADMIT_ALL or self.late_since_us != 0
        or now_us + self.before_us > self.began_us + self.limit_us
    )

# For Python: tests/doubles/overload_model.py.
cdef class OverloadJudge:
    cdef Overload state
