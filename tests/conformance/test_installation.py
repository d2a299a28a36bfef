"""The chart and the kustomizations on a real API server: admitted, installed, upgraded, gone again.

The Pods are real but for their image: `rig/container.py` plays the container runtime, so the account's token, the
user, the capabilities and the read-only root are those of the manifest. Pod security is judged by the API server.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conformance.backend import ClusterBackend
from tests.conformance.installation import (
    LISTENER_PORT,
    POD_SECURITY,
    RELEASE,
    Installation,
    delete_namespace,
    installed,
    privileges,
    processes,
    writable_mounts,
)
from tests.conformance.rig.cluster import Cluster
from tests.conformance.rig.rest import Api, ApiError, Object, path_of
from tests.conformance.world import World, condition, eventually
from tests.deploy.rendering import DEPLOY, HOST_PORTS, KUSTOMIZE, kustomized, render
from tests.doubles.client import stream_stream
from tests.doubles.gateway import ROOT
from tests.doubles.objects import endpoint, endpoint_slice, listener, ref, rule

pytestmark = pytest.mark.cluster

EVERYTHING = (
    "--set",
    "autoscaling.enabled=true,metrics.service.enabled=true,priorityClassName=system-cluster-critical,"
    "gatewayClass.parametersRef.name=a,gatewayClass.parametersRef.namespace=b,service.loadBalancerClass=example.com/lb,"
    "rbac.certificateNamespaces={default},podLabels.team=edge,podAnnotations.note=x",
    "--set-json",
    'ports=[{"name":"grpc","port":50051,"containerPort":15051,"nodePort":30051}]',
    "--set-json",
    'networkPolicy={"metricsFrom":[{"namespaceSelector":{}}],"egress":[{"to":[{"namespaceSelector":{}}]}]}',
)


# ===== what the API server says to the manifests =====


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="defaults"),
        pytest.param(("--set", "kind=DaemonSet"), id="daemonset"),
        pytest.param(HOST_PORTS, id="host ports"),
        pytest.param(("--set", "watchNamespaces={default,kube-public}"), id="namespaced"),
        pytest.param(("--set", "service.type=NodePort"), id="node port"),
        pytest.param(EVERYTHING, id="everything"),
    ],
)
def test_chart_is_accepted(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    """Server-side dry run, with fields that the API server does not know being errors."""
    accept(cluster, render(*arguments, namespace="kube-public"))


@pytest.mark.parametrize("name", ["base", "daemonset", "hostport"])
def test_kustomization_is_accepted(cluster: Cluster, api: Api, name: str) -> None:
    objects = kustomized(name)
    (namespace,) = (item for item in objects if item["kind"] == "Namespace")
    api.apply(namespace)  # a dry run creates none for the others
    try:
        accept(cluster, objects)
    finally:
        delete_namespace(cluster, namespace["metadata"]["name"])


def accept(cluster: Cluster, objects: list[Object]) -> None:
    file = cluster.folder / "dry-run.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    flags = ("--server-side", "--dry-run=server", "--validate=strict", "-f", str(file))
    done = cluster.kubectl("apply", *flags)
    assert done.stdout.count("serverside-applied") == len(objects)
    # Of Pod security, deprecated versions, unknown fields; but not of the GatewayClass that other tests applied
    # on the client's side, which tells nothing about the manifests.
    warnings = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert [line for line in warnings if "last-applied-configuration" not in line] == []


# ===== one installation each =====


def test_host_ports_need_a_privileged_namespace(cluster: Cluster, api: Api) -> None:
    with installed(cluster, api, "pygw-edge", *HOST_PORTS, level="privileged") as installation:
        assert len(installation.pods()) == 1  # the rig has one node
        # A namespace that demands more gets no Pod, and says why.
        label = {"metadata": {"labels": {POD_SECURITY: "baseline"}}}
        api.patch({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pygw-edge"}}, label)
        installation.kubectl("delete", "pod", "--all", "--wait=false")
        said = "involvedObject.kind=DaemonSet,reason=FailedCreate"
        eventually(lambda: "hostPort" in installation.kubectl("get", "events", "--field-selector", said), "refused")
        assert installation.pods() == {}


def test_daemonset_with_rights_in_one_namespace(cluster: Cluster, api: Api, world: World) -> None:
    """Roles alone: what is in the namespace is served and gets its status, what is elsewhere is not even seen."""
    values = f"kind=DaemonSet,watchNamespaces={{{world.namespace}}},gatewayAddresses={{192.0.2.1}}"
    with installed(cluster, api, "pygw-team", "--set", values) as installation:
        backend = world.backend()
        world.gateway(listener())
        world.route(rule(ref()))
        (address,) = installation.pods().values()
        world.wait_until_served(world.channel(address=address, port=LISTENER_PORT), backend)
        assert world.status("Gateway", "gw")["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]
        assert condition(world.api.get("GatewayClass", "pygw").get("status", {}), "Accepted")[0] != "True"


def test_uninstall_leaves_the_crd_alone(cluster: Cluster, api: Api) -> None:
    with installed(cluster, api, "pygw-gone") as installation:
        items = installation.manifest()
    for item in items:
        version, kind, metadata = item["apiVersion"], item["kind"], item["metadata"]
        with pytest.raises(ApiError, match=r" 404 "):
            api.get(kind, metadata["name"], metadata.get("namespace", ""), version)
    assert api.get("CustomResourceDefinition", "gatewayconfigs.pygw.dev", "")


def test_kustomize_is_installed_by_kubectl(cluster: Cluster, api: Api) -> None:
    """`kubectl apply -k`, which has a kustomize of its own."""
    api.delete("GatewayClass", "pygw")
    folder = str(KUSTOMIZE / "base")
    with ExitStack() as stack:
        stack.callback(cluster.kubectl, "delete", "-k", folder, "--ignore-not-found", "--timeout=120s")
        cluster.kubectl("apply", "--server-side", "-k", folder)
        status = ("rollout", "status", "deployment/pygw", "--namespace", "pygw-system", "--timeout=120s")
        cluster.kubectl(*status)
        cluster.kubectl("wait", "gatewayclass/pygw", "--for=condition=Accepted", "--timeout=30s")


# ===== the page of the GRPCRoute, on an installation as it comes =====


@pytest.fixture(scope="module")
def installation(cluster: Cluster, api: Api) -> Iterator[Installation]:
    """The chart with its defaults, in a namespace that demands restricted Pods."""
    with installed(cluster, api, "pygw-system") as found:
        yield found


SERVICES = (
    "greeter-service",
    "default-grpc",
)  # of method.yaml and of the rule without matches in multiple-services.yaml


@pytest.fixture(scope="module")
def page(installation: Installation) -> Iterator[ClusterBackend]:
    """Gateway and routes of the page, applied as they are, and a backend that is two of its Services."""
    api, kubectl = installation.api, installation.cluster.kubectl
    files = ["-f", str(DEPLOY / "examples"), "-f", str(ROOT / "examples" / "grpcroute")]
    files += ["-f", str(ROOT / "examples" / "services.yaml")]
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "auth-system"}})
    try:
        kubectl("apply", *files)
        with ClusterBackend("page", "10.245.90.1") as backend:
            ports = [{"name": "grpc", "port": backend.port}]
            one = endpoint(backend.address, conditions={"ready": True})
            for service in SERVICES:
                api.apply(endpoint_slice(one, service=service, ports=ports))
            yield backend
    finally:
        kubectl("delete", "--ignore-not-found", *files)
        for service in SERVICES:
            api.delete("EndpointSlice", f"{service}-1")
        delete_namespace(installation.cluster, "auth-system")


def test_every_route_of_the_page_is_accepted(installation: Installation, page: ClusterBackend) -> None:
    def verdicts() -> dict[str, str]:
        routes = installation.api.list("GRPCRoute", "default")
        parents = {item["metadata"]["name"]: item.get("status", {}).get("parents") or [{}] for item in routes}
        return {name: condition(found[0], "Accepted")[0] for name, found in parents.items()}

    eventually(lambda: set(verdicts().values()) == {"True"}, "all accepted")
    assert len(verdicts()) >= 10


def test_gateway_says_the_address_of_the_load_balancer(installation: Installation, page: ClusterBackend) -> None:
    ingress = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}
    service = installation.api.get("Service", RELEASE, installation.namespace)
    installation.api.patch({"apiVersion": "v1", "kind": "Service", **service}, {"status": ingress}, "status")

    def addresses() -> list[str]:
        gateway = installation.api.get("Gateway", "pingora-gateway", "pingora-system")
        return [one["value"] for one in gateway.get("status", {}).get("addresses") or ()]

    eventually(lambda: addresses() == ["203.0.113.7"], "told")
    wait = ("gateway/pingora-gateway", "--namespace", "pingora-system", "--for=condition=Programmed", "--timeout=30s")
    installation.cluster.kubectl("wait", *wait)


def test_every_pod_serves_the_page(installation: Installation, page: ClusterBackend, world: World) -> None:
    for address in installation.pods().values():
        channel = world.channel("grpc.example.com", address=address, port=LISTENER_PORT)
        world.wait_until_served(channel, page, "helloworld.Greeter/SayHello")


def test_pods_have_no_privilege(installation: Installation) -> None:
    """As the kernel has it: what the API server admitted as restricted is what runs."""
    pods = installation.pods()
    assert len(pods) == 2
    for pod in pods:
        running = processes(pod)
        assert len(running) >= 3  # launcher, control process, worker
        for process in running:
            found = privileges(process)
            assert (found["Uid"], found["Gid"], found["Groups"]) == (" ".join(["65532"] * 4),) * 2 + ("",)
            assert {int(found[name], 16) for name in found if name.startswith("Cap")} == {0}
            assert found["NoNewPrivs"] == "1"
            assert writable_mounts(process) == []


def test_namespace_refuses_what_is_not_restricted(installation: Installation) -> None:
    """So that its admitting our Pods means something."""
    containers = [{"name": "a", "image": "a", "securityContext": {"privileged": True}}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": installation.namespace}}
    with pytest.raises(ApiError, match="violates PodSecurity"):
        installation.api.apply({**pod, "spec": {"containers": containers}})


def test_roles_are_enough(installation: Installation, page: ClusterBackend) -> None:
    """Statuses, the Lease, Events and infrastructure objects were written, and nothing was forbidden."""
    api, namespace = installation.api, installation.namespace

    def told() -> bool:
        events = api.call("GET", path_of("Event", "", "default", "events.k8s.io/v1"))["items"]
        return any(
            event["reason"] == "BackendNotFound" or event["regarding"]["kind"] == "GRPCRoute" for event in events
        )

    holder = api.get("Lease", "pygw.dev-gateway-controller", namespace)["spec"]["holderIdentity"]
    assert any(holder.startswith(f"{pod}_") for pod in installation.pods())
    assert api.get("ServiceAccount", "pingora-gateway-pygw", "pingora-system")
    # A route that refers to nothing is told about.
    broken = {"name": "broken", "namespace": "default"}
    api.apply({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute", "metadata": broken,
        "spec": {
            "parentRefs": [{"name": "pingora-gateway", "namespace": "pingora-system"}],
            "rules": [{"backendRefs": [{"name": "not-there", "port": 1}]}],
        },
    })  # fmt: skip
    try:
        eventually(told, "an Event")
    finally:
        api.delete("GRPCRoute", "broken")
    assert installation.refused_requests() == 0


def test_a_call_outlives_an_upgrade(installation: Installation, page: ClusterBackend, world: World) -> None:
    """Every Pod is replaced; the calls that were open end well, within the grace period."""
    before = installation.pods()
    sent: list[queue.SimpleQueue[bytes]] = []
    answers = []
    for address in before.values():
        channel = world.channel("api.example.com", address=address, port=LISTENER_PORT)
        world.wait_until_served(channel, page)
        messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        messages.put(b"before")
        sent.append(messages)
        answers.append(stream_stream(channel, "test.Echo/Chat")(iter(messages.get, b""), timeout=90.0))
        assert next(answers[-1]) == b"before"
    installation.install("--set", "log.level=debug")
    assert not before.keys() & installation.pods().keys()
    for messages, answer in zip(sent, answers, strict=True):
        messages.put(b"after")
        messages.put(b"")
        assert list(answer) == [b"after"]
    eventually(lambda: not any(map(processes, before)), "ended", patience=40.0)
