"""The Helm chart: what it renders, what it refuses, and that pygw understands the arguments it is given."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import yaml

from pygw import __version__
from pygw.commands import run
from pygw.commands.options import Parser
from tests.deploy.rendering import (
    CHART,
    HOST_PORTS,
    NAMESPACE,
    Object,
    RenderError,
    container_of,
    find,
    helm,
    kinds,
    pod_of,
    render,
    workload,
)

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
METADATA = yaml.safe_load((CHART / "Chart.yaml").read_text())
TEMPLATES = "".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))
POD_IPS = {"4": "192.0.2.9", "6": "2001:db8::9"}


def parsed(objects: list[Object], pod_ip: str = POD_IPS["4"]) -> Namespace:
    """What `pygw run` makes of the container's arguments."""
    variables = {"$(POD_IP)": pod_ip, "$(POD_NAMESPACE)": NAMESPACE}
    command, *arguments = container_of(objects)["args"]
    assert command == "run"
    for name, value in variables.items():
        arguments = [argument.replace(name, value) for argument in arguments]
    parser = Parser(prog="pygw run")
    run.add_arguments(parser)
    return parser.parse(arguments, {})


def sets(**values: Any) -> list[str]:
    """--set-json for each; `_` in a name stands for a dot."""
    named = {name.replace("_", "."): json.dumps(value) for name, value in values.items()}
    return [item for name, text in named.items() for item in ("--set-json", f"{name}={text}")]


# ===== the files, without helm =====


def test_versions_are_the_same() -> None:
    assert METADATA["version"] == METADATA["appVersion"] == __version__


def test_defaults_keep_to_the_schema() -> None:
    jsonschema_rs.meta.validate(SCHEMA)
    jsonschema_rs.validate(SCHEMA, VALUES)
    host_ports = yaml.safe_load((CHART / "values-hostport.yaml").read_text())
    jsonschema_rs.validate(SCHEMA, {**VALUES, **host_ports})


def paths_of(schema: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every value that the schema knows by name."""
    for name, inner in schema.get("properties", {}).items():
        if inner.get("additionalProperties") is False and inner.get("properties"):
            yield from paths_of(inner, (*path, name))
        else:
            yield (*path, name)


PATHS = [path for path in paths_of(SCHEMA) if path != ("global",)]


def test_each_value_has_a_default() -> None:
    """So values.yaml is the whole documentation."""
    without = []
    for path in PATHS:
        inner: Any = VALUES
        for name in path:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if inner is None and path[:2] != ("gatewayClass", "parametersRef"):
            without.append(".".join(path))
    assert without == []


def test_each_value_is_used() -> None:
    used = set(re.findall(r"\.([A-Za-z]+)", re.sub(r"\{\{/\*.*?\*/\}\}", "", TEMPLATES, flags=re.DOTALL)))
    assert [".".join(path) for path in PATHS if path[-1] not in used] == []


def test_crds_are_those_of_the_project() -> None:
    ours = CHART / "crds"
    source = CHART.parents[1] / "crds"
    names = {path.name for path in source.glob("*.yaml")} - {"kustomization.yaml"}
    assert {path.name: path.read_text() for path in ours.iterdir()} == {
        name: (source / name).read_text() for name in names
    }
    listed = yaml.safe_load((source / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(names)


# ===== what it renders =====

full = pytest.mark.full


@full
def test_lint() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


@full
def test_defaults() -> None:
    objects = render()
    assert kinds(objects) == [
        "ClusterRole", "ClusterRoleBinding", "Deployment", "GatewayClass", "NetworkPolicy", "PodDisruptionBudget",
        "Role", "RoleBinding", "Service", "ServiceAccount",
    ]  # fmt: skip
    service = find(objects, "Service")["spec"]
    assert (service["type"], service["externalTrafficPolicy"]) == ("LoadBalancer", "Cluster")
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(80, "http"), (443, "https")]
    options = parsed(objects)
    assert options.kubernetes
    assert options.port_map == [(80, 10080), (443, 10443)]
    assert options.gateway_service == f"{NAMESPACE}/pygw"
    assert options.admin == ("127.0.0.1", 9901)
    assert find(objects, "GatewayClass")["spec"] == {"controllerName": options.controller_name}


@full
def test_all_of_it_is_in_one_namespace_and_labelled() -> None:
    for item in render("--set", "metrics.serviceMonitor.enabled=true,autoscaling.enabled=true", release="edge"):
        metadata = item["metadata"]
        is_of_cluster = item["kind"] in ("ClusterRole", "ClusterRoleBinding", "GatewayClass")
        assert metadata.get("namespace") == (None if is_of_cluster else NAMESPACE), item["kind"]
        assert metadata["labels"]["app.kubernetes.io/instance"] == "edge"


@full
@pytest.mark.parametrize("arguments", [(), ("--set", "kind=DaemonSet"), HOST_PORTS])
@pytest.mark.parametrize("family", ["4", "6"])
def test_probes_are_where_the_kubelet_asks(arguments: tuple[str, ...], family: str) -> None:
    """At the Pod's address, of whichever family it is."""
    objects = render(*arguments)
    container = container_of(objects)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert parsed(objects, POD_IPS[family]).probe_address == (POD_IPS[family], ports["metrics"])
    probed = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probed.items()} == {
        "startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz",
    }  # fmt: skip
    assert {probe["port"] for probe in probed.values()} == {"metrics"}


