"""All cases: importing the groups puts theirs on the list."""

from __future__ import annotations

from . import backend_faults, drains, floods, grpc_calls, headers, protocol, slow
from .case import CASES

__all__ = ["CASES", "backend_faults", "drains", "floods", "grpc_calls", "headers", "protocol", "slow"]
