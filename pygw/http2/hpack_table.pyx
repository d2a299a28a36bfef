# hpack_table.pyx: the tables of HPACK (RFC 7541 §2.3) and what is known of field names. See hpack_table.pxd.
#
# The static table and the lookup tables are built at import from the lists below, and never change after.
#
# (The check takes differences of pointers for sums of integers, and hashes that wrap for mistakes.)
# cython: overflowcheck=False

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from ..field cimport (
    FIELD_BAD_NAME,
    FIELD_BAD_VALUE,
    FIELD_INDEXED,
    TOKEN_AUTHORITY,
    TOKEN_CONNECTION,
    TOKEN_CONTENT_LENGTH,
    TOKEN_CONTENT_TYPE,
    TOKEN_COOKIE,
    TOKEN_GRPC_ENCODING,
    TOKEN_GRPC_MESSAGE,
    TOKEN_GRPC_STATUS,
    TOKEN_GRPC_TIMEOUT,
    TOKEN_HOST,
    TOKEN_KEEP_ALIVE,
    TOKEN_METHOD,
    TOKEN_OTHER,
    TOKEN_PATH,
    TOKEN_PROTOCOL,
    TOKEN_PROXY_CONNECTION,
    TOKEN_SCHEME,
    TOKEN_STATUS,
    TOKEN_TE,
    TOKEN_TRANSFER_ENCODING,
    TOKEN_UNKNOWN_PSEUDO,
    TOKEN_UPGRADE,
    TOKEN_USER_AGENT,
    TOKEN_X_FORWARDED_FOR,
    TOKEN_X_FORWARDED_PROTO,
    Field,
)
from .entry_memory cimport free_memory, free_retired, retire_before, take_memory

# The names that have a Token; the only place that spells them.
cdef tuple TOKENS = (
    (b":authority", TOKEN_AUTHORITY),
    (b":method", TOKEN_METHOD),
    (b":path", TOKEN_PATH),
    (b":scheme", TOKEN_SCHEME),
    (b":status", TOKEN_STATUS),
    (b":protocol", TOKEN_PROTOCOL),
    (b"connection", TOKEN_CONNECTION),
    (b"keep-alive", TOKEN_KEEP_ALIVE),
    (b"proxy-connection", TOKEN_PROXY_CONNECTION),
    (b"transfer-encoding", TOKEN_TRANSFER_ENCODING),
    (b"upgrade", TOKEN_UPGRADE),
    (b"te", TOKEN_TE),
    (b"host", TOKEN_HOST),
    (b"content-length", TOKEN_CONTENT_LENGTH),
    (b"content-type", TOKEN_CONTENT_TYPE),
    (b"grpc-timeout", TOKEN_GRPC_TIMEOUT),
    (b"grpc-status", TOKEN_GRPC_STATUS),
    (b"grpc-message", TOKEN_GRPC_MESSAGE),
    (b"grpc-encoding", TOKEN_GRPC_ENCODING),
    (b"x-forwarded-for", TOKEN_X_FORWARDED_FOR),
    (b"x-forwarded-proto", TOKEN_X_FORWARDED_PROTO),
    (b"user-agent", TOKEN_USER_AGENT),
    (b"cookie", TOKEN_COOKIE),
)

# RFC 7541 Appendix A.
cdef tuple STATIC_TABLE = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)

cdef enum:
    TOKEN_SLOTS = 64             # open addressing, less than half full, as are the two below
    STATIC_SLOTS = 128
    RING_FIRST_CAPACITY = 16

cdef struct TokenSlot:
    const uint8_t* name          # NULL: empty
    uint8_t length
    uint16_t token

cdef TokenSlot TOKEN_TABLE[TOKEN_SLOTS]
cdef Field STATIC_FIELDS[STATIC_COUNT + 1]
cdef uint8_t STATIC_BY_HASH[STATIC_SLOTS]        # an index; 0: empty
cdef uint8_t STATIC_BY_NAME[STATIC_SLOTS]
cdef uint8_t NAME_OCTET[256]                     # 1: allowed in a field name


