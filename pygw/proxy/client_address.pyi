from collections.abc import Iterable, Sequence

class TrustedProxies:
    """Networks whose peers are believed, and how many proxies appended to x-forwarded-for before us.

    `networks` are IP addresses or ADDRESS/PREFIX texts; none: no peer is trusted. Raises ValueError that says what
    is wrong with which of them. The rules are in client_address.pxd.
    """

    hops: int
    def __init__(self, networks: Iterable[str] = (), hops: int = 1) -> None: ...

def normalize_address(text: bytes) -> str | None:
    """An IP address as logs and x-forwarded-for show it; None if `text` is none."""

def trusts(proxies: TrustedProxies, text: bytes) -> bool:
    """Does this peer's address lie in a trusted network?"""

def forward(
    proxies: TrustedProxies, peer: bytes, trusted: bool, fields: Sequence[tuple[bytes, bytes]], capacity: int = 1024
) -> tuple[bytes, bytes, str]:
    """x-forwarded-for, the client's address and x-forwarded-proto of a request with these fields from this peer."""
