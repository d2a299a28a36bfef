# huffman.pyx: Huffman-coded string literals (RFC 7541 §5.2, Appendix B). See huffman.pxd.
#
# Decoding looks up the next 11 bits, which hold one or two whole codes of all that common text is made of; the
# longer codes (12 to 30 bits) are found by comparing with the first code of each next length, as the code is
# canonical. So the tables take 10 KB, and no input costs more than a few nanoseconds an octet. They are built
# at import from huffman_code.py, and never change after.
#
# (The check takes differences of pointers for sums of integers, and hashes that wrap for mistakes.)
# cython: overflowcheck=False

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .huffman_code import CODE_LENGTHS, EOS, LONGEST_CODE, code_table

cdef enum:
    LOOKUP_BITS = 11
    LONGEST = 30

cdef struct Lookup:              # the whole codes that the next 11 bits begin with
    uint8_t symbols[2]
    uint8_t first_bits           # length of the first code; 0: it is longer than that
    uint8_t bits                 # length of both codes; first_bits where there is one

cdef Lookup LOOKUP[1 << LOOKUP_BITS]

# Codes by length n, aligned to the left of 32 bits: those of n bits or fewer are below CODE_LIMIT[n].
cdef uint64_t CODE_LIMIT[LONGEST + 1]
cdef uint32_t FIRST_CODE[LONGEST + 1]        # the first code of n bits, aligned likewise
cdef uint16_t FIRST_POSITION[LONGEST + 1]    # its position in SYMBOLS
cdef uint16_t SYMBOLS[257]                   # in the order of their codes

cdef uint32_t CODES[257]
cdef uint8_t LENGTHS[257]


cdef inline uint64_t load_big_endian(const uint8_t* p) noexcept:
    return (
        <uint64_t>p[0] << 56 | <uint64_t>p[1] << 48 | <uint64_t>p[2] << 40 | <uint64_t>p[3] << 32
        | <uint64_t>p[4] << 24 | <uint64_t>p[5] << 16 | <uint64_t>p[6] << 8 | <uint64_t>p[7]
    )


# The length of the code that `bits` (aligned left, at least 30 of them or zeros behind the last) begin with.
cdef inline int long_code_length(uint64_t bits) noexcept:
    cdef int n = LOOKUP_BITS + 1
    while n < LONGEST and (bits >> 32) >= CODE_LIMIT[n]:
        n += 1
    return n


cdef inline uint16_t long_code_symbol(uint64_t bits, int length) noexcept:
    cdef uint32_t offset = (<uint32_t>(bits >> 32) - FIRST_CODE[length]) >> (32 - length)
    return SYMBOLS[FIRST_POSITION[length] + offset]


cdef Py_ssize_t huffman_decode(const uint8_t* data, Py_ssize_t length, uint8_t* out) noexcept:
    cdef const uint8_t* end = data + length
    cdef uint8_t* start = out
    cdef uint64_t bits = 0       # what is not decoded yet, aligned left
    cdef int count = 0           # how many of them are valid
    cdef int n
    cdef uint16_t symbol
    cdef const Lookup* entry
    while True:
        if end - data >= 8:
            # Fills up to 56..63 bits; the few of the next octet that come along are loaded again later.
            bits |= load_big_endian(data) >> count
            data += (63 - count) >> 3
            count |= 56
        else:
            while count <= 56 and data < end:
                bits |= <uint64_t>data[0] << (56 - count)
                data += 1
                count += 8
        if count < LONGEST:
            break
        while count >= LONGEST:
            entry = &LOOKUP[bits >> (64 - LOOKUP_BITS)]
            n = entry.bits
            if n:
                memcpy(out, entry.symbols, 2)
                out += 1 + (n != entry.first_bits)
            else:
                n = long_code_length(bits)
                symbol = long_code_symbol(bits, n)
                if symbol == 256:
                    return -1
                out[0] = <uint8_t>symbol
                out += 1
            bits <<= n
            count -= n
    return decode_tail(bits, count, start, out)


