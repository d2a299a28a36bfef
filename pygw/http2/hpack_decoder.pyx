# hpack_decoder.pyx: HPACK header block -> Field array (RFC 7541). See hpack_decoder.pxd.
#
# What a block can cost is bounded by its length and by the limits of the header list:
# * A use by index copies a Field, never octets: "HPACK bombs", one-octet references to one large entry, cost
#   as much as references to a small one, until their nominal size stops them.
# * Over the limit nothing is kept, but the dynamic table is kept in step, so that the other streams of the
#   connection live on; at ABUSE_FACTOR times the limit that courtesy ends.
# * Names and values are classified once: literals when read, entries when added, never when used.
# * What repeats octet for octet at the start of a block, under the same table, is not even looked up again (the run).
#
# (The check takes differences of pointers for sums of integers, and hashes that wrap for mistakes.)
# cython: overflowcheck=False

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from ..field cimport FIELD_ADDED, FIELD_BAD_NAME, FIELD_NEVER_INDEXED, Field
from .hpack_integer cimport read_integer
from .hpack_table cimport (
    DEFAULT_TABLE_SIZE,
    ENTRY_OVERHEAD,
    add_decoded,
    classify_name,
    classify_value,
    end_borrowing,
    field_at,
    free_decoder_table,
    resize_decoder_table,
    static_fields,
)
from .huffman cimport huffman_decode, huffman_decoded_bound

cdef enum:
    ABUSE_FACTOR = 4
    FIRST_FIELDS = 16            # a gRPC request has fewer
    KEPT_FIELDS = 32             # Fields, and octets of scratch, that release() leaves
    KEPT_SCRATCH = 512
    # Of blocks that do not repeat (each adds to the table, say), one in RUN_PAUSE is kept to see if the next one does.
    RUN_PATIENCE = 4
    RUN_PAUSE = 32               # a power of two

# Numbers runs, so that no two are taken for each other.
cdef uint64_t runs_made = 0

cdef const char* BAD_INTEGER = "integer cut short or too large (RFC 7541 5.1)"
cdef const char* BAD_INDEX = "index 0 or beyond both tables (RFC 7541 2.3.3)"


cdef class HpackDecoder:
    def __cinit__(self, uint32_t header_table_size, uint32_t max_list_size, uint32_t max_fields):
        self.table.static_fields = static_fields()
        # Until our SETTINGS are acknowledged the peer may go by the default; a larger table than that takes an
        # update, which a peer that has read our SETTINGS may send before we have seen its acknowledgement.
        self.table.max_size = DEFAULT_TABLE_SIZE
        self.allowed_table_size = max(header_table_size, <uint32_t>DEFAULT_TABLE_SIZE)
        self.max_list_size = max_list_size
        self.max_fields = max_fields

    def __dealloc__(self):
        free_decoder_table(&self.table)
        free(self.fields)
        free(self.scratch)

    cdef int decode(self, const uint8_t* block, Py_ssize_t length) except -3:
        cdef const uint8_t* end = block + length
        cdef int result
        self.release()
        self.list_size = 0
        self.total = 0
        self.seen = 0
        self.error = NULL
        result = read_size_updates(self, &block, end)
        if result == DECODED:
            result = read_run(self, &block, end)
        while block < end and result == DECODED:
            if block[0] & 0x80:                              # §6.1: indexed field
                result = read_indexed(self, &block, end)
            elif block[0] & 0x40:                            # §6.2.1: literal that joins the table
                result = read_literal(self, &block, end, 0x3f, 0, True)
            elif block[0] & 0x20:                            # §6.3
                return refuse(self, "table size update behind a field (RFC 7541 4.2)")
            elif block[0] & 0x10:                            # §6.2.3: literal that no hop may index
                result = read_literal(self, &block, end, 0x0f, FIELD_NEVER_INDEXED, False)
            else:                                            # §6.2.2: literal without indexing
                result = read_literal(self, &block, end, 0x0f, 0, False)
        self.list_size = <uint32_t>min(self.total, <uint64_t>UINT32_MAX)
        if result != DECODED:
            return result
        if self.total > self.max_list_size or self.seen > self.max_fields:
            return DECODED_TOO_LARGE
        self.field_count = self.seen
        return DECODED

    cdef void allow_table_size(self, uint32_t size) noexcept:
        self.allowed_table_size = size
        # §4.2, RFC 9113 §4.3.1: under what the encoder uses now, it must say at the start of the next block that
        # it uses less; of several changes in between, the smallest counts too.
        if self.update_required:
            self.update_bound = min(self.update_bound, size)
        elif size < self.table.max_size:
            self.update_required = True
            self.update_bound = size

    cdef void rest(self) noexcept:
        if self.capacity == 0 and self.scratch_capacity == 0:
            return
        self.release()
        free_decoded(self)
        free(self.scratch)
        self.scratch = NULL
        self.scratch_capacity = 0

    cdef void release(self) noexcept:
        self.field_count = 0
        end_borrowing(&self.table)
        self.scratch_used = 0
        if self.scratch_capacity > KEPT_SCRATCH:
            free(self.scratch)
            self.scratch = NULL
            self.scratch_capacity = 0
        if self.capacity > KEPT_FIELDS:
            free_decoded(self)


