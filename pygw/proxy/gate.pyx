# gate.pyx: what the client connections of one worker share, and their limits. See gate.pxd.

import logging
import resource

from libc.stdint cimport uint64_t

from .call_metrics cimport LIMIT_DESCRIPTOR_RESERVE, LIMIT_MAX_CONNECTIONS, LIMIT_MAX_CONNECTIONS_PER_ADDRESS
from .client_address cimport Address
from .context cimport Context

logger = logging.getLogger(__name__)

cdef enum:
    WARN_PERIOD_US = 60_000_000      # between two lines that say we are full
    IPV4_KEY = 4                     # octets of an address that tell one client from another
    IPV6_KEY = 8                     # a /64: what a single host is given (RFC 6177, RFC 7084)


cdef class Gate:

    def __cinit__(self, Context context, trusted, proxy_senders):
        self.context = context
        self.trusted = trusted
        self.proxy_senders = proxy_senders
        self.connections = set()
        self.by_address = {}
        settings = context.settings
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if descriptors == resource.RLIM_INFINITY:
            descriptors = 2**30
        # A quarter at most: with the usual 1,024 there must be something left for clients.
        self.descriptor_limit = descriptors - min(settings.descriptor_reserve, descriptors // 4)
        self.max_connections = settings.max_connections or self.descriptor_limit
        self.max_per_address = settings.max_connections_per_address

    cdef bint enter(self, object connection, int descriptor) except -1:
        cdef Py_ssize_t count
        self.connections.add(connection)
        count = len(self.connections)
        if descriptor >= self.descriptor_limit:
            self.fill(<int>LIMIT_DESCRIPTOR_RESERVE, count - 1)
            return False
        if count >= self.max_connections:
            self.fill(<int>LIMIT_MAX_CONNECTIONS, count)
            # Those that were accepted in the same loop turn.
            return count == self.max_connections
        return True

    cdef int fill(self, int limit, Py_ssize_t count) except -1:
        cdef uint64_t now = self.context.time_us()
        self.context.counters.limit_hits[limit] += 1
        if self.is_full:
            return 0
        self.is_full = True
        # Not at the first that ends, lest the listening sockets are closed and opened for every single one.
        self.resume_at = count - max(1, count // 64)
        if now - self.warned_us >= WARN_PERIOD_US:
            self.warned_us = now
            name = "max_connections" if limit == LIMIT_MAX_CONNECTIONS else "descriptor_reserve"
            logger.warning("no more client connections are accepted until some end",
                           extra={"limit": name, "connections": count})
        if self.on_accepting is not None:
            self.on_accepting(False)
        return 0

    cdef int leave(self, object connection) except -1:
        self.connections.discard(connection)
        if self.is_full and len(self.connections) <= self.resume_at:
            self.reopen()
        return 0

    def reopen(self):
        """There may be room: accept again. Where descriptors are still short, the next connection shows it."""
        if self.is_full and len(self.connections) < self.max_connections:
            self.is_full = False
            if self.on_accepting is not None:
                self.on_accepting(True)

    cdef bytes count_address(self, const Address* address):
        cdef bytes key = address.octets[:IPV4_KEY if address.family == 4 else IPV6_KEY]
        cdef Py_ssize_t count = self.by_address.get(key, 0)
        if count >= self.max_per_address:
            self.context.counters.limit_hits[<int>LIMIT_MAX_CONNECTIONS_PER_ADDRESS] += 1
            return None
        self.by_address[key] = count + 1
        return key

    cdef int forget_address(self, bytes key) except -1:
        cdef Py_ssize_t count = self.by_address[key] - 1
        if count > 0:
            self.by_address[key] = count
        else:
            del self.by_address[key]
        return 0