# The last codes, fewer than 30 bits, and the padding.
cdef Py_ssize_t decode_tail(uint64_t bits, int count, uint8_t* start, uint8_t* out) noexcept:
    cdef int n
    cdef const Lookup* entry
    while count > 0:
        entry = &LOOKUP[bits >> (64 - LOOKUP_BITS)]
        if entry.bits:
            if entry.bits <= count:
                memcpy(out, entry.symbols, 2)
                out += 1 + (entry.bits != entry.first_bits)
                n = entry.bits
            elif entry.first_bits <= count:
                out[0] = entry.symbols[0]
                out += 1
                n = entry.first_bits
            else:
                break
        else:
            # EOS has 30 bits and cannot be whole here.
            n = long_code_length(bits)
            if n > count:
                break
            out[0] = <uint8_t>long_code_symbol(bits, n)
            out += 1
        bits <<= n
        count -= n
    # §5.2: the padding is the most significant bits of EOS, all ones, and strictly shorter than 8 bits.
    if count >= 8 or (count > 0 and (bits >> (64 - count)) != (<uint64_t>1 << count) - 1):
        return -1
    return out - start


cdef Py_ssize_t huffman_length(const uint8_t* data, Py_ssize_t length) noexcept:
    cdef Py_ssize_t bits = 0, i
    for i in range(length):
        bits += LENGTHS[data[i]]
    return (bits + 7) >> 3


cdef uint8_t* huffman_encode(const uint8_t* data, Py_ssize_t length, uint8_t* out) noexcept:
    cdef uint64_t bits = 0       # aligned right; the lowest `count` are not written yet
    cdef int count = 0
    cdef Py_ssize_t i
    cdef uint32_t word
    for i in range(length):
        bits = bits << LENGTHS[data[i]] | CODES[data[i]]
        count += LENGTHS[data[i]]
        if count >= 32:
            count -= 32
            word = <uint32_t>(bits >> count)
            out[0] = <uint8_t>(word >> 24)
            out[1] = <uint8_t>(word >> 16)
            out[2] = <uint8_t>(word >> 8)
            out[3] = <uint8_t>word
            out += 4
    while count >= 8:
        count -= 8
        out[0] = <uint8_t>(bits >> count)
        out += 1
    if count:
        out[0] = <uint8_t>(bits << (8 - count) | 0xff >> count)
        out += 1
    return out


# ===== the tables =====

cdef int build_code_tables() except -1:
    cdef int n = 0
    for position, (symbol, code, length) in enumerate(code_table()):
        SYMBOLS[position] = symbol
        CODES[symbol] = code
        LENGTHS[symbol] = length
        if length != n:
            n = length
            FIRST_CODE[n] = code << (32 - n)
            FIRST_POSITION[n] = position
        CODE_LIMIT[n] = (<uint64_t>code + 1) << (32 - n)
    # Lengths that no code has (9, 16 to 18, 29) end where the next shorter one does.
    for n in range(1, LONGEST + 1):
        if CODE_LIMIT[n] == 0:
            CODE_LIMIT[n] = CODE_LIMIT[n - 1]
    return 0


# Writes the entries of all 11-bit values that begin with `code`; `bits` is its length, `first` that of its first code.
cdef int fill_lookup(uint32_t code, int bits, int first, bytes symbols) except -1:
    cdef uint32_t i
    cdef Lookup* entry
    for i in range(code << (LOOKUP_BITS - bits), (code + 1) << (LOOKUP_BITS - bits)):
        entry = &LOOKUP[i]
        entry.symbols[0] = symbols[0]
        entry.symbols[1] = symbols[len(symbols) - 1]
        entry.first_bits = <uint8_t>first
        entry.bits = <uint8_t>bits
    return 0


cdef int build_lookup() except -1:
    cdef list short = [(s, code, n) for s, code, n in code_table() if n <= LOOKUP_BITS]
    for first, first_code, first_bits in short:
        fill_lookup(first_code, first_bits, first_bits, bytes([first]))
    for first, first_code, first_bits in short:
        for second, second_code, second_bits in short:
            if first_bits + second_bits > LOOKUP_BITS:
                break
            fill_lookup(
                first_code << second_bits | second_code, first_bits + second_bits, first_bits, bytes([first, second])
            )
    return 0


if len(CODE_LENGTHS) != EOS + 1 or LONGEST_CODE != LONGEST:
    raise ImportError("huffman_code.py does not hold the code of RFC 7541 Appendix B")
build_code_tables()
build_lookup()