# ===== names and values =====

cdef inline uint32_t token_slot(const uint8_t* name, Py_ssize_t length) noexcept:
    return <uint32_t>(length * 5 + name[0] * 3 + name[length - 1]) & (TOKEN_SLOTS - 1)


cdef uint16_t token_of(const uint8_t* name, Py_ssize_t length) noexcept:
    cdef uint32_t slot
    if length == 0:
        return TOKEN_OTHER
    slot = token_slot(name, length)
    while TOKEN_TABLE[slot].name != NULL:
        if TOKEN_TABLE[slot].length == length and memcmp(TOKEN_TABLE[slot].name, name, length) == 0:
            return TOKEN_TABLE[slot].token
        slot = (slot + 1) & (TOKEN_SLOTS - 1)
    return TOKEN_UNKNOWN_PSEUDO if name[0] == b":" else TOKEN_OTHER


# RFC 9113 §8.2.1: a token of RFC 9110 §5.6.2 in lower case, with one ':' before it in pseudo-header fields.
cdef uint8_t classify_name(const uint8_t* name, Py_ssize_t length, uint16_t* token) noexcept:
    cdef Py_ssize_t i, start = 0
    cdef uint8_t allowed = 1
    token[0] = token_of(name, length)
    if length > 0 and name[0] == b":":
        start = 1
    for i in range(start, length):
        allowed &= NAME_OCTET[name[i]]
    return 0 if allowed and length > start else FIELD_BAD_NAME


cdef inline uint64_t load(const uint8_t* p) noexcept:
    cdef uint64_t word
    memcpy(&word, p, 8)
    return word


cdef inline uint32_t load4(const uint8_t* p) noexcept:
    cdef uint32_t word
    memcpy(&word, p, 4)
    return word


# Not 0 if and only if an octet of `word` is 0.
cdef inline uint64_t zero_octets(uint64_t word) noexcept:
    return (word - <uint64_t>0x0101010101010101) & ~word & <uint64_t>0x8080808080808080


cdef inline bint is_blank(uint8_t octet) noexcept:
    return octet == b" " or octet == b"\t"


# RFC 9113 §8.2.1: no NUL, CR, LF anywhere; no blank first or last.
cdef uint8_t classify_value(const uint8_t* value, Py_ssize_t length) noexcept:
    cdef Py_ssize_t i = 0
    cdef uint64_t word, found = 0
    if length == 0:
        return 0
    if is_blank(value[0]) or is_blank(value[length - 1]):
        return FIELD_BAD_VALUE
    while length - i >= 8:
        word = load(value + i)
        found |= (
            zero_octets(word)
            | zero_octets(word ^ <uint64_t>0x0d0d0d0d0d0d0d0d)
            | zero_octets(word ^ <uint64_t>0x0a0a0a0a0a0a0a0a)
        )
        i += 8
    while i < length:
        if value[i] == 0 or value[i] == b"\r" or value[i] == b"\n":
            return FIELD_BAD_VALUE
        i += 1
    return FIELD_BAD_VALUE if found else 0


# ===== hashes =====

cdef inline uint64_t mix(uint64_t state, uint64_t word) noexcept:
    state = (state ^ word) * <uint64_t>0x9e3779b97f4a7c15
    return state ^ (state >> 32)


# 1 to 7 octets as a number. Not by memcpy of a variable length: that costs ten times as much.
cdef inline uint64_t load_few(const uint8_t* p, Py_ssize_t length) noexcept:
    if length >= 4:
        return <uint64_t>load4(p) << 32 | load4(p + length - 4)
    return <uint64_t>p[0] << 16 | <uint64_t>p[length >> 1] << 8 | p[length - 1]


cdef inline uint64_t hash_octets(uint64_t state, const uint8_t* p, Py_ssize_t length) noexcept:
    state = mix(state, <uint64_t>length)
    while length >= 8:
        state = mix(state, load(p))
        p += 8
        length -= 8
    if length > 0:
        state = mix(state, load_few(p, length))
    return state


