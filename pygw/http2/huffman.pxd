# huffman.pxd: Huffman-coded string literals (RFC 7541 §5.2, Appendix B). Knows no integers, no fields.

from libc.stdint cimport uint8_t

# The room that huffman_decode() needs: the shortest code has 5 bits, and two octets are stored at a time.
cdef inline Py_ssize_t huffman_decoded_bound(Py_ssize_t length) noexcept:
    return length * 8 // 5 + 2

# Decodes into `out` and returns the number of octets written; -1 where the string breaks §5.2: EOS in it,
# padding of 8 bits or more, padding with a zero bit, a code cut short.
cdef Py_ssize_t huffman_decode(const uint8_t* data, Py_ssize_t length, uint8_t* out) noexcept

# The length of the encoded string in octets.
cdef Py_ssize_t huffman_length(const uint8_t* data, Py_ssize_t length) noexcept
# Writes exactly huffman_length() octets and returns the end of what it wrote.
cdef uint8_t* huffman_encode(const uint8_t* data, Py_ssize_t length, uint8_t* out) noexcept
