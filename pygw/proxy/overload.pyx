# overload.pyx: the share of new calls that a worker takes on. See overload.pxd.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    SUSTAINED_US = 100_000       # RFC 8289 §4.3: an interval of about the longest round trip
    RECOVERY_US = 1_000_000      # without a turn that is too long all calls are taken again after less


# To what would have kept the turn at half of the limit, but not by more than half at once: the calls that made this
# turn long may be answered in the next.
cdef void admit_less(Overload* self, uint64_t lag) noexcept:
    cdef uint64_t wanted = self.limit_us // 2
    cdef uint32_t share = self.admitted // 2
    if lag < 2 * wanted:
        share = <uint32_t>(self.admitted * wanted // lag)
    self.admitted = share if share > LEAST_ADMITTED else LEAST_ADMITTED


# A fixed rate for the first steps from little, and one in proportion for the later ones.
cdef void admit_more(Overload* self, uint64_t elapsed) noexcept:
    cdef uint64_t share
    if elapsed > RECOVERY_US:
        elapsed = RECOVERY_US
    share = self.admitted + (ADMIT_ALL + 4 * <uint64_t>self.admitted) * elapsed // RECOVERY_US
    self.admitted = <uint32_t>share if share < ADMIT_ALL else ADMIT_ALL


cdef bint end_turn(Overload* self, uint64_t now_us) noexcept:
    cdef uint64_t length = now_us - self.began_us
    cdef uint64_t before = self.before_us
    cdef uint64_t lag = (length + before) // 2
    cdef uint64_t elapsed = now_us - self.ended_us
    self.ended_us = now_us
    self.before_us = length
    if self.admitted < ADMIT_ALL:
        if lag > self.limit_us // 2:
            admit_less(self, lag)
        else:
            admit_more(self, elapsed)
            self.late_since_us = 0
        return False
    if lag <= self.limit_us:
        self.late_since_us = 0
    elif self.late_since_us == 0:
        self.late_since_us = now_us
        self.late_us = length if length > before else before
    elif now_us - self.late_since_us >= SUSTAINED_US and length > before // 2:
        admit_less(self, lag)
        return True
    return False


cdef bint watch_turn(Overload* self, uint64_t now_us) noexcept:
    cdef uint64_t length = now_us - self.began_us
    if self.admitted < ADMIT_ALL:
        return False
    if waited_us(self, now_us) > self.limit_us + self.limit_us // 2 and demand_so_far(self, now_us) > 1:
        admit_less(self, waited_us(self, now_us))
        return True
    if self.late_since_us == 0 or length < SUSTAINED_US or length < self.late_us:
        return False
    # As long as the first that was too long: it does not fall.
    admit_less(self, length)
    return True


# Of this turn's reads but the one that took most.
cdef double demand_so_far(const Overload* self, uint64_t now_us) noexcept:
    cdef double present = <double>(now_us - self.read_us) / <double>self.interval_us
    return self.demand + present - (present if present > self.largest else self.largest)


# ===== for Python: tests =====

cdef class OverloadJudge:

    def __init__(self, uint64_t limit_us):
        self.state.limit_us = limit_us if limit_us > 0 else <uint64_t>NO_LIMIT
        self.state.admitted = ADMIT_ALL

    def begin_turn(self, uint64_t now_us):
        begin_turn(&self.state, now_us, NO_LIMIT)

    def begin_read(self, uint64_t now_us, uint64_t interval_us):
        note_read(&self.state, now_us, interval_us)

    def refuses(self, uint64_t now_us, uint32_t chance):
        if not is_alert(&self.state, now_us):
            return False
        watch_turn(&self.state, now_us)
        return refuses(&self.state, now_us, chance)

    def end_turn(self, uint64_t now_us):
        end_turn(&self.state, now_us)

    @property
    def share(self):
        return self.state.admitted / <double>ADMIT_ALL
