"""An installation of pygw by helm in the rig, and what its Pods are to the kernel and to those who call them."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.conformance.rig.cluster import Cluster
from tests.conformance.rig.rest import Api, Object
from tests.deploy.rendering import CHART, objects_in, workload
from tests.doubles.go_tools import go_tool

RELEASE = "pygw"
LISTENER_PORT, METRICS_PORT = 10080, 9902  # as the chart has them
# What the chart has by default is for real clusters; the rig has two cores.
QUICK = ("--set", "workers=1,drain.delay=1,drain.timeout=20")
# The rig has no node controller, which would take this taint of every new node away.
TAINTED = ("--set-json", 'tolerations=[{"key":"node.kubernetes.io/not-ready","operator":"Exists"}]')
POD_SECURITY = "pod-security.kubernetes.io/enforce"
_KERNELS_OWN = ("/proc", "/sys", "/dev")


class Installation:
    """One release of the chart."""

    def __init__(self, cluster: Cluster, api: Api, namespace: str) -> None:
        self.cluster, self.api, self.namespace = cluster, api, namespace
        self._home = cluster.folder / "helm"

    def helm(self, *arguments: str) -> str:
        """`helm ARGUMENTS` in the namespace. Raises RuntimeError with what it said."""
        homes = [f"HELM_{name}_HOME={self._home}" for name in ("CACHE", "CONFIG", "DATA")]
        return self.cluster.run("env", *homes, str(go_tool("helm")), "--namespace", self.namespace, *arguments).stdout

    def kubectl(self, *arguments: str) -> str:
        """`kubectl ARGUMENTS` in the namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments).stdout

    def install(self, *arguments: str, wait: bool = True) -> None:
        """Install the chart, or upgrade to it. Waits for the Pods; not for a load balancer, which nobody gives."""
        self.helm("upgrade", "--install", RELEASE, str(CHART), *QUICK, *TAINTED, *arguments)
        if wait:
            kind = workload(self.manifest())["kind"].lower()
            self.kubectl("rollout", "status", f"{kind}/{RELEASE}", "--timeout=120s")

    def manifest(self) -> list[Object]:
        """What the release consists of."""
        return objects_in(self.helm("get", "manifest", RELEASE))

    def pods(self) -> dict[str, str]:
        """Name and address of each Pod that is not ending."""
        return {
            pod["metadata"]["name"]: pod["status"].get("podIP", "")
            for pod in self.api.list("Pod", self.namespace)
            if not pod["metadata"].get("deletionTimestamp")
        }

    def refused_requests(self) -> float:
        """How many requests the API server has forbidden to all Pods."""
        return sum(_forbidden(address) for address in self.pods().values())


@contextmanager
def installed(
    cluster: Cluster, api: Api, namespace: str, *arguments: str, level: str = "restricted"
) -> Iterator[Installation]:
    """The chart in a fresh namespace of that Pod security level; all of it is gone afterwards."""
    labels = {POD_SECURITY: level}
    api.delete("GatewayClass", "pygw")  # of other tests; helm takes over nothing that it did not make
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    installation = Installation(cluster, api, namespace)
    try:
        installation.install(*arguments)
        yield installation
    finally:
        installation.helm("uninstall", RELEASE, "--ignore-not-found")
        delete_namespace(cluster, namespace)


def delete_namespace(cluster: Cluster, name: str) -> None:
    """Delete it, and wait until its name is free again: the Pods in it have to drain."""
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=120s")


def _forbidden(address: str) -> float:
    with urllib.request.urlopen(f"http://{address}:{METRICS_PORT}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["pygw_kubernetes_requests"].samples
    return sum(sample.value for sample in samples if sample.labels.get("status") == "403")


def processes(pod: str) -> list[Path]:
    """The folders in /proc of a Pod's processes."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # it has just ended
                continue
            if f"POD_NAME={pod}".encode() in environment:
                found.append(folder)
    return found


def privileges(process: Path) -> dict[str, str]:
    """What the kernel says of a process: its users, capabilities and whether it can gain any."""
    wanted = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
    lines = [line.partition(":") for line in (process / "status").read_text().splitlines()]
    return {name: " ".join(text.split()) for name, _, text in lines if name in wanted}


def writable_mounts(process: Path) -> list[str]:
    """Where a process could write, beside the kernel's own file systems."""
    points = [line.split()[4:6] for line in (process / "mountinfo").read_text().splitlines()]
    return [
        point
        for point, options in points
        if "rw" in options.split(",") and not any(point == own or point.startswith(f"{own}/") for own in _KERNELS_OWN)
    ]
