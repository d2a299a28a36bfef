# timer_wheel.pyx: a hierarchical timer wheel over loop.call_later. See timer_wheel.pxd.
#
# Where a timer goes: the highest group of 6 bits in which its due tick differs from `elapsed` is its
# level, that group's value its slot. So every slot in use lies ahead of `elapsed` on its level, and when
# `elapsed` comes to the start of a slot of level n > 0, its timers belong to lower levels (Varghese and
# Lauck, "Hashed and hierarchical timing wheels").

from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from *:
    int __builtin_clzll(unsigned long long) noexcept nogil
    int __builtin_ctzll(unsigned long long) noexcept nogil

cdef uint64_t LAST_TICK = (<uint64_t>1 << (6 * LEVELS)) - 1
cdef uint64_t NEVER = <uint64_t>-1

cdef uint64_t LATE_MICROSECONDS = 100_000
cdef double ONE_LOOK = 0.001             # not 0: uvloop would call us before it looks


cdef inline void link_timer(Timer** head, Timer* timer) noexcept:
    timer.next = head[0]
    timer.link = head
    if head[0] != NULL:
        head[0].link = &timer.next
    head[0] = timer


cdef inline void unlink_timer(Timer* timer) noexcept:
    timer.link[0] = timer.next
    if timer.next != NULL:
        timer.next.link = timer.link
    timer.next = NULL
    timer.link = NULL


cdef class TimerWheel:

    def __cinit__(self, loop, *args, **kwargs):
        memset(self.slots, 0, sizeof(self.slots))
        memset(self.occupied, 0, sizeof(self.occupied))
        self.loop = loop
        self.wake = NEVER

    cdef uint64_t time_us(self) noexcept:
        cdef timespec now
        clock_gettime(CLOCK_MONOTONIC, &now)
        return <uint64_t>now.tv_sec * 1000000 + <uint64_t>now.tv_nsec // 1000

    cdef void arm(self, Timer* timer, double seconds) noexcept:
        cdef uint64_t now = self.time_us()
        cdef double ticks
        self.disarm(timer)
        if self.count == 0 and self.firing == NULL:
            # The wheel stood still: nothing lies between, so timers start on their lowest level.
            self.elapsed = now // TICK_MICROSECONDS
        # Rounded up, so that nothing fires early; NaN and what is past count as "next tick".
        ticks = (now + seconds * 1e6 + (TICK_MICROSECONDS - 1)) / TICK_MICROSECONDS
        if not ticks > self.elapsed + 1:
            timer.due = self.elapsed + 1
        elif ticks >= <double>LAST_TICK:
            timer.due = LAST_TICK
        else:
            timer.due = <uint64_t>ticks
        timer.armed = True
        self.count += 1
        self.insert(timer)
        if timer.due < self.wake and not self.advancing:
            self.schedule()

    cdef void disarm(self, Timer* timer) noexcept:
        cdef Timer** head = timer.link
        cdef Py_ssize_t place
        if not timer.armed:
            return
        unlink_timer(timer)
        timer.armed = False
        self.count -= 1
        if head[0] == NULL and head >= &self.slots[0] and head < &self.slots[0] + LEVELS * SLOTS:
            place = head - &self.slots[0]
            self.occupied[place // SLOTS] &= ~(<uint64_t>1 << (place % SLOTS))
        # A call_later that is now too early stays: cancelling costs more than one idle wake.

    cdef int expired(self, Timer* timer) except -1:
        raise NotImplementedError

    cdef int advance(self, uint64_t now_us) except -1:
        cdef uint64_t now = now_us // TICK_MICROSECONDS
        cdef uint64_t tick
        cdef int level, slot
        cdef Timer* timer
        cdef Timer* rest
        if self.advancing:
            return 0
        self.advancing = True
        try:
            while True:
                while self.firing != NULL:
                    # Each is unlinked before its hook runs: the hook may free it, and may disarm the others.
                    timer = self.firing
                    unlink_timer(timer)
                    timer.armed = False
                    self.count -= 1
                    self.expired(timer)
                tick = self.next_slot(&level, &slot)
                if tick > now:
                    break
                self.elapsed = tick
                rest = self.slots[level * SLOTS + slot]
                self.slots[level * SLOTS + slot] = NULL
                self.occupied[level] &= ~(<uint64_t>1 << slot)
                while rest != NULL:
                    timer = rest
                    rest = timer.next
                    if timer.due <= tick:
                        link_timer(&self.firing, timer)
                    else:
                        self.insert(timer)
            if now > self.elapsed:
                self.elapsed = now
        finally:
            self.advancing = False
            self.schedule()
        return 0

    cdef void stop(self) noexcept:
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None
        self.loop = None

    cdef void insert(self, Timer* timer) noexcept:
        cdef uint64_t differing = (self.elapsed ^ timer.due) | (SLOTS - 1)
        cdef int level = (63 - __builtin_clzll(differing)) // 6
        cdef int slot = (timer.due >> (6 * level)) & (SLOTS - 1)
        link_timer(&self.slots[level * SLOTS + slot], timer)
        self.occupied[level] |= <uint64_t>1 << slot

    # The tick at which the next slot in use begins, NEVER if there is none.
    cdef uint64_t next_slot(self, int* level, int* slot) noexcept:
        cdef int n
        for n in range(LEVELS):
            # A slot of a lower level always comes before those of the levels above.
            if self.occupied[n] != 0:
                level[0] = n
                slot[0] = __builtin_ctzll(self.occupied[n])
                return (
                    (self.elapsed >> (6 * (n + 1)) << (6 * (n + 1))) | (<uint64_t>slot[0] << (6 * n))
                )
        return NEVER

    # Sees to it that the loop wakes us for the next slot in use.
    cdef int schedule(self) except -1:
        cdef int level, slot
        cdef uint64_t tick = self.elapsed if self.firing != NULL else self.next_slot(&level, &slot)
        cdef int64_t delay
        if self.loop is None or (tick >= self.wake and self.handle is not None):
            return 0
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None
        self.wake = tick
        if tick == NEVER:
            return 0
        delay = <int64_t>(tick * TICK_MICROSECONDS - self.time_us())
        # Loops count milliseconds: half of one more, lest the wake comes just before the tick.
        self.handle = self.loop.call_later(delay / 1e6 + 0.0005 if delay > 0 else 0, self.on_wake)
        return 0

    # A wake that comes late means that we did not run (SIGSTOP, a machine that slept, a long turn). What the timers are
    # about may have come meanwhile and lie in the sockets, but loops see to their timers first where epoll_wait() ends
    # with EINTR, as it does after SIGCONT (signal(7)). So the loop gets to look at its sockets once before they fire.
    def on_wake(self):
        """Called by the loop."""
        if self.time_us() > self.wake * TICK_MICROSECONDS + LATE_MICROSECONDS:
            self.handle = self.loop.call_later(ONE_LOOK, self.on_late_wake)
        else:
            self.on_late_wake()

    def on_late_wake(self):
        """Called by the loop when it has looked at its sockets."""
        self.handle = None
        self.wake = NEVER
        self.advance(self.time_us())
