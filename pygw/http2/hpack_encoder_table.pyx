# hpack_encoder_table.pyx: the dynamic table at the peer as our encoder knows it. See hpack_encoder_table.pxd.
#
# (The check takes differences of pointers for sums of integers, and hashes that wrap for mistakes.)
# cython: overflowcheck=False

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from ..field cimport Field
from .entry_memory cimport free_memory, free_retired, retire_before, take_memory
from .hpack_table cimport ENTRY_OVERHEAD

cdef enum:
    FIRST_CAPACITY = 8
    # Entries of one chain that a search compares. The hash is not keyed, so a hostile peer can make names that
    # collide: it then gets literals instead of indices, and no time of ours.
    SEARCH_BUDGET = 8


cdef uint64_t find_encoded(const EncoderTable* self, const Field* field, uint32_t hash) noexcept:
    cdef uint64_t number
    cdef const EncoderEntry* entry
    cdef int budget = SEARCH_BUDGET
    if self.insertions == self.evictions:
        return 0
    number = self.newest_by_hash[hash & self.mask]
    while number > self.evictions and budget:
        entry = &self.ring[number & self.mask]
        if (
            entry.hash == hash
            and entry.name_length == field.name_length
            and entry.value_length == field.value_length
            and memcmp(entry.octets, field.name, field.name_length) == 0
            and memcmp(entry.octets + field.name_length, field.value, field.value_length) == 0
        ):
            return number
        number = entry.older_same_hash
        budget -= 1
    return 0


cdef uint64_t find_encoded_name(const EncoderTable* self, const Field* field, uint64_t name_hash) noexcept:
    cdef uint64_t number
    cdef const EncoderEntry* entry
    cdef int budget = SEARCH_BUDGET
    if self.insertions == self.evictions:
        return 0
    number = self.newest_by_name[name_hash & self.mask]
    while number > self.evictions and budget:
        entry = &self.ring[number & self.mask]
        if (
            entry.name_hash == <uint32_t>name_hash
            and entry.name_length == field.name_length
            and memcmp(entry.octets, field.name, field.name_length) == 0
        ):
            return number
        number = entry.older_same_name
        budget -= 1
    return 0


cdef int add_encoded(EncoderTable* self, const Field* field, uint64_t name_hash, uint32_t hash) except -1:
    cdef uint32_t size = field.name_length + field.value_length + ENTRY_OVERHEAD
    cdef uint8_t* octets
    cdef EncoderEntry* entry
    evict_down_to(self, self.max_size - size)
    if self.ring == NULL or self.insertions - self.evictions > self.mask:
        grow_ring(self)
    octets = <uint8_t*>take_memory(&self.memory, field.name_length + field.value_length)
    memcpy(octets, field.name, field.name_length)
    memcpy(octets + field.name_length, field.value, field.value_length)
    self.insertions += 1
    self.size += size
    entry = &self.ring[self.insertions & self.mask]
    entry.octets = octets
    entry.chunk = self.memory.last
    entry.name_length = field.name_length
    entry.value_length = field.value_length
    entry.hash = hash
    entry.name_hash = <uint32_t>name_hash
    link_newest(self, self.insertions)
    free_served_chunks(self)
    return 0


cdef void resize_encoder_table(EncoderTable* self, uint32_t max_size) noexcept:
    self.max_size = max_size
    evict_down_to(self, max_size)
    if self.size == 0:
        free_memory(&self.memory)
    else:
        free_served_chunks(self)


cdef void free_encoder_table(EncoderTable* self) noexcept:
    free(self.ring)
    free(self.newest_by_hash)
    self.ring = NULL
    self.newest_by_hash = NULL
    free_memory(&self.memory)


cdef inline void evict_down_to(EncoderTable* self, uint32_t size) noexcept:
    cdef const EncoderEntry* entry
    while self.size > size:
        self.evictions += 1
        entry = &self.ring[self.evictions & self.mask]
        self.size -= entry.name_length + entry.value_length + ENTRY_OVERHEAD


cdef inline void free_served_chunks(EncoderTable* self) noexcept:
    if self.insertions > self.evictions:
        retire_before(&self.memory, self.ring[(self.evictions + 1) & self.mask].chunk)
        free_retired(&self.memory)


cdef inline void link_newest(EncoderTable* self, uint64_t number) noexcept:
    cdef EncoderEntry* entry = &self.ring[number & self.mask]
    entry.older_same_hash = self.newest_by_hash[entry.hash & self.mask]
    entry.older_same_name = self.newest_by_name[entry.name_hash & self.mask]
    self.newest_by_hash[entry.hash & self.mask] = number
    self.newest_by_name[entry.name_hash & self.mask] = number


# Doubles the capacity. The number of entries is bounded by max_size, each has ENTRY_OVERHEAD.
cdef int grow_ring(EncoderTable* self) except -1:
    cdef uint32_t old_mask = self.mask
    cdef uint32_t capacity = FIRST_CAPACITY if self.ring == NULL else (old_mask + 1) * 2
    cdef EncoderEntry* old_ring = self.ring
    cdef EncoderEntry* ring = <EncoderEntry*>malloc(capacity * sizeof(EncoderEntry))
    cdef uint64_t* newest = <uint64_t*>malloc(2 * capacity * sizeof(uint64_t))
    cdef uint64_t number
    if ring == NULL or newest == NULL:
        free(ring)
        free(newest)
        raise MemoryError()
    memset(newest, 0, 2 * capacity * sizeof(uint64_t))
    free(self.newest_by_hash)
    self.ring = ring
    self.newest_by_hash = newest
    self.newest_by_name = newest + capacity
    self.mask = capacity - 1
    number = self.evictions
    while number < self.insertions:
        number += 1
        ring[number & self.mask] = old_ring[number & old_mask]
        link_newest(self, number)
    free(old_ring)
    return 0
