# hpack_encoder_table.pxd: the dynamic table at the peer as our encoder knows it (RFC 7541 §2.3.2), found by
# hash. No wire format.
#
# Entries are known by the number of their insertion, 1 for the first. Chains link newer to older insertions, so
# that eviction, oldest first, needs no unlinking: a link to an evicted insertion is where a chain ends.
# A zeroed table with max_size set is a valid empty one and holds no memory.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from ..field cimport Field
from .entry_memory cimport Chunk, EntryMemory

cdef struct EncoderEntry:
    const uint8_t* octets        # name, then value
    Chunk* chunk
    uint64_t older_same_hash     # the insertion before it in the same chain; not above `evictions`: the chain ends
    uint64_t older_same_name
    uint32_t hash
    uint32_t name_hash
    uint32_t name_length
    uint32_t value_length

cdef struct EncoderTable:
    EncoderEntry* ring           # the entry added as the i-th is at [i & mask]
    uint64_t* newest_by_hash     # of each chain, mask + 1 of them
    uint64_t* newest_by_name     # likewise
    uint32_t mask
    uint32_t size
    uint32_t max_size
    uint64_t insertions          # entries ever added: the number of the newest one
    uint64_t evictions           # entries ever evicted: those above it are in the table
    EntryMemory memory

# The number of the insertion, or 0: not found.
cdef uint64_t find_encoded(const EncoderTable* self, const Field* field, uint32_t hash) noexcept
cdef uint64_t find_encoded_name(const EncoderTable* self, const Field* field, uint64_t name_hash) noexcept
# Adds a field that is not larger than the table.
cdef int add_encoded(EncoderTable* self, const Field* field, uint64_t name_hash, uint32_t hash) except -1
cdef void resize_encoder_table(EncoderTable* self, uint32_t max_size) noexcept
cdef void free_encoder_table(EncoderTable* self) noexcept
