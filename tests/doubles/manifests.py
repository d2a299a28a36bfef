"""Gateway API YAML that tests start from."""

from __future__ import annotations

from collections.abc import Iterable

GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway, namespace: default}
spec:
  gatewayClassName: pygw
  listeners: [{name: grpc, port: 80, protocol: HTTP}]
---
"""


def route(*rules: str, name: str = "route", hostnames: Iterable[str] = ()) -> str:
    """A GRPCRoute of `gateway` with these rules, each in YAML's flow style."""
    hosts = ", ".join(f'"{hostname}"' for hostname in hostnames)
    return "\n".join(
        [
            "apiVersion: gateway.networking.k8s.io/v1",
            "kind: GRPCRoute",
            f"metadata: {{name: {name}, namespace: default}}",
            "spec:",
            "  parentRefs: [{name: gateway}]",
            f"  hostnames: [{hosts}]",
            "  rules:",
            *(f"  - {rule}" for rule in rules),
            "---\n",
        ]
    )


def to(*services: str, matches: str = "") -> str:
    """A rule to these Services, port 50051; `NAME=WEIGHT` gives one a weight."""
    refs = []
    for service in services:
        name, _, weight = service.partition("=")
        refs.append(f"{{name: {name}, port: 50051, weight: {weight or 1}}}")
    matched = f"matches: {matches}, " if matches else ""
    return f"{{{matched}backendRefs: [{', '.join(refs)}]}}"
