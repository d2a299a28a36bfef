# backend.pyx: which Endpoint of a Service port gets the next call. See backend.pxd.
#
# In turn, but the one whose turn it is gives way to a second, random one that has clearly fewer calls open
# (power of two choices): even shares where calls are alike, and no crowd behind a slow endpoint.

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF

from .call_metrics cimport RETRY_CONNECT
from .call_record cimport Call
from .context cimport Context
from .endpoint cimport Endpoint

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
        cdef Py_ssize_t i
        cdef Endpoint first, second
        if count == 0:
            return None
        if count == 1:
            return <Endpoint>self.endpoints[0]
        self.turn = (self.turn + 1) % count
        first = <Endpoint>self.endpoints[self.turn]
        if first.is_avoided() or first is but:
            for i in range(1, count):
                second = <Endpoint>self.endpoints[(self.turn + i) % count]
                if not second.is_avoided() and second is not but:
                    return second
            return first         # all are avoided: any may be back
        second = <Endpoint>self.endpoints[self.context.random() % <size_t>count]
        if second.load.active + 1 < first.load.active and not second.is_avoided() and second is not but:
            return second
        return first

    def move(self, size_t address):
        """A call whose endpoint could not be reached: True if it waits for another one now."""
        cdef Call* call = <Call*>address
        cdef Endpoint failed = <Endpoint>call.endpoint
        cdef Endpoint other
        if call.attempts + 1 >= ATTEMPTS_MAX:
            return False
        other = self.next_endpoint(failed)
        if other is None or other is failed or other.is_avoided():
            return False
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
        if other is None or other.is_avoided():
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