cdef uint64_t hash_name(const uint8_t* name, Py_ssize_t length) noexcept:
    return hash_octets(0, name, length)


cdef uint32_t hash_value(uint64_t name_hash, const uint8_t* value, Py_ssize_t length) noexcept:
    cdef uint32_t hash = <uint32_t>hash_octets(name_hash, value, length)
    return hash if hash else 1


cdef uint32_t hash_field(
    const uint8_t* name, Py_ssize_t name_length, const uint8_t* value, Py_ssize_t value_length
) noexcept:
    return hash_value(hash_name(name, name_length), value, value_length)


# ===== the static table =====

cdef const Field* static_fields() noexcept:
    return STATIC_FIELDS


cdef uint32_t find_static(
    uint32_t hash, const uint8_t* name, uint32_t name_length, const uint8_t* value, uint32_t value_length
) noexcept:
    cdef uint32_t slot = hash & (STATIC_SLOTS - 1)
    cdef const Field* field
    while STATIC_BY_HASH[slot]:
        field = &STATIC_FIELDS[STATIC_BY_HASH[slot]]
        if (
            field.hash == hash
            and field.name_length == name_length
            and field.value_length == value_length
            and memcmp(field.name, name, name_length) == 0
            and memcmp(field.value, value, value_length) == 0
        ):
            return STATIC_BY_HASH[slot]
        slot = (slot + 1) & (STATIC_SLOTS - 1)
    return 0


cdef uint32_t find_static_name(uint64_t name_hash, const uint8_t* name, uint32_t name_length) noexcept:
    cdef uint32_t slot = <uint32_t>name_hash & (STATIC_SLOTS - 1)
    cdef const Field* field
    while STATIC_BY_NAME[slot]:
        field = &STATIC_FIELDS[STATIC_BY_NAME[slot]]
        if field.name_length == name_length and memcmp(field.name, name, name_length) == 0:
            return STATIC_BY_NAME[slot]
        slot = (slot + 1) & (STATIC_SLOTS - 1)
    return 0


# ===== the dynamic table of a decoder =====

cdef int add_decoded(DecoderTable* self, Field* field) except -1:
    cdef uint64_t size = <uint64_t>field.name_length + field.value_length + ENTRY_OVERHEAD
    cdef DecoderEntry* entry
    cdef uint8_t* octets
    if size > self.max_size:
        # §4.4: not an error, it empties the table.
        evict_down_to(self, 0)
        return 0
    evict_down_to(self, self.max_size - <uint32_t>size)
    if self.ring == NULL or self.count > self.mask:
        grow_ring(self)
    entry = <DecoderEntry*>take_memory(
        &self.memory, sizeof(DecoderEntry) + field.name_length + field.value_length
    )
    octets = <uint8_t*>(entry + 1)
    # Before the copy: to read at once what was just written would stall.
    field.hash = hash_field(field.name, field.name_length, field.value, field.value_length)
    field.static_index = <uint8_t>find_static(
        field.hash, field.name, field.name_length, field.value, field.value_length
    )
    memcpy(octets, field.name, field.name_length)
    memcpy(octets + field.name_length, field.value, field.value_length)
    field.name = octets
    field.value = octets + field.name_length
    field.memo = &entry.memo
    # The field goes on as it came; the entry is what a reference to it will be.
    entry.field.name = field.name
    entry.field.value = field.value
    entry.field.name_length = field.name_length
    entry.field.value_length = field.value_length
    entry.field.hash = field.hash
    entry.field.token = field.token
    entry.field.flags = field.flags & (FIELD_BAD_NAME | FIELD_BAD_VALUE) | FIELD_INDEXED
    entry.field.static_index = field.static_index
    entry.field.memo = field.memo
    entry.memo.encoder = 0
    entry.chunk = self.memory.last
    self.insertions += 1
    self.ring[self.insertions & self.mask] = entry
    self.count += 1
    self.size += <uint32_t>size
    retire_before(&self.memory, self.ring[(self.insertions - self.count + 1) & self.mask].chunk)
    return 1


