# hpack_table.pxd: the tables of HPACK (RFC 7541 §2.3) and what is known of field names. No wire format.
# (The dynamic table of an encoder has other needs: hpack_encoder_table.pxd.)
#
# * The static table (Appendix A), found by index, by hash of the pair, by hash of the name.
# * DecoderTable: what a peer's encoder put into its dynamic table, each entry a Field classified once.
# * Classification of names and values: Token, and the octets that RFC 9113 §8.2.1 refuses.
#
# A zeroed table with max_size set is a valid empty one and holds no memory.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from ..field cimport Field, FieldMemo
from .entry_memory cimport Chunk, EntryMemory

cdef enum:
    STATIC_COUNT = 61
    FIRST_DYNAMIC_INDEX = 62
    ENTRY_OVERHEAD = 32          # RFC 7541 §4.1, and RFC 9113 §6.5.2 for header lists
    DEFAULT_TABLE_SIZE = 4096    # RFC 9113 §6.5.2: what holds until SETTINGS say otherwise

# ===== names and values =====

cdef uint16_t token_of(const uint8_t* name, Py_ssize_t length) noexcept
# FIELD_BAD_NAME or 0, and the Token.
cdef uint8_t classify_name(const uint8_t* name, Py_ssize_t length, uint16_t* token) noexcept
# FIELD_BAD_VALUE or 0.
cdef uint8_t classify_value(const uint8_t* value, Py_ssize_t length) noexcept

# Not kept, not sent, and no defence against collisions: whoever looks up by it has a budget.
cdef uint64_t hash_name(const uint8_t* name, Py_ssize_t length) noexcept
# Of the pair, from hash_name() of its name; never 0.
cdef uint32_t hash_value(uint64_t name_hash, const uint8_t* value, Py_ssize_t length) noexcept
cdef uint32_t hash_field(
    const uint8_t* name, Py_ssize_t name_length, const uint8_t* value, Py_ssize_t value_length
) noexcept

# ===== the static table =====

cdef const Field* static_fields() noexcept       # [1] to [61]
# 0: not there.
cdef uint32_t find_static(
    uint32_t hash, const uint8_t* name, uint32_t name_length, const uint8_t* value, uint32_t value_length
) noexcept
cdef uint32_t find_static_name(uint64_t name_hash, const uint8_t* name, uint32_t name_length) noexcept

# ===== the dynamic table of a decoder =====

cdef struct DecoderEntry:        # its octets, name and value, follow
    Field field
    FieldMemo memo
    Chunk* chunk

cdef struct DecoderTable:
    const Field* static_fields
    DecoderEntry** ring          # the entry added as the i-th is at [i & mask]
    uint32_t mask                # capacity - 1, a power of two; the ring is NULL until the first insertion
    uint32_t insertions          # entries ever added (wraps: only differences and `& mask` are used)
    uint32_t count
    uint32_t size                # §4.1
    uint32_t max_size            # §4.2, as the peer's encoder set it
    EntryMemory memory

# The field at `index` of the one address space of both tables (§2.3.3), or NULL.
cdef inline const Field* field_at(const DecoderTable* self, uint32_t index) noexcept:
    cdef uint32_t age
    if index < FIRST_DYNAMIC_INDEX:
        return self.static_fields + index if index else NULL
    age = index - FIRST_DYNAMIC_INDEX
    if age >= self.count:
        return NULL
    return &self.ring[(self.insertions - age) & self.mask].field

# Adds a copy of `field` (§4.4), evicting as needed, and makes `field` borrow the copy. 1: added; 0: it is
# larger than the table, which is empty now, and `field` is as it was. Evicted octets live until end_borrowing().
cdef int add_decoded(DecoderTable* self, Field* field) except -1
cdef void resize_decoder_table(DecoderTable* self, uint32_t max_size) noexcept
# No Field points into evicted entries any more.
cdef void end_borrowing(DecoderTable* self) noexcept
cdef void free_decoder_table(DecoderTable* self) noexcept
