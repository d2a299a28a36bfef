from collections.abc import Iterable
from typing import NamedTuple

NEVER_INDEXED: int
BAD_NAME: int
BAD_VALUE: int
INDEXED: int
ADDED: int

class RecordedField(NamedTuple):
    name: bytes
    value: bytes
    flags: int
    """Of NEVER_INDEXED, BAD_NAME, BAD_VALUE, INDEXED, ADDED."""
    token: int
    static_index: int
    hash: int
    has_memo: bool

class DecodedBlock(NamedTuple):
    result: str
    """decoded, too large, error, abuse"""
    fields: list[RecordedField]
    list_size: int
    error: str | None

class RecordingDecoder:
    """An HpackDecoder. The limits are in octets (RFC 9113 §6.5.2) and fields."""

    def __init__(self, header_table_size: int, max_list_size: int, max_fields: int) -> None: ...
    table_size: int
    table_max_size: int
    fields_seen: int
    """Of the last block, those that were dropped counted too."""
    scratch_octets: int
    holds_memory: bool
    def decode_block(self, block: bytes) -> DecodedBlock:
        """Decodes one block from memory that ends where the block does."""
    def recorded_fields(self) -> list[RecordedField]:
        """The fields of the last block, read again from where they are borrowed."""
    def table_entries(self) -> list[RecordedField]:
        """The dynamic table, newest first."""
    def acknowledge_table_size(self, size: int) -> None:
        """Our SETTINGS_HEADER_TABLE_SIZE was acknowledged."""
    def end_block(self) -> None:
        """Nothing borrows from the last block any more."""
    def repeat_decode(self, block: bytes, rounds: int) -> None: ...

class RecordingEncoder:
    """An HpackEncoder that uses max_table_size octets of the peer's table at most."""

    def __init__(self, max_table_size: int) -> None: ...
    id: int
    table_size: int
    table_max_size: int
    insertions: int
    evictions: int
    holds_memory: bool
    def encode_block(
        self, fields: Iterable[tuple[bytes, bytes] | tuple[bytes, bytes, int]], index: bool = False
    ) -> bytes:
        """Encodes (name, value, flags); with `index` every literal that may joins the table."""
    def encode_own(self, name: bytes, value: bytes, index: bool) -> bytes:
        """A block of one field that pygw makes itself."""
    def relay_block(self, decoder: RecordingDecoder) -> bytes:
        """Encodes the fields that the decoder has decoded last."""
    def set_peer_table_size(self, size: int) -> None:
        """SETTINGS_HEADER_TABLE_SIZE came."""
    def repeat_relay(self, decoder: RecordingDecoder, rounds: int) -> None: ...

def huffman_encode(octets: bytes) -> bytes: ...
def huffman_decode(octets: bytes) -> bytes:
    """Raises ValueError where RFC 7541 §5.2 is broken."""

def repeat_huffman_encode(octets: bytes, rounds: int) -> None: ...
def repeat_huffman_decode(octets: bytes, rounds: int) -> None: ...
def token_of(name: bytes) -> int: ...
def hash_field(name: bytes, value: bytes) -> int: ...
def classify(name: bytes, value: bytes) -> int:
    """BAD_NAME and BAD_VALUE, or 0."""

def static_table() -> list[RecordedField]: ...
