"""The negative control: an "implementation" that says it accepts everything and serves nothing.

    python -m tests.conformance.rig.stub

inside a rig. It shows that the rig and the suite can fail: of the 15 core tests it passes only the four that ask for
nothing but conditions with the current observedGeneration.
"""

from __future__ import annotations

import time
from typing import Any

from tests.conformance.rig.cluster import Cluster
from tests.conformance.rig.pod import now
from tests.conformance.rig.rest import GATEWAY_GROUP, Api, ApiError, Object

CONTROLLER = "pygw.dev/negative-control"
ADDRESS = "10.245.0.1"
INTERVAL = 0.2
# Seconds that the suite waits for what the stub will never do, instead of a minute or three.
PATIENCE = 5
WAITS = (
    "MaxTimeToConsistency",
    "DefaultTestTimeout",
    "GatewayMustHaveCondition",
    "GatewayStatusMustHaveListeners",
    "GatewayListenersMustHaveConditions",
    "RouteMustHaveParents",
    "HTTPRouteMustHaveCondition",
    "LatestObservedGenerationSet",
)
PASSES = {
    "GatewayClassObservedGenerationBump",
    "GatewayObservedGenerationBump",
    "GatewaySecretReferenceGrantAllInNamespace",
    "GatewaySecretReferenceGrantSpecific",
}


def conditions(item: Object, *types: str) -> list[Object]:
    """True conditions of these types, each its own reason."""
    generation = item["metadata"]["generation"]
    common = {"status": "True", "message": "", "observedGeneration": generation, "lastTransitionTime": now()}
    return [{"type": kind, "reason": kind, **common} for kind in types]


def is_current(item: Object) -> bool:
    found = item.get("status", {}).get("conditions", [])
    return bool(found) and all(one.get("observedGeneration") == item["metadata"]["generation"] for one in found)


def gateway_status(gateway: Object) -> dict[str, Any]:
    kinds = [{"group": GATEWAY_GROUP, "kind": kind} for kind in ("HTTPRoute", "GRPCRoute")]
    listeners = [
        {"name": listener["name"], "attachedRoutes": 0, "supportedKinds": kinds}
        | {"conditions": conditions(gateway, "Accepted", "Programmed", "ResolvedRefs")}
        for listener in gateway["spec"]["listeners"]
    ]
    addresses = [{"type": "IPAddress", "value": ADDRESS}]
    current = conditions(gateway, "Accepted", "Programmed")
    return {"addresses": addresses, "conditions": current, "listeners": listeners}


def write(api: Api, item: Object, status: dict[str, Any]) -> None:
    try:
        api.patch(item, {"status": status}, "status")
    except ApiError as error:
        print(error, flush=True)  # deleted or changed meanwhile; the next round sees it


def main() -> None:
    """Accept whatever is there, again and again, until killed."""
    api = Cluster().api()
    while True:
        classes = [item for item in api.list("GatewayClass") if item["spec"]["controllerName"] == CONTROLLER]
        for item in classes:
            if not is_current(item):
                write(api, _typed(item, "GatewayClass"), {"conditions": conditions(item, "Accepted")})
        names = {item["metadata"]["name"] for item in classes}
        for gateway in api.list("Gateway"):
            if gateway["spec"]["gatewayClassName"] in names and not is_current(gateway):
                write(api, _typed(gateway, "Gateway"), gateway_status(gateway))
        time.sleep(INTERVAL)


def _typed(item: Object, kind: str) -> Object:
    """An item of a list, which does not say what it is."""
    return {**item, "apiVersion": f"{GATEWAY_GROUP}/v1", "kind": kind}


if __name__ == "__main__":
    main()
