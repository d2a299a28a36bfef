# stream_table.pxd: the open streams of a connection by id, and what is remembered of closed ones. Leaf functions.
#
# A StreamTable zeroed but for `multiplier` is a valid empty one. The ids are spread by multiply-shift hashing with
# an odd multiplier that is random in each process: a peer chooses its ids (it may leave out any) and could
# otherwise pile all its streams up in one chain, a thousand steps for each of its frames.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from .stream cimport Stream

cdef enum:
    FIRST_BITS = 3
    RESETS_REMEMBERED = 16

cdef struct StreamTable:
    Stream** buckets             # NULL until the first stream
    uint32_t count
    uint32_t multiplier          # StreamPool.multiplier
    uint8_t bits                 # there are 2 ** bits buckets

cdef inline Stream** bucket_of(const StreamTable* self, uint32_t stream_id) noexcept:
    # The low 32 bits of the product, without an overflow that debug builds would find. By a cast: a mask of
    # 0xffffffff is a Python integer to Cython, and made this line a fifth of a small call.
    cdef uint32_t product = <uint32_t>(<uint64_t>stream_id * <uint64_t>self.multiplier)
    return &self.buckets[product >> (32 - self.bits)]

cdef inline Stream* find_stream(const StreamTable* self, uint32_t stream_id) noexcept:
    cdef Stream* stream
    if self.count == 0:
        return NULL
    stream = bucket_of(self, stream_id)[0]
    while stream != NULL and stream.id != stream_id:
        stream = stream.next
    return stream

cdef inline void free_table(StreamTable* self) noexcept:
    free(self.buckets)
    self.buckets = NULL
    self.bits = 0
    self.count = 0

cdef inline int resize_table(StreamTable* self, uint8_t bits) except -1:
    cdef Stream** old = self.buckets
    cdef Stream** buckets = <Stream**>calloc(<size_t>1 << bits, sizeof(Stream*))
    cdef Stream** place
    cdef Stream* stream
    cdef Stream* rest
    cdef uint32_t i
    cdef uint32_t old_count = <uint32_t>1 << self.bits if old != NULL else 0
    if buckets == NULL:
        raise MemoryError()
    self.buckets = buckets
    self.bits = bits
    for i in range(old_count):
        rest = old[i]
        while rest != NULL:
            stream = rest
            rest = stream.next
            place = bucket_of(self, stream.id)
            stream.next = place[0]
            place[0] = stream
    free(old)
    return 0

cdef inline int insert_stream(StreamTable* self, Stream* stream) except -1:
    cdef Stream** place
    if self.buckets == NULL:
        resize_table(self, FIRST_BITS)
    elif self.count >> self.bits:
        resize_table(self, self.bits + 1)
    place = bucket_of(self, stream.id)
    stream.next = place[0]
    place[0] = stream
    self.count += 1
    return 0

# `stream` must be there.
cdef inline void remove_stream(StreamTable* self, Stream* stream) noexcept:
    cdef Stream** place = bucket_of(self, stream.id)
    while place[0] != stream:
        place = &place[0].next
    place[0] = stream.next
    stream.next = NULL
    self.count -= 1
    # A connection that was busy once keeps only the first few.
    if self.count == 0 and self.bits > FIRST_BITS:
        free_table(self)

# Which closed streams were reset by us while the peer had not ended them: their frames may be under way still
# and are to be discarded (§5.1), while on other closed streams they are errors. The newest are known by id; of
# what was forgotten only the highest id is, and all below it get the benefit of the doubt.
cdef struct ResetStreams:
    uint32_t[16] ids             # RESETS_REMEMBERED, a ring
    uint32_t next
    uint32_t forgotten
    # DATA octets that may still come on such streams: what was left of their windows. A peer that sends more
    # ignores the resets.
    int64_t octets_expected

cdef inline void remember_reset(ResetStreams* self, uint32_t stream_id, int64_t window) noexcept:
    cdef uint32_t* place = &self.ids[self.next]
    if place[0] > self.forgotten:
        self.forgotten = place[0]
    place[0] = stream_id
    self.next = (self.next + 1) % RESETS_REMEMBERED
    if window > 0:
        self.octets_expected += window

cdef inline bint may_be_reset(const ResetStreams* self, uint32_t stream_id) noexcept:
    cdef int i
    if stream_id <= self.forgotten:
        return True
    for i in range(RESETS_REMEMBERED):
        if self.ids[i] == stream_id:
            return True
    return False
