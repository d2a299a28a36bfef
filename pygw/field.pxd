# field.pxd: one header field as it travels through pygw (RFC 9110 §5), borrowed and classified.
#
# Knows nothing of connections, gRPC or routes. A Field borrows its octets: they live as long as the
# header block it was decoded from is being handled (until the hook that received it returns).
# Whoever keeps a field longer copies its octets.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

# Names that some part of pygw treats specially, found once when a field is decoded (hpack_table.pyx
# holds the table of spellings), so that later code compares a number and not octets.
cdef enum Token:
    TOKEN_OTHER = 0
    TOKEN_AUTHORITY           # :authority
    TOKEN_METHOD              # :method
    TOKEN_PATH                # :path
    TOKEN_SCHEME              # :scheme
    TOKEN_STATUS              # :status
    TOKEN_PROTOCOL            # :protocol (RFC 8441); refused
    TOKEN_UNKNOWN_PSEUDO      # any other name that starts with ':'
    TOKEN_CONNECTION          # connection-specific, RFC 9113 §8.2.2
    TOKEN_KEEP_ALIVE
    TOKEN_PROXY_CONNECTION
    TOKEN_TRANSFER_ENCODING
    TOKEN_UPGRADE
    TOKEN_TE
    TOKEN_HOST
    TOKEN_CONTENT_LENGTH
    TOKEN_CONTENT_TYPE
    TOKEN_GRPC_TIMEOUT
    TOKEN_GRPC_STATUS
    TOKEN_GRPC_MESSAGE
    TOKEN_GRPC_ENCODING
    TOKEN_X_FORWARDED_FOR
    TOKEN_X_FORWARDED_PROTO
    TOKEN_USER_AGENT
    TOKEN_COOKIE

cdef enum FieldFlag:
    FIELD_NEVER_INDEXED = 0x01   # RFC 7541 §6.2.3: stays never indexed on the next hop
    FIELD_BAD_NAME = 0x02        # breaks RFC 9113 §8.2.1 (upper case, controls, empty, ...)
    FIELD_BAD_VALUE = 0x04       # breaks RFC 9113 §8.2.1 (CR, LF, NUL, blanks around)
    FIELD_INDEXED = 0x08         # came as an index into a table: the sender repeats it
    FIELD_ADDED = 0x10           # came as a literal that the sender put into its dynamic table

# Where the upstream (or downstream) encoder last put this very field: lets a field that came in as an
# index go out as an index without a look-up. Lives in the decoder's table entry; one slot, last writer wins.
cdef struct FieldMemo:
    uint64_t encoder             # HpackEncoder.id that wrote the slot; 0: empty
    uint64_t insertion           # that encoder's count of insertions when it added the field (1 is the first)

cdef struct Field:
    const uint8_t* name
    const uint8_t* value
    uint32_t name_length
    uint32_t value_length
    uint32_t hash                # of name and value (hash_field() of hpack_table); 0: not computed
    uint16_t token               # a Token
    uint8_t flags                # FieldFlag bits
    uint8_t static_index         # 1..61 when name and value are exactly that static entry (RFC 7541 App. A), else 0
    FieldMemo* memo              # of the dynamic table entry it came from, or NULL
