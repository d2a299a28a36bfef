# client_address.pyx: trusted proxies, x-forwarded-for and x-forwarded-proto. See client_address.pxd.
#
# A value is read from its end, entry by entry, because only the last entries may be believed: how long a value a
# peer sends does not matter, the work ends with `hops` entries.

import ipaddress

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from ..field cimport TOKEN_X_FORWARDED_FOR, TOKEN_X_FORWARDED_PROTO, Field

cdef extern from "<arpa/inet.h>" nogil:
    enum: AF_INET
    enum: AF_INET6
    int inet_pton(int family, const char* text, void* out)
    const char* inet_ntop(int family, const void* address, char* out, unsigned int size)

cdef extern from "<string.h>" nogil:
    size_t strlen(const char* text)

cdef const char* V4_MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"   # RFC 4291 §2.5.5.2


cdef bint parse_address(const uint8_t* text, Py_ssize_t length, Address* out) noexcept:
    cdef char[ADDRESS_TEXT_MAX] copy
    cdef Py_ssize_t i, end = length
    cdef int family = AF_INET
    memset(out, 0, sizeof(Address))
    for i in range(length):
        if text[i] == 0:
            return False         # inet_pton would take what stands before it
        if text[i] == b":":
            family = AF_INET6
        elif text[i] == b"%" and family == AF_INET6:
            end = i              # RFC 4007 §11: a zone means something on this host only
            break
    if end <= 0 or end >= ADDRESS_TEXT_MAX:
        return False
    memcpy(copy, text, <size_t>end)
    copy[end] = 0
    if inet_pton(family, copy, out.octets) != 1:
        return False
    out.family = 4 if family == AF_INET else 6
    unmap(out)
    return True


cdef void unmap(Address* address) noexcept:
    if address.family == 6 and memcmp(address.octets, V4_MAPPED, 12) == 0:
        address.family = 4
        memcpy(address.octets, address.octets + 12, 4)
        memset(address.octets + 4, 0, 12)


cdef Py_ssize_t format_address(const Address* address, uint8_t* out) noexcept:
    if address.family == 0:
        return 0
    if inet_ntop(AF_INET if address.family == 4 else AF_INET6, address.octets, <char*>out, ADDRESS_TEXT_MAX) == NULL:
        return 0
    return <Py_ssize_t>strlen(<const char*>out)


cdef inline bint is_blank(uint8_t octet) noexcept:
    return octet == b" " or octet == b"\t"


# The end of `value` before `end`: its last entry is value[start:end] without blanks around; returns where the
# entry before it ends, -1 if there is none.
cdef Py_ssize_t last_entry(const uint8_t* value, Py_ssize_t* start, Py_ssize_t* end) noexcept:
    cdef Py_ssize_t before
    while end[0] > 0 and is_blank(value[end[0] - 1]):
        end[0] -= 1
    start[0] = end[0]
    while start[0] > 0 and value[start[0] - 1] != b",":
        start[0] -= 1
    before = start[0] - 1
    while start[0] < end[0] and is_blank(value[start[0]]):
        start[0] += 1
    return before


# The address in an entry: as it is, with ":port", or in brackets, as some proxies write it.
cdef const uint8_t* address_in(const uint8_t* entry, Py_ssize_t length, Py_ssize_t* address_length) noexcept:
    cdef Py_ssize_t i, colon = -1
    address_length[0] = length
    if length > 0 and entry[0] == b"[":
        for i in range(1, length):
            if entry[i] == b"]":
                address_length[0] = i - 1 if is_port(entry + i + 1, length - i - 1) else 0
                return entry + 1
        address_length[0] = 0
        return entry
    for i in range(length):
        if entry[i] == b":":
            if colon >= 0:
                return entry     # a second one: IPv6
            colon = i
    if colon >= 0 and is_port(entry + colon, length - colon):
        address_length[0] = colon
    return entry