cdef void free_decoded(HpackDecoder self) noexcept:
    free(self.fields)
    self.fields = NULL
    self.capacity = 0
    forget_run(self)


cdef inline int refuse(HpackDecoder self, const char* reason) noexcept:
    self.error = reason
    return DECODE_ERROR


# Reads the table size updates (§6.3), which stand before all fields (§4.2). An encoder needs two at most, but
# well-known ones send every change, so they are not counted: each takes an octet and a few nanoseconds.
cdef int read_size_updates(HpackDecoder self, const uint8_t** at, const uint8_t* end) noexcept:
    cdef uint32_t size
    while at[0] < end and at[0][0] & 0xe0 == 0x20:
        if not read_integer(at, end, 0x1f, &size):
            return refuse(self, BAD_INTEGER)
        if size > self.allowed_table_size:
            return refuse(self, "table size update over SETTINGS_HEADER_TABLE_SIZE (RFC 7541 6.3)")
        if self.update_required and size > self.update_bound:
            break
        self.update_required = False
        resize_decoder_table(&self.table, size)
    if self.update_required:
        return refuse(self, "no table size update after SETTINGS reduced the table (RFC 7541 4.2)")
    return DECODED


cdef inline void forget_run(HpackDecoder self) noexcept:
    self.run_number = 0
    self.run_length = 0
    self.run_fields = 0


# The run of a block: taken over from the last block where it is the same, else decoded and kept.
cdef int read_run(HpackDecoder self, const uint8_t** at, const uint8_t* end) except -3:
    global runs_made
    cdef const uint8_t* start = at[0]
    cdef uint32_t length = self.run_length
    cdef int result
    if (
        length > 0 and end - start >= length
        # (Nothing of it went: entries leave the table in the order in which they came.)
        and self.run_insertions == self.table.insertions and self.run_count == self.table.count
        and memcmp(start, self.run, length) == 0
        and (end - start == length or not start[length] & 0x80)
    ):
        self.total = self.run_total
        self.seen = self.run_fields
        self.run_misses = 0
        at[0] = start + length
        return DECODED
    forget_run(self)
    self.run_misses += 1
    if start == end or not start[0] & 0x80 or (
        self.run_misses > RUN_PATIENCE and self.run_misses & (RUN_PAUSE - 1)
    ):
        return DECODED
    result = read_indexed(self, at, end)
    if result != DECODED or at[0] - start > RUN_OCTETS:
        return result
    if self.total > self.max_list_size or self.seen > self.max_fields:
        return DECODED
    runs_made += 1
    self.run_number = runs_made
    self.run_fields = self.seen
    self.run_length = <uint32_t>(at[0] - start)
    self.run_total = <uint32_t>self.total
    self.run_insertions = self.table.insertions
    self.run_count = self.table.count
    memcpy(self.run, start, self.run_length)
    return DECODED


# Indexed fields (§6.1), as many as follow one another: most blocks are little else.
cdef int read_indexed(HpackDecoder self, const uint8_t** at, const uint8_t* end) except -3:
    cdef const uint8_t* p = at[0]
    cdef const Field* field
    cdef uint32_t index
    cdef uint64_t total = self.total
    cdef Py_ssize_t seen = self.seen
    cdef int result = DECODED
    while p < end and p[0] & 0x80:
        index = p[0] & 0x7f
        if index != 0x7f:
            p += 1
        elif not read_integer(&p, end, 0x7f, &index):
            return refuse(self, BAD_INTEGER)
        field = field_at(&self.table, index)
        if field == NULL:
            return refuse(self, BAD_INDEX)
        total += <uint64_t>field.name_length + field.value_length + ENTRY_OVERHEAD
        seen += 1
        if total > self.max_list_size or seen > self.max_fields:
            result = check_abuse(self, total, seen)
            if result != DECODED:
                break
            continue
        if seen > self.capacity:
            grow_fields(self)
        self.fields[seen - 1] = field[0]
    self.total = total
    self.seen = seen
    at[0] = p
    return result


