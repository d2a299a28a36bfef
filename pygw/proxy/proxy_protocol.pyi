from typing import Any

def parse(data: bytes) -> tuple[int, dict[str, Any] | None]:
    """How many octets the header takes and what it says; (0, None): not whole yet; (-1, None): malformed.

    `source` and `destination` are "" where the header names no address.
    """
