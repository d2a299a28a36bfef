# connection_options.pxd: what the connections of one end are made with. See Settings for names and reasons.

from libc.stdint cimport uint32_t

from .limits cimport Limits

cdef class ConnectionOptions:
    """What a connection of one end is made with; shared by all of them. Defaults: see Settings."""
    cdef:
        public bint is_client
        public uint32_t max_concurrent_streams     # what we allow the peer (server end)
        public uint32_t stream_window              # SETTINGS_INITIAL_WINDOW_SIZE that we announce
        public uint32_t stream_window_max          # credit() lets receive_target grow to this
        public uint32_t window_growth_total        # by how much all streams' windows may exceed stream_window together
        public uint32_t connection_window          # raised to this by a WINDOW_UPDATE behind the preface
        # Give the *connection* window back at receipt (client end: one stalled stream must not stall the others of a
        # shared connection), else in credit().
        public bint credit_at_receipt
        public uint32_t max_header_list_size
        public uint32_t max_header_fields
        public uint32_t header_table_size
        public uint32_t encoder_table_size
        # budgets against floods, per connection (limits.pyx): see Settings for names and reasons
        public object limits                       # any object with the int attributes limits.pyx names, or None
        # ===== private =====
        Limits values                              # what was read from `limits`
        object values_of                           # ... when it was this object
        bint values_read

    # Checks all values, and reads `limits` where that has changed. Raises TypeError or ValueError with the name.
    cdef int prepare(self) except -1
