from collections.abc import Iterable
from typing import Any

def check_request_fields(fields: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Why these fields are not a well-formed request (RFC 9113 §8); None if they are."""

def check_response_fields(fields: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Why these fields do not open a well-formed response; None if they do."""

def check_trailer_fields(fields: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Why these fields are not a well-formed trailer section; None if they are."""

def request_head(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    """What check_request() finds, by name; absent fields are None. Raises ValueError with the reason."""

def response_head(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    """What check_response() finds, by name; absent fields are None. Raises ValueError with the reason."""