@full
@pytest.mark.parametrize(("delay", "timeout"), [(5, 30), (0, 0), (12.5, 3600)])
def test_a_pod_has_time_to_drain(delay: float, timeout: float) -> None:
    objects = render(*sets(drain_delay=delay, drain_timeout=timeout))
    options = parsed(objects)
    assert (options.drain_delay, options.drain_timeout) == (delay, timeout)
    assert pod_of(objects)["terminationGracePeriodSeconds"] >= delay + timeout + VALUES["drain"]["margin"]
    # Ports and probes stay open while it drains; a hook would only put the drain off.
    assert "lifecycle" not in container_of(objects)


@full
def test_daemonset_behind_a_service() -> None:
    objects = render("--set", "kind=DaemonSet")
    assert "Deployment" not in kinds(objects)
    assert "PodDisruptionBudget" not in kinds(objects)
    assert find(objects, "Service")["spec"]["externalTrafficPolicy"] == "Local"
    assert workload(objects)["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert all("hostPort" not in port for port in container_of(objects)["ports"])


@full
def test_host_ports() -> None:
    objects = render(*HOST_PORTS)
    assert "Service" not in kinds(objects)
    ports = {port["name"]: port for port in container_of(objects)["ports"]}
    assert [(ports[name]["hostPort"], ports[name]["containerPort"]) for name in ("http", "https")] == [
        (80, 10080), (443, 10443),
    ]  # fmt: skip
    assert "hostPort" not in ports["metrics"]
    assert not pod_of(objects).get("hostNetwork")
    assert workload(objects)["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    options = parsed(objects)
    assert (options.gateway_service, options.gateway_address) == ("", [])  # so it is the nodes


@full
@pytest.mark.parametrize(
    ("values", "service", "addresses"),
    [
        ({}, f"{NAMESPACE}/pygw", []),
        ({"service_type": "NodePort"}, "", []),
        ({"service_enabled": False}, "", []),
        ({"gatewayAddresses": ["192.0.2.1", "2001:db8::1"]}, "", ["192.0.2.1", "2001:db8::1"]),
    ],
)
def test_where_addresses_come_from(values: dict[str, Any], service: str, addresses: list[str]) -> None:
    options = parsed(render(*sets(**values)))
    assert (options.gateway_service, options.gateway_address) == (service, addresses)


@full
def test_everything_that_becomes_an_argument() -> None:
    settings = {"max_connection_age": 600, "stream_window_max": 2097152, "x_forwarded": False, "connect_timeout": 1.5}
    options = parsed(
        render(
            *sets(
                settings=settings, watchNamespaces=["b", "a"], gatewayClass_name="internal", allowExternalNames=True,
                workers=3,
                trustedProxies=["10.0.0.0/8"], proxyProtocolFrom=["192.0.2.0/24"], log_level="debug",
                log_format="console", log_access="json", extraArgs=["--bind", "::"], controllerName="example.com/gw",
                ports=[{"name": "grpc", "port": 50051, "containerPort": 15051}], drain_delay=0,
            )
        )
    )  # fmt: skip
    assert dict(options.settings) == settings
    assert options.watch_namespace == ["a", "b"]
    assert options.gateway_class == ["internal"]
    assert options.allow_external_names
    assert options.workers == 3
    assert options.trusted_proxy == ["10.0.0.0/8"]
    assert options.proxy_protocol_from == ["192.0.2.0/24"]
    assert (options.log_level, options.log_format, options.access_log) == ("debug", "console", "json")
    assert options.bind == ["::"]
    assert options.controller_name == "example.com/gw"
    assert options.port_map == [(50051, 15051)]
    assert options.drain_delay == 0.0


@full
def test_no_variable_of_a_service_is_taken_for_an_option() -> None:
    """Kubernetes would set PYGW_PORT=tcp://…, and options are read from PYGW_…"""
    assert pod_of(render())["enableServiceLinks"] is False


@full
def test_replicas_of_two_versions_find_each_other() -> None:
    """They look for Pods with their own labels (pygw/control/kube/addresses.py)."""
    labels = workload(render())["spec"]["template"]["metadata"]["labels"]
    assert set(labels) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}


@full
def test_autoscaling() -> None:
    objects = render("--set", "autoscaling.enabled=true,autoscaling.maxReplicas=5")
    assert "replicas" not in workload(objects)["spec"]  # a render must not undo what the autoscaler did
    scaler = find(objects, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "pygw"}
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 5)
    assert container_of(objects)["resources"]["requests"]["cpu"]  # what utilization is a percentage of


