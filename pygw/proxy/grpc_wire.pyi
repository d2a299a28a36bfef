from collections.abc import Iterable

def percent_encode_message(text: bytes) -> bytes:
    """A grpc-message as it goes on the wire."""

def parse_grpc_timeout(text: bytes) -> int:
    """A grpc-timeout in microseconds; -1 if malformed."""

def format_grpc_timeout(microseconds: int) -> bytes:
    """The grpc-timeout nearest to `microseconds` that is not longer."""

def follow_messages(chunks: Iterable[bytes]) -> tuple[int, bool]:
    """How many whole messages these pieces of DATA hold, and whether they end between two messages."""
