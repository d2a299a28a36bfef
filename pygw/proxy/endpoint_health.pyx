# endpoint_health.pyx: passive ejection of Endpoints. See endpoint_health.pxd.

from libc.stdint cimport uint64_t

from .context cimport Context

cdef enum:
    DOUBLINGS_MAX = 30


# After so many failures in a row, with jitter: half of it to all.
cdef uint64_t backoff_us(Context context, int failures) noexcept:
    cdef double period = context.eject_time * <double>(<uint64_t>1 << min(failures - 1, <int>DOUBLINGS_MAX))
    return <uint64_t>(min(period, context.eject_time_max) * <double>(500 + context.random() % 501) * 1000)


cdef void note_connect_failure(Context context, Health* health) noexcept:
    health.connect_failures += 1
    context.turn_us = context.time_us()
    health.connect_after_us = context.turn_us + backoff_us(context, health.connect_failures)


cdef void note_call_failure(Context context, Health* health) noexcept:
    health.call_failures += 1
    if context.eject_failures == 0 or health.call_failures < context.eject_failures:
        return
    if health.ejections > 0 and not health.is_on_trial and context.turn_us < health.ejected_until_us:
        # A call that was under way when it was ejected.
        return
    health.ejections += 1
    health.is_on_trial = False
    health.ejected_until_us = context.turn_us + backoff_us(context, health.ejections)
    context.counters.endpoint_ejections += 1


cdef void note_answer(Health* health) noexcept:
    health.connect_failures = health.call_failures = health.ejections = 0
    health.is_on_trial = False


cdef void begin_trial(Context context, Health* health) noexcept:
    health.is_on_trial = True
    health.ejected_until_us = context.turn_us + backoff_us(context, health.ejections)
