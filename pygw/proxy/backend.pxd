# backend.pxd: a Service port: its Endpoints, and which of them gets the next call. No connections, no routes.

from libc.stdint cimport uint64_t
from .call_record cimport Call
from .context cimport Context
from .endpoint cimport Endpoint

cdef class Backend:
    cdef:
        Context context
        readonly str key                     # "namespace/name:port"
        readonly list endpoints
        public object tls                    # tls.UpstreamTls of its endpoints; None: cleartext
        Py_ssize_t turn
        bint panic                           # as of panic_at_us
        uint64_t panic_at_us

    # The endpoint of the next call; None: there is none. `but`: one that was tried already.
    cdef Endpoint next_endpoint(self, Endpoint but=*)

    # ===== private =====
    cdef Endpoint next_fit(self, Endpoint but)
    cdef bint is_panic(self) noexcept
