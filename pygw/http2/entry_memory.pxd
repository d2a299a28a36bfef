# entry_memory.pxd: where the entries of an HPACK dynamic table keep their octets. Knows no entries.
#
# A table is a queue (RFC 7541 §2.3.2): what was added first is evicted first. So entries are cut from chunks
# one behind the other, and a chunk has served when its last entry is evicted: no malloc per entry, no
# searching, no moving. Chunks that have served are only *retired*, so that fields decoded earlier in the same
# block may still point into them; free_retired() ends that. A zeroed EntryMemory is a valid empty one.

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc

cdef enum:
    FIRST_CHUNK = 496            # octets: enough for the few fields that most connections repeat
    LATER_CHUNK = 1008

cdef struct Chunk:
    Chunk* next                  # the octets follow

cdef struct EntryMemory:
    Chunk* first                 # holds the oldest entry
    Chunk* last                  # is being filled
    Chunk* retired
    uint8_t* unused              # in `last`
    size_t left                  # octets unused there

# `size` octets (8 at least), aligned for pointers, in self.last. Raises MemoryError.
cdef inline void* take_memory(EntryMemory* self, size_t size) except NULL:
    cdef Chunk* chunk
    cdef size_t capacity
    cdef uint8_t* taken
    size = ((size | 1) + 7) & ~<size_t>7
    if size > self.left:
        capacity = FIRST_CHUNK if self.last == NULL else LATER_CHUNK
        if capacity < size:
            capacity = size
        chunk = <Chunk*>malloc(sizeof(Chunk) + capacity)
        if chunk == NULL:
            raise MemoryError()
        chunk.next = NULL
        if self.last == NULL:
            self.first = chunk
        else:
            self.last.next = chunk
        self.last = chunk
        self.unused = <uint8_t*>(chunk + 1)
        self.left = capacity
    taken = self.unused
    self.unused += size
    self.left -= size
    return taken

# Retires all chunks before `oldest`, which holds the oldest entry that is left; NULL: no entry is left.
# The chunk that is being filled stays: its room is not lost.
cdef inline void retire_before(EntryMemory* self, const Chunk* oldest) noexcept:
    cdef Chunk* chunk
    while self.first != oldest and self.first != self.last:
        chunk = self.first
        self.first = chunk.next
        chunk.next = self.retired
        self.retired = chunk

cdef inline void free_retired(EntryMemory* self) noexcept:
    cdef Chunk* chunk
    while self.retired != NULL:
        chunk = self.retired
        self.retired = chunk.next
        free(chunk)

cdef inline void free_memory(EntryMemory* self) noexcept:
    cdef Chunk* chunk
    free_retired(self)
    while self.first != NULL:
        chunk = self.first
        self.first = chunk.next
        free(chunk)
    self.last = NULL
    self.unused = NULL
    self.left = 0