@full
def test_network_policy_lets_in_what_is_declared() -> None:
    monitoring = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    policy = find(render(*sets(networkPolicy_metricsFrom=monitoring)), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [
        {"ports": [{"protocol": "TCP", "port": "http"}, {"protocol": "TCP", "port": "https"}]},
        {"ports": [{"protocol": "TCP", "port": "metrics"}], "from": monitoring},
    ]
    egress: list[Object] = [{"to": [{"namespaceSelector": {}}]}]
    policy = find(render(*sets(networkPolicy_egress=egress)), "NetworkPolicy")["spec"]
    assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], egress)


@full
def test_service_monitor_finds_the_metrics_service() -> None:
    objects = render("--set", "metrics.serviceMonitor.enabled=true")
    monitor, service = find(objects, "ServiceMonitor")["spec"], find(objects, "Service", "pygw-metrics")
    wanted = monitor["selector"]["matchLabels"].items()
    assert wanted <= service["metadata"]["labels"].items()
    assert not wanted <= find(objects, "Service", "pygw")["metadata"]["labels"].items()
    assert [port["name"] for port in service["spec"]["ports"]] == [monitor["endpoints"][0]["port"]]


@full
def test_selectors_select_the_pods() -> None:
    objects = render("--set", "metrics.service.enabled=true")
    labels = workload(objects)["spec"]["template"]["metadata"]["labels"].items()
    selectors = [workload(objects)["spec"]["selector"]["matchLabels"]]
    selectors += [item["spec"]["selector"] for item in objects if item["kind"] == "Service"]
    selectors.append(find(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    selectors.append(find(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    spread = pod_of(objects)["topologySpreadConstraints"]
    selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
    assert len(selectors) == 7
    assert all(selector.items() <= labels for selector in selectors)
    assert [constraint["matchLabelKeys"] for constraint in spread] == [["pod-template-hash"]] * 2


@full
def test_topology_spread_of_ones_own() -> None:
    own = {"topologyKey": "rack", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}
    own["labelSelector"] = {"matchLabels": {"a": "b"}}
    assert pod_of(render(*sets(topologySpreadConstraints=[own])))["topologySpreadConstraints"] == [own]
    assert "topologySpreadConstraints" not in pod_of(render(*sets(topologySpreadConstraints=[])))


@full
def test_namespaced_roles_alone() -> None:
    objects = render("--set", "watchNamespaces={a,b}", "--set", "gatewayClass.create=false")
    assert not any(kind.startswith(("Cluster", "GatewayClass")) for kind in kinds(objects))
    assert {item["metadata"]["namespace"] for item in objects if item["kind"] == "Role"} == {"a", "b", NAMESPACE}


@full
def test_an_account_of_ones_own() -> None:
    objects = render("--set", "serviceAccount.create=false,serviceAccount.name=mine")
    assert "ServiceAccount" not in kinds(objects)
    assert pod_of(objects)["serviceAccountName"] == "mine"
    bindings = [item for item in objects if item["kind"].endswith("Binding")]
    assert {subject["name"] for binding in bindings for subject in binding["subjects"]} == {"mine"}


@full
@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, f"pygw-grpc:{__version__}"),
        ({"image_repository": "registry.example.com/pygw", "image_tag": "1.2"}, "registry.example.com/pygw:1.2"),
        ({"image_digest": f"sha256:{'0' * 64}"}, f"pygw-grpc@sha256:{'0' * 64}"),
    ],
)
def test_image(values: dict[str, Any], image: str) -> None:
    assert container_of(render(*sets(**values)))["image"] == image


@full
def test_class_with_parameters() -> None:
    reference = {"name": "edge", "namespace": "infra"}
    spec = find(render(*sets(gatewayClass_parametersRef=reference)), "GatewayClass")["spec"]
    assert spec["parametersRef"] == {"group": "pygw.dev", "kind": "GatewayConfig", **reference}


# ===== what it refuses, and what it says =====


def port(name: str, number: int, local: int) -> Object:
    return {"name": name, "port": number, "containerPort": local}


@full
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replica": 3}, "additional properties 'replica' not allowed"),
        ({"kind": "StatefulSet"}, "/kind"),
        ({"hostPorts": True}, "/kind': value must be 'DaemonSet'"),
        ({"kind": "DaemonSet", "autoscaling_enabled": True}, "/autoscaling/enabled"),
        ({"ports": []}, "/ports': minItems"),
        ({"ports": [port("a", 80, 80)]}, "/ports/0/containerPort': minimum: got 80, want 1,024"),
        ({"ports": [port("a", 80, 8080), port("b", 80, 8081)]}, "port 80 is there twice"),
        ({"ports": [port("a", 80, 8080), port("a", 81, 8081)]}, "two have the name a"),
        ({"ports": [port("a", 80, 8080), port("b", 81, 8080)]}, "containerPort 8080 of b is in use"),
        ({"metrics_port": 10080}, "containerPort 10080 of http is in use"),
        ({"drain_margin": 0}, "/drain/margin"),
        ({"settings": {"Max-Age": 1}}, "Max-Age"),
        ({"controllerName": "pygw"}, "/controllerName"),
        ({"watchNamespaces": ["a"], "rbac_certificateNamespaces": ["b"]}, "b is not among watchNamespaces"),
        ({"serviceAccount_create": False}, "serviceAccount.name: name the ServiceAccount"),
        ({"gatewayClass_parametersRef": {"name": "edge"}}, "/gatewayClass/parametersRef"),
    ],
)  # fmt: skip
def test_refusals(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RenderError, match=re.escape(message)):
        render(*sets(**values))


def notes(*arguments: str) -> str:
    """What `helm install` says in the end."""
    said = helm("install", "pygw", str(CHART), "--namespace", NAMESPACE, "--dry-run=client", *arguments)
    return said.partition("NOTES:")[2]


@full
@pytest.mark.parametrize(
    ("arguments", "says", "says_not"),
    [
        ((), "enforce=restricted", "WARNING"),
        (HOST_PORTS, "pod-security.kubernetes.io/enforce=privileged", "restricted"),
        (("--set", "service.type=ClusterIP"), "WARNING: the Service is of type ClusterIP", "load balancer"),
        (("--set", "autoscaling.enabled=true"), "settings.max_connection_age", "WARNING"),
        (("--set", "autoscaling.enabled=true,settings.max_connection_age=60"), "load balancer", "max_connection_age"),
        (("--set", "watchNamespaces={a,b}"), "Only the namespaces a, b are read", "WARNING"),
        (("--set", "rbac.create=false"), "rbac.create is off", "WARNING"),
    ],
)
def test_notes(arguments: tuple[str, ...], says: str, says_not: str) -> None:
    text = notes(*arguments)
    assert says in text
    assert says_not not in text
