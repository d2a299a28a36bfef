"""GatewayConfig: what parametersRef of a GatewayClass, or of a Gateway's infrastructure, can name (pygw.dev/v1alpha1).

A GatewayClass's settings hold for all its Gateways, and a Gateway's own replace them field by field. Anything that a
reference cannot mean is a fault (reason InvalidParameters): a Gateway that runs with other settings than its owner
wrote down is worse than one that does not run.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from pygw.control.cluster_state import ClusterState, Object
from pygw.control.references import GATEWAY_GROUP

GROUP = "pygw.dev"
KIND = "GatewayConfig"


@dataclass(frozen=True, slots=True)
class Parameters:
    """The settings of one GatewayConfig, or of several merged; empty is "not set"."""

    addresses: tuple[str, ...] = ()  # for status.addresses of Gateways that name none
    bind_addresses: tuple[str, ...] = ()  # where Gateways that name no address bind

    def over(self, other: Parameters) -> Parameters:
        """These settings, and those of `other` where there is none."""
        return Parameters(
            addresses=self.addresses or other.addresses,
            bind_addresses=self.bind_addresses or other.bind_addresses,
        )


NO_PARAMETERS = Parameters()


def read_parameters(state: ClusterState, reference: dict[str, Any], namespace: str) -> tuple[Parameters, str]:
    """The settings that a reference leads to, and its fault ("": none).

    `namespace` is that of the Gateway; "" for a GatewayClass, whose reference has to name one.
    """
    group, kind, name = reference.get("group", GATEWAY_GROUP), reference.get("kind", ""), reference.get("name", "")
    if (group, kind) != (GROUP, KIND):
        shown = f"{group}/{kind}" if group else kind
        return NO_PARAMETERS, f"{shown} {name} is not a kind of parameters that pygw knows; only {GROUP}/{KIND} is"
    namespace = namespace or reference.get("namespace") or ""
    if not namespace:
        return NO_PARAMETERS, f"{KIND} {name}: a GatewayClass has to name the namespace too"
    item = state.find(KIND, namespace, name)
    if item is None:
        return NO_PARAMETERS, f"{KIND} {namespace}/{name} does not exist"
    return _read(item, f"{KIND} {namespace}/{name}")


def _read(item: Object, shown: str) -> tuple[Parameters, str]:
    spec = item.get("spec") or {}
    bind: list[str] = []
    for index, text in enumerate(spec.get("bindAddresses") or ()):
        address = ip_address(text)
        if address is None:
            return NO_PARAMETERS, f"{shown}: spec.bindAddresses[{index}]: {text} is not an IP address"
        bind.append(address)
    addresses = [ip_address(text) or text.lower() for text in spec.get("addresses") or ()]
    return Parameters(tuple(dict.fromkeys(addresses)), tuple(dict.fromkeys(bind))), ""


def ip_address(text: str) -> str | None:
    """An IP address in its usual form; None for anything else, one with a zone included."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) else str(address)
