# timer_wheel.pxd: all timers of a worker, in C structs that their owners embed. No calls, no streams.
#
# A hierarchical wheel: LEVELS levels of 64 slots; a slot of level n spans 64**n ticks. Arming and
# disarming are O(1); a timer moves down a level at most LEVELS - 1 times in its life. The loop is woken
# once for the next slot in use and not at all while nothing is armed. A timer never fires early, and at
# most a tick and the loop's own delay late.
#
# Rule: a Timer is zeroed before its first arm(), and disarmed before its memory goes.

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef enum:
    TICK_MICROSECONDS = 5000
    LEVELS = 6                   # 64**6 ticks: ten years
    SLOTS = 64

cdef struct Timer:
    Timer* next
    Timer** link                 # what points at this one: a slot, or the `next` of the timer before
    uint64_t due                 # tick
    void* owner                  # for expired(); the wheel looks at neither of the two
    uint8_t kind
    bint armed

cdef class TimerWheel:
    cdef:
        object loop              # None after stop()
        object handle            # of the call_later that wakes us, or None
        uint64_t elapsed         # the tick up to which timers have fired; tick 0 is CLOCK_MONOTONIC's 0
        uint64_t wake            # the tick that `handle` wakes us for
        Timer* firing            # due timers that advance() has not come to yet
        readonly Py_ssize_t count     # armed ones
        bint advancing
        uint64_t[6] occupied     # a level each; bit n: slot n is in use
        Timer* slots[384]        # LEVELS * SLOTS

    # CLOCK_MONOTONIC in microseconds; tests override it.
    cdef uint64_t time_us(self) noexcept
    # Fires `timer` once in `seconds` from now; arms it anew where it is armed already.
    cdef void arm(self, Timer* timer, double seconds) noexcept
    # Does nothing where the timer is not armed.
    cdef void disarm(self, Timer* timer) noexcept
    # Hook: `timer` (disarmed before) is due. May arm and disarm any timer and free what it disarmed.
    cdef int expired(self, Timer* timer) except -1
    # Fires what is due. Called by the loop; no need to call it otherwise.
    cdef int advance(self, uint64_t now_us) except -1
    # Disarms nothing, but never wakes again: for the end of the loop.
    cdef void stop(self) noexcept
    cdef void insert(self, Timer* timer) noexcept
    cdef uint64_t next_slot(self, int* level, int* slot) noexcept
    cdef int schedule(self) except -1
