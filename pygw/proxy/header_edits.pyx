# header_edits.pyx: RequestHeaderModifier and ResponseHeaderModifier on decoded sections. See header_edits.pxd.
#
# GRPCRoute HTTPHeaderFilter: set overwrites, add appends to what is there ("foo" + "bar,baz" becomes
# "foo,bar,baz"), remove removes. Names are lower case on both sides (RFC 9113 §8.2.1), so octets compare.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from .._fastmatch cimport EDIT_ADD, EDIT_SET, EditRecord, ListRef, RouteTable
from ..field cimport FIELD_INDEXED, Field
from .context cimport SCRATCH_OCTETS, Context


cdef inline bint has_name(const Field* field, const uint8_t* name, uint32_t length, uint16_t token) noexcept:
    if field.token != token or field.name_length != length:
        return False
    return memcmp(field.name, name, length) == 0


cdef void set_field(
    Field* field, const unsigned char* name, Py_ssize_t name_length, const unsigned char* value,
    Py_ssize_t value_length, int token
) noexcept:
    memset(field, 0, sizeof(Field))
    field.name = name
    field.name_length = <uint32_t>name_length
    field.value = value
    field.value_length = <uint32_t>value_length
    field.token = <uint16_t>token
    field.flags = FIELD_INDEXED


cdef Py_ssize_t remove_fields(
    Field* fields, Py_ssize_t first, Py_ssize_t count, const uint8_t* name, uint32_t length, uint16_t token
) noexcept:
    cdef Py_ssize_t i, kept = first
    for i in range(first, count):
        if not has_name(&fields[i], name, length, token):
            if kept != i:
                fields[kept] = fields[i]
            kept += 1
    return kept


# "old,new" as the value of `field`; False where there is no room for it.
cdef bint join_value(Context context, Field* field, const uint8_t* value, uint32_t length) noexcept:
    cdef Py_ssize_t needed = <Py_ssize_t>field.value_length + 1 + length
    cdef uint8_t* out = &context.scratch_text[context.scratch_used]
    if context.scratch_used + needed > SCRATCH_OCTETS:
        return False
    memcpy(out, field.value, field.value_length)
    out[field.value_length] = b","
    memcpy(out + field.value_length + 1, value, length)
    context.scratch_used += needed
    set_field(field, field.name, field.name_length, out, needed, field.token)
    field.flags = 0
    return True


cdef Py_ssize_t edit_scratch(Context context, RouteTable table, ListRef edits, Py_ssize_t count) except -1:
    cdef const EditRecord* edit = table.edits(edits)
    cdef const uint8_t* name
    cdef const uint8_t* value
    cdef Field* fields = context.scratch
    cdef Py_ssize_t i
    cdef uint32_t n
    for n in range(edits.count):
        name = table.octets(edit[n].name)
        value = table.octets(edit[n].value)
        if edit[n].operation == EDIT_ADD:
            for i in range(count - 1, -1, -1):
                if has_name(&fields[i], name, edit[n].name.length, edit[n].token):
                    if join_value(context, &fields[i], value, edit[n].value.length):
                        break
            else:
                set_field(&fields[count], name, edit[n].name.length, value, edit[n].value.length, edit[n].token)
                count += 1
            continue
        count = remove_fields(fields, 0, count, name, edit[n].name.length, edit[n].token)
        if edit[n].operation == EDIT_SET:
            set_field(&fields[count], name, edit[n].name.length, value, edit[n].value.length, edit[n].token)
            count += 1
    return count


cdef Py_ssize_t apply_edits(
    Context context, RouteTable table, ListRef first, ListRef second, const Field* fields, Py_ssize_t count
) except -1:
    context.reserve_scratch(count + first.count + second.count)
    memcpy(context.scratch, fields, <size_t>count * sizeof(Field))
    count = edit_scratch(context, table, first, count)
    return edit_scratch(context, table, second, count)
