# backend.pyx: which Endpoint of a Service port gets the next call. See backend.pxd.
#
# In turn, but the one whose turn it is gives way to a second, random one that has clearly fewer calls open
# (power of two choices): even shares where calls are alike, and no crowd behind a slow endpoint.

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF

from .call_life cimport unqueue_call
from .call_metrics cimport RETRY_CONNECT
from .call_record cimport Call
from .context cimport Context
from .endpoint cimport Endpoint
from .endpoint_health cimport begin_trial, is_ejected

cdef enum:
    ATTEMPTS_MAX = 3             # endpoints that one call tries when none could be connected


cdef class Backend:

    def __cinit__(self, Context context, str key):
        self.context = context
        self.key = key
        self.endpoints = []
        self.turn = context.random() & 0xffff    # workers must not move in step

    def update(self, list endpoints):
        """The Endpoints that take calls from now on; calls on others finish."""
        before = self.endpoints
        for endpoint in endpoints:
            endpoint.use()
        self.endpoints = endpoints
        for endpoint in before:
            endpoint.leave()

    cdef Endpoint next_endpoint(self, Endpoint but=None):
        cdef Py_ssize_t count = len(self.endpoints)
        cdef Endpoint first, second
        if count == 0:
            return None
        if count == 1:
            return <Endpoint>self.endpoints[0]
        self.turn = (self.turn + 1) % count
        first = <Endpoint>self.endpoints[self.turn]
        if first is but or not first.is_at_hand(False):
            return self.next_fit(but)
        second = <Endpoint>self.endpoints[self.context.random() % <size_t>count]
        if second.load.active + 1 < first.load.active and second is not but and second.is_at_hand(False):
            first = second
        if first.load.health.ejections > 0:
            begin_trial(self.context, &first.load.health)
        return first

    # The first at hand from the one whose turn it is; else one that is being connected; else any: it may be back.
    cdef Endpoint next_fit(self, Endpoint but):
        cdef Py_ssize_t count = len(self.endpoints)
        cdef bint panic = self.is_panic()
        cdef Endpoint endpoint, fit = None
        cdef Py_ssize_t i
        for i in range(count):
            endpoint = <Endpoint>self.endpoints[(self.turn + i) % count]
            if endpoint is but:
                continue
            if endpoint.is_at_hand(panic):
                fit = endpoint
                break
            if fit is None and endpoint.is_fit(panic):
                fit = endpoint
        if fit is None:
            return <Endpoint>self.endpoints[self.turn]
        if panic:
            self.context.counters.endpoint_panics += 1
        elif fit.load.health.ejections > 0:
            begin_trial(self.context, &fit.load.health)
        return fit

    # Whether so many are ejected that all must do. Asked once for all the calls of a read.
    cdef bint is_panic(self) noexcept:
        cdef Py_ssize_t ejected = 0
        cdef Endpoint endpoint
        if self.panic_at_us != self.context.turn_us:
            self.panic_at_us = self.context.turn_us
            for item in self.endpoints:
                endpoint = <Endpoint>item
                ejected += is_ejected(self.context, &endpoint.load.health)
            self.panic = ejected * 100 > len(self.endpoints) * self.context.eject_panic
        return self.panic

    def move(self, size_t address, bint to_connected=False):
        """A call whose endpoint could not be reached: True if it waits for another one now.

        `to_connected`: it may still be reached; only for one that has a connection is it worth moving.
        """
        cdef Call* call = <Call*>address
        cdef Endpoint failed = <Endpoint>call.endpoint
        cdef Endpoint other
        if call.attempts + 1 >= ATTEMPTS_MAX:
            return False
        other = self.next_endpoint(failed)
        if other is None or other is failed or not other.is_fit(False) or (to_connected and not other.upstreams):
            return False
        unqueue_call(call)
        call.attempts += 1
        self.context.counters.upstream_retries[<int>RETRY_CONNECT] += 1
        set_endpoint(call, other)
        if not other.wait(call):
            return False
        other.serve_queue()
        return True

    def retry(self, size_t address):
        """A call that its endpoint did not process: True if it is on its way again, to another endpoint or this one."""
        cdef Call* call = <Call*>address
        cdef Endpoint refused = <Endpoint>call.endpoint
        cdef Endpoint other = self.next_endpoint(refused)
        if other is None or not other.is_fit(False):
            # It has gone from the list, or the others are worse.
            other = refused
        set_endpoint(call, other)
        return other.take(call)


cdef void set_endpoint(Call* call, Endpoint endpoint) noexcept:
    cdef PyObject* before = call.endpoint
    Py_INCREF(endpoint)
    call.endpoint = <PyObject*>endpoint
    call.load = &endpoint.load
    Py_XDECREF(before)
