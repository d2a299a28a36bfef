"""Names of backends to addresses, kept fresh: each name is asked for again as its records expire.

Where addresses come from, in this order: the name is an address; /etc/hosts; the name servers of
/etc/resolv.conf with its search domains, through dnspython, because only a DNS answer has a TTL; and getaddrinfo,
asked every FALLBACK_TTL seconds, for what only the system's other name services know (nsswitch.conf).
IPv4 addresses are used where a name has any, otherwise its IPv6 addresses: an endpoint is one address, and one of
a family that this network does not carry would fail its share of the calls.

A failed look-up keeps the last good answer. Knows nothing of Services, workers or the image.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver

from pygw.model import BackendConfig

log = logging.getLogger(__name__)

MIN_TTL, MAX_TTL = 1.0, 600.0  # seconds; what records say is kept within these
JITTER = 0.1  # of the TTL, added at random, so that many names are not asked for in one instant
HOSTS_TTL = 2.0  # seconds until /etc/hosts is looked at again
FALLBACK_TTL = 30.0  # seconds, where an answer has no TTL
RETRY_DELAYS = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds after failures in a row, jittered too
LOOKUP_TIMEOUT = 5.0  # seconds for one look-up, all name servers tried
MAX_LOOKUPS = 16  # at a time
MAX_ADDRESSES = 1000  # of one name; more are left out and said so


@dataclass(frozen=True, slots=True)
class Answer:
    """Addresses of a name, sorted, and for how many seconds they are good."""

    addresses: tuple[str, ...]
    ttl: float


class LookupFailedError(Exception):
    """No answer; `is_absent` where the answer is that there is no such name."""

    def __init__(self, message: str, is_absent: bool = False) -> None:
        super().__init__(message)
        self.is_absent = is_absent


Lookup = Callable[[str], Awaitable[Answer]]


@dataclass(slots=True)
class WatchedName:
    """What is known of one name."""

    host: str
    addresses: tuple[str, ...] = ()  # of the last good answer
    ttl: float = 0.0
    error: str = ""  # of the last look-up; "": it went well
    is_absent: bool = False
    failures: int = 0  # in a row
    task: asyncio.Task[None] | None = None


class Names:
    """Watches a changing set of names. `on_change(host)` is called when the addresses of a name changed."""

    def __init__(
        self,
        lookup: Lookup,
        on_change: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._lookup = lookup
        self._on_change = on_change
        self._sleep = sleep
        self._jitter = jitter
        self._names: dict[str, WatchedName] = {}
        self._places = asyncio.Semaphore(MAX_LOOKUPS)
        self._tried = asyncio.Condition()

    def watch(self, hosts: Iterable[str]) -> None:
        """Watch these names and no others; addresses are no names."""
        wanted = {host for host in hosts if not is_address(host)}
        for host in self._names.keys() - wanted:
            self._forget(self._names.pop(host))
        for host in wanted - self._names.keys():
            name = self._names[host] = WatchedName(host)
            name.task = asyncio.create_task(self._keep_fresh(name), name=f"dns {host}")

    async def settle(self, hosts: Iterable[str]) -> None:
        """Wait until each of these names was tried once."""

        def all_tried() -> bool:
            names = [self._names[host] for host in hosts if host in self._names]
            return all(name.addresses or name.failures for name in names)

        async with self._tried:
            await self._tried.wait_for(all_tried)

    def endpoints(self, backend: BackendConfig) -> tuple[tuple[str, int], ...]:
        """The endpoints of a backend: its own, else the addresses of the first of its names that has any."""
        if backend.endpoints or not backend.dns:
            return backend.endpoints
        stale: tuple[tuple[str, int], ...] = ()
        for host, port in backend.dns:
            if is_address(host):
                return ((str(ipaddress.ip_address(host)), port),)
            name = self._names.get(host)
            if name is not None and name.addresses:
                found = tuple((address, port) for address in name.addresses)
                if not name.is_absent:
                    return found
                stale = stale or found
        return stale

    def states(self) -> list[dict[str, object]]:
        """What /endpoints shows of the names."""
        return [
            {"host": name.host, "addresses": list(name.addresses), "ttl": name.ttl, "error": name.error or None}
            for _, name in sorted(self._names.items())
        ]

    def close(self) -> None:
        """Watch nothing any more."""
        self.watch(())

    def _forget(self, name: WatchedName) -> None:
        if name.task is not None:
            name.task.cancel()

    async def _keep_fresh(self, name: WatchedName) -> None:
        while True:
            async with self._places:
                delay = await self._refresh(name)
            async with self._tried:
                self._tried.notify_all()
            await self._sleep(delay * (1 + JITTER * self._jitter()))

    async def _refresh(self, name: WatchedName) -> float:
        """One look-up; the seconds until the next."""
        try:
            answer = await self._lookup(name.host)
        except LookupFailedError as error:
            if not name.failures or str(error) != name.error:
                log.warning("cannot resolve a backend's name", extra={"host": name.host, "reason": str(error)})
            name.error, name.is_absent = str(error), error.is_absent
            name.failures += 1
            if name.addresses and name.is_absent:
                self._on_change(name.host)  # another name of the same backend may have an answer
            return RETRY_DELAYS[min(name.failures, len(RETRY_DELAYS)) - 1]
        if name.failures and name.addresses:
            log.info("a backend's name resolves again", extra={"host": name.host})
        addresses = answer.addresses[:MAX_ADDRESSES]
        has_changed = addresses != name.addresses or name.is_absent
        name.addresses, name.ttl = addresses, answer.ttl
        name.error, name.is_absent, name.failures = "", False, 0
        if has_changed:
            if len(answer.addresses) > MAX_ADDRESSES:
                log.warning("a name has too many addresses", extra={"host": name.host, "used": MAX_ADDRESSES})
            self._on_change(name.host)
        return min(max(answer.ttl, MIN_TTL), MAX_TTL)


class SystemLookup:
    """Looks names up as this machine is set up to; its files are read again when they change."""

    def __init__(
        self,
        hosts_file: str = "/etc/hosts",
        resolv_conf: str = "/etc/resolv.conf",
        resolver: dns.asyncresolver.Resolver | None = None,
    ) -> None:
        """A resolver given here is used as it is."""
        self._hosts_file, self._resolv_conf = hosts_file, resolv_conf
        self._hosts: dict[str, list[str]] = {}
        self._resolver = resolver
        self._has_own_resolver = resolver is None
        self._stamps: dict[str, tuple[int, int] | None] = {}

    async def __call__(self, host: str) -> Answer:
        """The addresses of a name. Raises LookupFailedError."""
        self._read_files()
        plain = host.rstrip(".").lower()
        addresses = preferred(self._hosts.get(plain, []))
        if not addresses and plain == "localhost":  # RFC 6761 §6.3
            addresses = ("127.0.0.1",)
        if addresses:
            return Answer(addresses, HOSTS_TTL)
        try:
            return await self._ask_name_servers(host)
        except LookupFailedError as failure:
            try:
                return await _ask_system(host)
            except (OSError, UnicodeError):
                raise failure from None

    def _read_files(self) -> None:
        if self._has_changed(self._hosts_file):
            self._hosts = {}
            with contextlib.suppress(OSError), open(self._hosts_file, encoding="utf-8", errors="replace") as file:
                self._hosts = parse_hosts(file)
        if self._has_own_resolver and self._has_changed(self._resolv_conf):
            self._resolver = None
            with contextlib.suppress(dns.exception.DNSException, OSError, ValueError):
                self._resolver = dns.asyncresolver.Resolver(self._resolv_conf)

    def _has_changed(self, path: str) -> bool:
        stamp = None
        with contextlib.suppress(OSError):
            status = os.stat(path)
            stamp = (status.st_mtime_ns, status.st_size)
        has_changed = path not in self._stamps or self._stamps[path] != stamp
        self._stamps[path] = stamp
        return has_changed

    async def _ask_name_servers(self, host: str) -> Answer:
        if self._resolver is None:
            raise LookupFailedError("no name server is configured")
        failure = LookupFailedError("no address", is_absent=True)
        for record_type in ("A", "AAAA"):
            try:
                answer = await self._resolver.resolve(host, record_type, search=True, lifetime=LOOKUP_TIMEOUT)
            except dns.resolver.NXDOMAIN:
                raise LookupFailedError("no such name", is_absent=True) from None
            except dns.resolver.NoAnswer:
                continue
            except (dns.exception.DNSException, OSError, ValueError) as error:
                raise LookupFailedError(_one_line(error)) from None
            if answer.rrset:
                addresses = preferred(record.to_text() for record in answer.rrset)
                return Answer(addresses, float(answer.rrset.ttl))
        raise failure


async def _ask_system(host: str) -> Answer:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LOOKUP_TIMEOUT):
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return Answer(preferred(str(entry[4][0]).partition("%")[0] for entry in found), FALLBACK_TTL)


def parse_hosts(lines: Iterable[str]) -> dict[str, list[str]]:
    """Names to addresses, as hosts(5) has them; what is no address is left out."""
    hosts: dict[str, list[str]] = {}
    for line in lines:
        words = line.partition("#")[0].split()
        if len(words) > 1 and is_address(words[0]):
            for name in words[1:]:
                hosts.setdefault(name.rstrip(".").lower(), []).append(words[0])
    return hosts


def preferred(addresses: Iterable[str]) -> tuple[str, ...]:
    """The IPv4 addresses where there are any, else the IPv6 ones; sorted, each once."""
    parsed = {ipaddress.ip_address(address) for address in addresses if is_address(address)}
    version = 4 if any(address.version == 4 for address in parsed) else 6
    chosen = sorted((address for address in parsed if address.version == version), key=int)
    return tuple(map(str, chosen))


def is_address(host: str) -> bool:
    """Whether this is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