# A literal field (§6.2): the name by index or spelled out, then the value. `mask` is the prefix of the index.
cdef int read_literal(
    HpackDecoder self, const uint8_t** at, const uint8_t* end, uint8_t mask, uint8_t flags, bint joins_table
) except -3:
    cdef Field field
    cdef const Field* named
    cdef uint32_t index
    cdef bint dropped
    cdef Py_ssize_t used = self.scratch_used
    if not read_integer(at, end, mask, &index):
        return refuse(self, BAD_INTEGER)
    reserve_scratch(self, end - at[0])
    # Over the limit a field that stays out of the table is dropped: nobody will ask what it is.
    dropped = not joins_table and (self.total > self.max_list_size or self.seen >= self.max_fields)
    if index == 0:
        if read_string(self, at, end, &field.name, &field.name_length) != DECODED:
            return DECODE_ERROR
        field.flags = flags
        if not dropped:
            field.flags |= classify_name(field.name, field.name_length, &field.token)
    else:
        named = field_at(&self.table, index)
        if named == NULL:
            return refuse(self, BAD_INDEX)
        field.name = named.name
        field.name_length = named.name_length
        field.token = named.token
        field.flags = flags | named.flags & FIELD_BAD_NAME
    if read_string(self, at, end, &field.value, &field.value_length) != DECODED:
        return DECODE_ERROR
    if dropped:
        self.scratch_used = used
        return add_field(self, &field)
    field.flags |= classify_value(field.value, field.value_length)
    field.hash = 0
    field.static_index = 0
    field.memo = NULL
    if joins_table:
        field.flags |= FIELD_ADDED
        add_decoded(&self.table, &field)
    return add_field(self, &field)


# A string literal (§5.2), decoded or copied into scratch.
cdef int read_string(
    HpackDecoder self, const uint8_t** at, const uint8_t* end, const uint8_t** data, uint32_t* length
) noexcept:
    cdef uint8_t* target = self.scratch + self.scratch_used
    cdef uint32_t octets
    cdef bint is_huffman
    cdef Py_ssize_t decoded
    if at[0] == end:
        return refuse(self, "block ends within a field (RFC 7541 6.2)")
    is_huffman = at[0][0] & 0x80
    if not read_integer(at, end, 0x7f, &octets):
        return refuse(self, BAD_INTEGER)
    if octets > end - at[0]:
        return refuse(self, "string runs over the end of the block (RFC 7541 5.2)")
    if is_huffman:
        decoded = huffman_decode(at[0], octets, target)
        if decoded < 0:
            return refuse(self, "invalid Huffman code or padding (RFC 7541 5.2)")
    else:
        memcpy(target, at[0], octets)
        decoded = octets
    self.scratch_used += decoded
    data[0] = target
    length[0] = <uint32_t>decoded
    at[0] += octets
    return DECODED


# Room for all strings in `block_left` octets. Fields point into scratch, so it must not move within a block: the
# first literal makes room for all that can follow, and what later ones ask for is then there.
cdef inline int reserve_scratch(HpackDecoder self, Py_ssize_t block_left) except -3:
    cdef Py_ssize_t needed = self.scratch_used + huffman_decoded_bound(block_left)
    if needed > self.scratch_capacity:
        free(self.scratch)
        self.scratch_capacity = 0
        needed = max(needed, <Py_ssize_t>KEPT_SCRATCH)
        self.scratch = <uint8_t*>malloc(needed)
        if self.scratch == NULL:
            raise MemoryError()
        self.scratch_capacity = needed
    return DECODED


cdef inline int add_field(HpackDecoder self, const Field* field) except -3:
    self.total += <uint64_t>field.name_length + field.value_length + ENTRY_OVERHEAD
    self.seen += 1
    if self.total > self.max_list_size or self.seen > self.max_fields:
        return check_abuse(self, self.total, self.seen)
    if self.seen > self.capacity:
        grow_fields(self)
    self.fields[self.seen - 1] = field[0]
    return DECODED


# For a header list that is over its limit: is it so far over that the connection should go?
cdef int check_abuse(HpackDecoder self, uint64_t total, Py_ssize_t seen) noexcept:
    if (
        total <= <uint64_t>self.max_list_size * ABUSE_FACTOR
        and seen <= <Py_ssize_t>self.max_fields * ABUSE_FACTOR
    ):
        return DECODED
    self.error = "header list far over its limit (RFC 9113 10.5.1)"
    return DECODE_ABUSE


cdef int grow_fields(HpackDecoder self) except -3:
    cdef Py_ssize_t capacity = max(self.capacity * 2, <Py_ssize_t>FIRST_FIELDS)
    cdef Field* fields = <Field*>realloc(self.fields, capacity * sizeof(Field))
    if fields == NULL:
        raise MemoryError()
    # The run's Fields may have moved.
    forget_run(self)
    self.fields = fields
    self.capacity = capacity
    return DECODED
