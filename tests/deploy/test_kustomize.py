"""The kustomizations are what the chart renders: written down apart, so that they can be read, but never different."""

from __future__ import annotations

import copy

import pytest

from tests.deploy.rendering import DEPLOY, HOST_PORTS, NAMESPACE, Object, find, kustomized, read, render

pytestmark = pytest.mark.full

HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
OVERLAYS = {"base": (), "daemonset": ("--set", "kind=DaemonSet"), "hostport": HOST_PORTS}


def comparable(objects: list[Object]) -> dict[tuple[str, str], Object]:
    """By kind and name, without what only one of the two tools has."""
    found = {}
    for item in copy.deepcopy(objects):
        if item["kind"] in ("Namespace", "CustomResourceDefinition"):
            continue  # helm makes the one by --create-namespace, and takes the other from the chart's crds/
        for label in HELM_LABELS:
            item["metadata"].get("labels", {}).pop(label, None)
        found[item["kind"], item["metadata"]["name"]] = item
    return found


@pytest.mark.parametrize("name", OVERLAYS)
def test_same_as_the_chart(name: str) -> None:
    assert comparable(kustomized(name)) == comparable(render(*OVERLAYS[name]))


@pytest.mark.parametrize("name", OVERLAYS)
def test_namespace_admits_the_pods(name: str) -> None:
    namespace = find(kustomized(name), "Namespace", NAMESPACE)
    level = "privileged" if name == "hostport" else "restricted"
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == level


@pytest.mark.parametrize("name", OVERLAYS)
def test_crd_is_there(name: str) -> None:
    (ours,) = read(DEPLOY / "crds" / "pygw.dev_gatewayconfigs.yaml")
    assert find(kustomized(name), "CustomResourceDefinition")["spec"] == ours["spec"]
