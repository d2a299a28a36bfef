# header_edits.pxd: RequestHeaderModifier and ResponseHeaderModifier on decoded sections. No calls, no routes.

from .._fastmatch cimport ListRef, RouteTable
from ..field cimport Field
from .context cimport Context

# Copies `fields` to context.scratch, applies both lists in turn and returns the new count. Pseudo-header fields
# are never touched (the lists name none).
cdef Py_ssize_t apply_edits(
    Context context, RouteTable table, ListRef first, ListRef second, const Field* fields, Py_ssize_t count
) except -1
# The same on the `count` fields that context.scratch holds already.
cdef Py_ssize_t edit_scratch(Context context, RouteTable table, ListRef edits, Py_ssize_t count) except -1
# A field that the gateway itself adds, behind scratch[count - 1]; it is worth an entry of the dynamic table.
cdef void set_field(
    Field* field, const unsigned char* name, Py_ssize_t name_length, const unsigned char* value,
    Py_ssize_t value_length, int token
) noexcept
