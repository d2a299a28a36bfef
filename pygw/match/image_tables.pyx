# image_tables.pyx: see image_tables.pxd; how keys are hashed is in image_index.pxd, shared with the reader.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .image_index cimport hash_http_path, hash_method, hash_octets, hash_pair, hash_rule, mix
from .image_layout cimport (
    SECTION_HEADER_TUPLES,
    SECTION_SLOTS,
    SECTION_SPANS,
    TABLE_ANCHORS,
    TABLE_ATTACHMENTS,
    TABLE_HOSTS,
    TABLE_HTTP_PATHS,
    TABLE_METHODS,
    TABLE_NAMES,
    TABLE_RULES,
    AnchorRecord,
    AttachmentRecord,
    HeaderTupleRecord,
    HeaderValuesRecord,
    HostRecord,
    HttpPathRecord,
    ListRef,
    MethodRecord,
    NameRecord,
    RuleRecord,
    Slot,
    Span,
    table_section,
)
from .siphash cimport SipKey
from .vector cimport Vector, vector_push

cdef uint64_t LIMIT = 0xffffffff


cdef ListRef add_table(const SipKey* key, const uint8_t* base, Vector* sections, int table) except *:
    cdef Vector* records = &sections[table_section(table)]
    cdef uint32_t i, place, mask
    cdef uint64_t hash
    cdef uint64_t size = 2
    cdef ListRef added
    cdef Slot* slots
    # At most half full: runs of slots stay short.
    while size < records.count * 2:
        size *= 2
    if size + sections[<int>SECTION_SLOTS].count > LIMIT:
        raise ValueError("the configuration is too large: an image has at most 4 GiB")
    added.first = <uint32_t>sections[<int>SECTION_SLOTS].count
    added.count = <uint32_t>size
    slots = <Slot*>vector_push(&sections[<int>SECTION_SLOTS], size)
    mask = added.count - 1
    for i in range(<uint32_t>records.count):
        hash = hash_record(key, base, sections, table, i)
        place = <uint32_t>(hash >> 32) & mask
        while slots[place].entry != 0:
            place = (place + 1) & mask
        slots[place].tag = <uint32_t>hash
        slots[place].entry = i + 1
    return added


cdef uint64_t hash_term(const SipKey* key, const uint8_t* base, Span span) noexcept:
    # The hash of an absent term is 0 (hash_method).
    return hash_octets(key, base + span.offset, span.length) if span.length > 0 else 0


cdef uint64_t hash_record(
    const SipKey* key, const uint8_t* base, const Vector* sections, int table, uint32_t i
) noexcept:
    cdef const uint8_t* records = sections[table_section(table)].data
    cdef const HostRecord* host
    cdef const MethodRecord* method
    cdef const HttpPathRecord* path
    cdef const RuleRecord* rule
    if table == TABLE_HOSTS:
        host = &(<const HostRecord*>records)[i]
        return mix(hash_term(key, base, host.host), host.scope)
    if table == TABLE_METHODS:
        method = &(<const MethodRecord*>records)[i]
        return hash_method(
            method.bucket, hash_term(key, base, method.service), hash_term(key, base, method.method)
        )
    if table == TABLE_NAMES:
        return hash_term(key, base, (<const NameRecord*>records)[i].name)
    if table == TABLE_ANCHORS:
        return hash_pair(key, (<const AnchorRecord*>records)[i].leaf, (<const AnchorRecord*>records)[i].name)
    if table == TABLE_ATTACHMENTS:
        return hash_pair(key, (<const AttachmentRecord*>records)[i].group, (<const AttachmentRecord*>records)[i].route)
    if table == TABLE_HTTP_PATHS:
        path = &(<const HttpPathRecord*>records)[i]
        return hash_http_path(key, path.bucket, path.kind, base + path.path.offset, path.path.length)
    if table == TABLE_RULES:
        rule = &(<const RuleRecord*>records)[i]
        return hash_rule(key, base, rule.route, rule.rule_name, rule.index, rule.kind)
    return hash_header_values(key, base, sections, &(<const HeaderValuesRecord*>records)[i])


cdef uint64_t hash_header_values(
    const SipKey* key, const uint8_t* base, const Vector* sections, const HeaderValuesRecord* record
) noexcept:
    cdef const HeaderTupleRecord* header_tuple = (
        &(<const HeaderTupleRecord*>sections[<int>SECTION_HEADER_TUPLES].data)[record.tuple]
    )
    cdef const Span* spans = <const Span*>sections[<int>SECTION_SPANS].data + record.values
    cdef uint64_t hash = record.tuple
    cdef uint32_t n
    for n in range(header_tuple.names.count):
        hash = mix(hash, hash_octets(key, base + spans[n].offset, spans[n].length))
    return hash
