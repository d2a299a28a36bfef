"""RunOptions: what `pygw run` was asked to do, as the launcher hands it to the control process and the workers.

Plain values only: it travels as JSON. Imports nothing of pygw.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `pygw run`; times in seconds."""

    paths: tuple[str, ...]
    workers: int
    port_map: dict[str, int] = field(default_factory=dict)  # listener's port (JSON keys are text) -> local port
    bind: tuple[str, ...] = ("*",)
    admin: tuple[str, int] | None = None
    probe: tuple[str, int] | None = None
    controller_name: str = "pygw.dev/gateway-controller"
    gateway_addresses: tuple[str, ...] = ()
    resolve: tuple[tuple[str, str, int, str, int], ...] = ()  # namespace, name, port -> host, port
    trusted_proxies: tuple[str, ...] = ()
    proxy_protocol_from: tuple[str, ...] = ()
    log_format: str = "json"
    log_level: str = "info"
    access_log: str = "off"  # off, json, or a path
    drain_delay: float = 5.0
    drain_timeout: float = 30.0
    settings: dict[str, Any] = field(default_factory=dict)  # Settings fields that differ from their defaults
    kubernetes: bool = False  # the source is the Kubernetes API, and paths are empty
    kubeconfig: str = ""
    context: str = ""
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    gateway_service: str = ""  # NAMESPACE/NAME
    gateway_classes: tuple[str, ...] = ("pygw",)  # ours where GatewayClasses may not be read
    allow_external_names: bool = False
    node: str = ""  # where we run
    zone: str = ""
    run_dir: str = ""  # of the control socket; "": none
    takeover: bool = False  # take the sockets over from the instance that runs there

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunOptions:
        """What to_json() gave, after its way through JSON (which has lists and no tuples)."""
        return cls(**{item.name: _tuples(values[item.name]) for item in fields(cls)})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
