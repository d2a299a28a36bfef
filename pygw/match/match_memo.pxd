# match_memo.pxd: what match() found for gRPC calls of late, so that they are not looked up again. Leaf functions.
#
# Clients ask the same few questions over and over. A decision is kept where no header was looked at: then it depends
# on the site, :authority and :path alone, and these are compared octet for octet. Calls that share a slot displace
# each other and are looked up as without a memo, so that a peer who chooses its paths gains nothing by it.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from .image_layout cimport RuleRecord
from .request_target cimport Request

cdef enum:
    MEMO_SLOTS = 64              # a power of two
    MEMO_OCTETS = 152            # :authority and :path together; longer ones are not kept
    SAMPLE = 8                   # octets of the path, twice, that choose the slot

cdef struct MatchMemo:           # zeroed it is empty
    const RuleRecord* rule       # NULL: empty
    int32_t listener
    uint32_t match
    int32_t site
    uint16_t authority_length
    uint16_t path_length
    uint8_t[MEMO_OCTETS] octets  # of both


# The slot of a call; NULL where it is not kept.
cdef inline MatchMemo* memo_of(MatchMemo* slots, const Request* request) noexcept nogil:
    cdef uint64_t middle, end
    if (
        request.path_length < SAMPLE or request.path_length > MEMO_OCTETS
        or request.authority_length > MEMO_OCTETS - request.path_length
    ):
        return NULL
    # Paths differ in the service or in the method: in the middle or at the end.
    memcpy(&middle, request.path + (request.path_length - SAMPLE) // 2, SAMPLE)
    memcpy(&end, request.path + request.path_length - SAMPLE, SAMPLE)
    end = (end ^ <uint64_t>request.path_length) * <uint64_t>0x9e3779b97f4a7c15 ^ middle
    return &slots[(end * <uint64_t>0x9e3779b97f4a7c15 >> 32) & (MEMO_SLOTS - 1)]


cdef inline bint is_memo_of(const MatchMemo* memo, int32_t site, const Request* request) noexcept nogil:
    return (
        memo.rule != NULL
        and memo.site == site
        and memo.path_length == request.path_length
        and memo.authority_length == request.authority_length
        and memcmp(memo.octets, request.path, <size_t>request.path_length) == 0
        # (NULL where there is none, which memcmp() must not get.)
        and (request.authority_length == 0 or memcmp(
            memo.octets + memo.path_length, request.authority, <size_t>request.authority_length
        ) == 0)
    )


cdef inline void memorise(
    MatchMemo* memo, int32_t site, const Request* request, const RuleRecord* rule, int32_t listener, uint32_t match
) noexcept nogil:
    memo.rule = rule
    memo.listener = listener
    memo.match = match
    memo.site = site
    memo.path_length = <uint16_t>request.path_length
    memo.authority_length = <uint16_t>request.authority_length
    memcpy(memo.octets, request.path, <size_t>request.path_length)
    if request.authority_length > 0:
        memcpy(memo.octets + request.path_length, request.authority, <size_t>request.authority_length)