# Nothing, or ":" and up to five digits.
cdef bint is_port(const uint8_t* text, Py_ssize_t length) noexcept:
    cdef Py_ssize_t i
    if length == 0:
        return True
    if text[0] != b":" or not 2 <= length <= 6:
        return False
    for i in range(1, length):
        if not b"0" <= text[i] <= b"9":
            return False
    return True


cdef const uint8_t* client_address(
    const uint8_t* forwarded_for, Py_ssize_t length, Py_ssize_t* client_length,
) noexcept:
    cdef Py_ssize_t i
    for i in range(length):
        if forwarded_for[i] == b",":
            length = i
            break
    return address_in(forwarded_for, length, client_length)


cdef class TrustedProxies:

    def __cinit__(self, networks=(), int hops=1):
        cdef Py_ssize_t i
        cdef bytes octets
        cdef list parsed = [parse_network(network) for network in networks]
        if hops < 0:
            raise ValueError(f"the number of trusted proxies must be 0 or more, not {hops}")
        self.hops = hops
        self.networks = <Network*>calloc(len(parsed) + 1, sizeof(Network))
        if self.networks == NULL:
            raise MemoryError()
        self.network_count = len(parsed)
        for i in range(self.network_count):
            octets = parsed[i].network_address.packed
            self.networks[i].family = parsed[i].version
            self.networks[i].prefix = parsed[i].prefixlen
            memcpy(self.networks[i].octets, <const uint8_t*>octets, <size_t>len(octets))

    def __dealloc__(self):
        free(self.networks)

    cdef bint is_trusted(self, const Address* address) noexcept:
        cdef Py_ssize_t i
        cdef Network* network
        for i in range(self.network_count):
            network = self.networks + i
            if network.family == address.family and in_network(network, address):
                return True
        return False

    cdef Py_ssize_t forwarded_for(
        self, const uint8_t* peer, Py_ssize_t peer_length, bint trusted, const Field* fields, Py_ssize_t count,
        uint8_t* out, Py_ssize_t capacity,
    ) noexcept:
        cdef Py_ssize_t start = capacity, length
        cdef Entries entries
        # Written from the end of `out` towards its beginning, as the entries are read.
        if peer_length > capacity:
            return 0             # what does not end with the peer would name another one
        if peer_length > 0:
            start -= peer_length
            memcpy(out + start, peer, <size_t>peer_length)
        if trusted:
            begin_entries(&entries, fields, count, TOKEN_X_FORWARDED_FOR)
            for _ in range(self.hops):
                if not next_entry(&entries) or not is_address(entries.entry, entries.length):
                    break
                length = entries.length + (2 if start < capacity else 0)
                if length > start:
                    break
                start -= length
                memcpy(out + start, entries.entry, <size_t>entries.length)
                if length > entries.length:
                    memcpy(out + start + entries.length, b", ", 2)
        length = capacity - start
        memmove(out, out + start, <size_t>length)
        return length

    cdef const char* forwarded_proto(
        self, bint peer_is_tls, bint trusted, const Field* fields, Py_ssize_t count,
    ) noexcept:
        cdef const char* known = b"https" if peer_is_tls else b"http"
        cdef const char* named
        cdef Entries entries
        if trusted:
            begin_entries(&entries, fields, count, TOKEN_X_FORWARDED_PROTO)
            for _ in range(self.hops):
                if not next_entry(&entries):
                    break
                named = scheme_of(entries.entry, entries.length)
                if named == NULL:
                    break
                known = named
        return known


# The comma-separated entries of all fields with one token, the last one first.
cdef struct Entries:
    const Field* fields
    Py_ssize_t place             # fields before this one are yet to come
    uint32_t token
    Py_ssize_t end               # what is left of fields[place]; -1: nothing
    const uint8_t* entry
    Py_ssize_t length


cdef void begin_entries(Entries* self, const Field* fields, Py_ssize_t count, uint32_t token) noexcept:
    self.fields = fields
    self.place = count
    self.token = token
    self.end = -1


