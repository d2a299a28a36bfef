# image_index.pxd: the hash tables of an image: how a key is hashed and how a table is walked.
#
# Shared by the writer and the reader, so that they cannot differ. Tables are at most half full and the key of the hash
# is random for each image and secret: nobody, neither a client nor the author of a route, can aim at a long run
# of slots, and a walk ends at the first free one.

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp
from .image_layout cimport Slot, Span
from .siphash cimport SipKey, siphash13

cdef struct Walk:                # over the slots whose tag is that of one hash
    const Slot* slots
    uint32_t mask
    uint32_t place
    uint32_t tag


# Combines a hash with an index or with another hash (the finalizer of MurmurHash3; one to one in each argument).
@cython.overflowcheck(False)
cdef inline uint64_t mix(uint64_t hash, uint64_t more) noexcept nogil:
    hash ^= more * 0x9e3779b97f4a7c15ULL
    hash ^= hash >> 33
    hash *= 0xff51afd7ed558ccdULL
    hash ^= hash >> 33
    hash *= 0xc4ceb9fe1a85ec53ULL
    return hash ^ (hash >> 33)


cdef inline uint64_t hash_octets(const SipKey* key, const uint8_t* octets, Py_ssize_t length) noexcept nogil:
    return siphash13(key, octets, length)


# Of two indices; the key makes it differ from image to image.
@cython.overflowcheck(False)
cdef inline uint64_t hash_pair(const SipKey* key, uint32_t first, uint32_t second) noexcept nogil:
    return mix(key.k0, ((<uint64_t>first << 32) | second) + key.k1)


# Of exact terms; the hash of an absent one is 0.
@cython.overflowcheck(False)
cdef inline uint64_t hash_method(uint32_t bucket, uint64_t service, uint64_t method) noexcept nogil:
    return mix(mix(service, <uint64_t>bucket + 1), method)


# Of an HTTP bucket, an HttpPathKind and a path.
cdef inline uint64_t hash_http_path(
    const SipKey* key, uint32_t bucket, uint32_t kind, const uint8_t* path, Py_ssize_t length
) noexcept nogil:
    return mix(hash_octets(key, path, length), <uint64_t>bucket * 2 + kind)


cdef inline void walk_start(Walk* walk, const Slot* slots, uint32_t count, uint64_t hash) noexcept nogil:
    walk.slots = slots
    walk.mask = count - 1
    walk.place = <uint32_t>(hash >> 32) & walk.mask
    walk.tag = <uint32_t>hash


# The next record that may be the one: its index + 1; 0 at the end.
@cython.overflowcheck(False)
cdef inline uint32_t walk_next(Walk* walk) noexcept nogil:
    cdef const Slot* slot
    while True:
        slot = &walk.slots[walk.place]
        if slot.entry == 0:
            return 0
        walk.place = (walk.place + 1) & walk.mask
        if slot.tag == walk.tag:
            return slot.entry


cdef inline bint span_is(const uint8_t* base, Span span, const uint8_t* octets, Py_ssize_t length) noexcept nogil:
    return span.length == length and (length == 0 or memcmp(base + span.offset, octets, <size_t>length) == 0)


# Of a rule, by what makes it "the same rule" in the next image: its route, and its name or else its place.
cdef inline uint64_t hash_rule(
    const SipKey* key, const uint8_t* base, Span route, Span rule_name, uint32_t index, uint32_t kind
) noexcept nogil:
    cdef uint64_t which
    if rule_name.length > 0:
        which = hash_octets(key, base + rule_name.offset, rule_name.length)
    else:
        which = index
    return mix(mix(hash_octets(key, base + route.offset, route.length), which), kind)
