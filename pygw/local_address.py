"""One spelling for each local IP address, so that sites and connections meet. Imports nothing of pygw."""

from __future__ import annotations

import ipaddress


def canonical_address(address: str) -> str:
    """The usual text of an IP address, IPv4-mapped IPv6 as IPv4, without zone; what is none stays as it is."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