# Empty entries are skipped (RFC 9110 §5.6.1.2).
cdef bint next_entry(Entries* self) noexcept:
    cdef const uint8_t* value
    cdef Py_ssize_t start, end
    while True:
        while self.end < 0:
            if self.place == 0:
                return False
            self.place -= 1
            if self.fields[self.place].token == self.token:
                self.end = self.fields[self.place].value_length
        value = self.fields[self.place].value
        end = self.end
        self.end = last_entry(value, &start, &end)
        if end > start:
            self.entry = value + start
            self.length = end - start
            return True


cdef bint is_address(const uint8_t* entry, Py_ssize_t length) noexcept:
    cdef Py_ssize_t address_length
    cdef Address address
    cdef const uint8_t* text
    if length > ADDRESS_TEXT_MAX + 8:    # "[" "]" ":65535"
        return False
    text = address_in(entry, length, &address_length)
    # A zone is of no use to anybody else, and what follows the "%" could be anything.
    return memchr(entry, b"%", <size_t>length) == NULL and parse_address(text, address_length, &address)


cdef const char* scheme_of(const uint8_t* entry, Py_ssize_t length) noexcept:
    cdef const char* https = b"https"
    cdef Py_ssize_t i
    if not 4 <= length <= 5:
        return NULL
    for i in range(length):
        if (entry[i] | 0x20) != <uint8_t>https[i]:
            return NULL
    return b"http" if length == 4 else b"https"


cdef bint in_network(const Network* network, const Address* address) noexcept:
    cdef int whole = network.prefix // 8, rest = network.prefix % 8
    if memcmp(network.octets, address.octets, <size_t>whole) != 0:
        return False
    return rest == 0 or (network.octets[whole] ^ address.octets[whole]) >> (8 - rest) == 0


def parse_network(text):
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a network: write an IP address or ADDRESS/PREFIX, for example 10.0.0.0/8"
        ) from None
    # As addresses are: ::ffff:10.0.0.0/104 means 10.0.0.0/8.
    mapped = network.version == 6 and network.prefixlen >= 96 and network.network_address.ipv4_mapped
    return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}") if mapped else network


# ===== for Python: tests =====

def normalize_address(bytes text):
    cdef Address address
    cdef uint8_t[ADDRESS_TEXT_MAX] out
    if not parse_address(<const uint8_t*>text, len(text), &address):
        return None
    return out[:format_address(&address, out)].decode()


def trusts(TrustedProxies proxies, bytes text):
    cdef Address address
    return bool(parse_address(<const uint8_t*>text, len(text), &address) and proxies.is_trusted(&address))


def forward(TrustedProxies proxies, bytes peer, bint trusted, fields, Py_ssize_t capacity=FORWARDED_FOR_MAX):
    cdef Py_ssize_t count = len(fields), length, client_length
    cdef Field* section = <Field*>calloc(count + 1, sizeof(Field))
    cdef uint8_t* out = <uint8_t*>calloc(capacity + 1, 1)
    cdef const uint8_t* client
    cdef dict tokens = {b"x-forwarded-for": TOKEN_X_FORWARDED_FOR, b"x-forwarded-proto": TOKEN_X_FORWARDED_PROTO}
    try:
        if section == NULL or out == NULL:
            raise MemoryError()
        for i, (name, value) in enumerate(fields):
            section[i].token = tokens.get(name, 0)
            section[i].value = <const uint8_t*>(<bytes>value)
            section[i].value_length = <uint32_t>len(value)
        length = proxies.forwarded_for(<const uint8_t*>peer, len(peer), trusted, section, count, out, capacity)
        client = client_address(out, length, &client_length)
        return (
            out[:length],
            client[:client_length],
            proxies.forwarded_proto(False, trusted, section, count).decode(),
        )
    finally:
        free(section)
        free(out)