cdef void resize_decoder_table(DecoderTable* self, uint32_t max_size) noexcept:
    self.max_size = max_size
    evict_down_to(self, max_size)


cdef void end_borrowing(DecoderTable* self) noexcept:
    if self.count == 0:
        free_memory(&self.memory)
        return
    retire_before(&self.memory, self.ring[(self.insertions - self.count + 1) & self.mask].chunk)
    free_retired(&self.memory)


cdef void free_decoder_table(DecoderTable* self) noexcept:
    free(self.ring)
    self.ring = NULL
    self.count = 0
    free_memory(&self.memory)


cdef inline void evict_down_to(DecoderTable* self, uint32_t size) noexcept:
    cdef const DecoderEntry* oldest
    while self.size > size:
        oldest = self.ring[(self.insertions - self.count + 1) & self.mask]
        self.size -= oldest.field.name_length + oldest.field.value_length + ENTRY_OVERHEAD
        self.count -= 1


# Doubles the capacity. The number of entries is bounded by max_size, each has ENTRY_OVERHEAD.
cdef int grow_ring(DecoderTable* self) except -1:
    cdef uint32_t capacity = RING_FIRST_CAPACITY if self.ring == NULL else (self.mask + 1) * 2
    cdef DecoderEntry** ring = <DecoderEntry**>malloc(capacity * sizeof(DecoderEntry*))
    cdef uint32_t age, number
    if ring == NULL:
        raise MemoryError()
    for age in range(self.count):
        number = self.insertions - age
        ring[number & (capacity - 1)] = self.ring[number & self.mask]
    free(self.ring)
    self.ring = ring
    self.mask = capacity - 1
    return 0


# ===== the lookup tables =====

cdef int build_names() except -1:
    cdef uint32_t slot
    for octet in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz":
        NAME_OCTET[octet] = 1
    for name, token in TOKENS:
        slot = token_slot(<const uint8_t*><bytes>name, len(name))
        while TOKEN_TABLE[slot].name != NULL:
            slot = (slot + 1) & (TOKEN_SLOTS - 1)
        TOKEN_TABLE[slot].name = <const uint8_t*><bytes>name
        TOKEN_TABLE[slot].length = <uint8_t>len(name)
        TOKEN_TABLE[slot].token = token
    return 0


cdef int build_static_table() except -1:
    cdef Field* field
    cdef uint32_t slot, index
    cdef uint64_t name_hash
    memset(STATIC_FIELDS, 0, sizeof(STATIC_FIELDS))
    for index in range(1, STATIC_COUNT + 1):
        name, value = STATIC_TABLE[index - 1]
        field = &STATIC_FIELDS[index]
        field.name = <const uint8_t*><bytes>name
        field.name_length = <uint32_t>len(name)
        field.value = <const uint8_t*><bytes>value
        field.value_length = <uint32_t>len(value)
        field.token = token_of(field.name, field.name_length)
        field.flags = FIELD_INDEXED
        field.static_index = <uint8_t>index
        name_hash = hash_name(field.name, field.name_length)
        field.hash = hash_value(name_hash, field.value, field.value_length)
        slot = field.hash & (STATIC_SLOTS - 1)
        while STATIC_BY_HASH[slot]:
            slot = (slot + 1) & (STATIC_SLOTS - 1)
        STATIC_BY_HASH[slot] = <uint8_t>index
        if find_static_name(name_hash, field.name, field.name_length) == 0:
            slot = <uint32_t>name_hash & (STATIC_SLOTS - 1)
            while STATIC_BY_NAME[slot]:
                slot = (slot + 1) & (STATIC_SLOTS - 1)
            STATIC_BY_NAME[slot] = <uint8_t>index
    return 0


build_names()
build_static_table()
