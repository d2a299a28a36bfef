# recording_timer_wheel.pyx: a TimerWheel for Python, with timers known by number and a clock that can be
# set. For tests, fuzzers and benchmarks; the relay does not use it.

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from .timer_wheel cimport Timer, TimerWheel


cdef class RecordingTimerWheel(TimerWheel):
    cdef:
        Timer** timers           # one allocation each, so that sanitizers see every use after free
        Py_ssize_t size
        bint virtual
        readonly list fired      # numbers, in order
        public uint64_t now      # microseconds, where `virtual`
        public object on_expired  # called with each number

    def __init__(self, loop, Py_ssize_t size, bint virtual=True):
        self.timers = <Timer**>calloc(size, sizeof(Timer*))
        if self.timers == NULL:
            raise MemoryError()
        self.size = size
        self.virtual = virtual
        self.fired = []

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.size):
            free(self.timers[i])
        free(self.timers)

    cdef uint64_t time_us(self) noexcept:
        return self.now if self.virtual else TimerWheel.time_us(self)

    cdef int expired(self, Timer* timer) except -1:
        cdef Py_ssize_t number = <Py_ssize_t>timer.owner
        self.fired.append(number)
        if self.on_expired is not None:
            self.on_expired(number)
        return 0

    def start(self, Py_ssize_t number, double seconds):
        if not 0 <= number < self.size:
            raise IndexError(number)
        if self.timers[number] == NULL:
            self.timers[number] = <Timer*>calloc(1, sizeof(Timer))
            if self.timers[number] == NULL:
                raise MemoryError()
            self.timers[number].owner = <void*>number
        self.arm(self.timers[number], seconds)

    def cancel(self, Py_ssize_t number):
        """Disarms the timer and frees it."""
        if not 0 <= number < self.size:
            raise IndexError(number)
        if self.timers[number] != NULL:
            self.disarm(self.timers[number])
            free(self.timers[number])
            self.timers[number] = NULL

    def is_armed(self, Py_ssize_t number):
        if not 0 <= number < self.size:
            raise IndexError(number)
        return self.timers[number] != NULL and self.timers[number].armed

    def run_to(self, uint64_t now):
        """Sets the clock and fires what is due."""
        self.now = now
        self.advance(now)

    def close(self):
        self.stop()

    def measure_arming(self, Py_ssize_t rounds):
        """Arms and disarms timer 0 so many times: for benchmarks."""
        cdef Py_ssize_t _
        self.start(0, 1.0)
        for _ in range(rounds):
            self.arm(self.timers[0], 0.5)
            self.disarm(self.timers[0])
