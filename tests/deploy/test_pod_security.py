"""The Pods of deploy/ keep to the restricted Pod security standard, and need less than it would allow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.pod_security import BASELINE, RESTRICTED, violations
from tests.deploy.rendering import HOST_PORTS, KUSTOMIZE, Object, container_of, kustomized, pod_of, read, render

BASE_POD = pod_of(read(KUSTOMIZE / "base" / "deployment.yaml"))


def test_base_is_restricted() -> None:
    assert violations(BASE_POD, RESTRICTED) == []


@pytest.mark.full
@pytest.mark.parametrize("arguments", [(), ("--set", "kind=DaemonSet"), ("--set", "watchNamespaces={a}")])
def test_chart_is_restricted(arguments: tuple[str, ...]) -> None:
    assert violations(pod_of(render(*arguments)), RESTRICTED) == []


@pytest.mark.full
@pytest.mark.parametrize("name", ["base", "daemonset"])
def test_kustomizations_are_restricted(name: str) -> None:
    assert violations(pod_of(kustomized(name)), RESTRICTED) == []


@pytest.mark.full
def test_host_ports_break_the_baseline_by_host_ports_alone() -> None:
    for pod in (pod_of(render(*HOST_PORTS)), pod_of(kustomized("hostport"))):
        expected = [f"containers[pygw].ports[{port}].hostPort" for port in (10080, 10443)]
        assert violations(pod, RESTRICTED) == violations(pod, BASELINE) == expected


def test_no_port_needs_a_capability() -> None:
    container = container_of(read(KUSTOMIZE / "base" / "deployment.yaml"))
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert min(port["containerPort"] for port in container["ports"]) >= 1024


def test_nothing_is_written() -> None:
    (container,) = BASE_POD["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "volumes" not in BASE_POD


# ===== that violations() sees them =====

Change = Callable[[Object, Object], Any]  # of the Pod, of its container


@pytest.mark.parametrize(
    ("level", "change", "expected"),
    [
        (BASELINE, lambda pod, _: pod.update(hostNetwork=True), "hostNetwork"),
        (
            BASELINE, lambda pod, _: pod.update(volumes=[{"name": "v", "hostPath": {"path": "/"}}]),
            "volumes[v].hostPath",
        ),
        (
            BASELINE, lambda pod, _: pod["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
            "sysctls[kernel.msgmax]",
        ),
        (
            BASELINE, lambda pod, _: pod["securityContext"].update(seLinuxOptions={"user": "u"}),
            "securityContext.seLinuxOptions",
        ),
        (BASELINE, lambda _, one: one["ports"][0].update(hostPort=80), "containers[pygw].ports[10080].hostPort"),
        (
            BASELINE, lambda _, one: one["securityContext"].update(privileged=True),
            "containers[pygw].securityContext.privileged",
        ),
        (
            BASELINE, lambda _, one: one["securityContext"].update(procMount="Unmasked"),
            "containers[pygw].securityContext.procMount",
        ),
        (
            BASELINE, lambda _, one: one["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
            "containers[pygw].capabilities.add[NET_ADMIN]",
        ),
        (
            BASELINE, lambda _, one: one["livenessProbe"]["httpGet"].update(host="192.0.2.1"),
            "containers[pygw]: a probe or hook with a host",
        ),
        (
            RESTRICTED, lambda pod, _: pod.update(volumes=[{"name": "v", "nfs": {"server": "s", "path": "/"}}]),
            "volumes[v]",
        ),
        (RESTRICTED, lambda pod, _: pod["securityContext"].update(runAsUser=0), "securityContext.runAsUser"),
        (RESTRICTED, lambda pod, _: pod["securityContext"].pop("runAsNonRoot"), "containers[pygw].runAsNonRoot"),
        (RESTRICTED, lambda pod, _: pod["securityContext"].pop("seccompProfile"), "containers[pygw].seccompProfile"),
        (
            RESTRICTED, lambda _, one: one["securityContext"].pop("allowPrivilegeEscalation"),
            "containers[pygw].allowPrivilegeEscalation",
        ),
        (RESTRICTED, lambda _, one: one["securityContext"].pop("capabilities"), "containers[pygw].capabilities.drop"),
        (
            RESTRICTED, lambda _, one: one["securityContext"]["capabilities"].update(add=["CHOWN"]),
            "containers[pygw].capabilities.add",
        ),
    ],
)  # fmt: skip
def test_a_violation_is_seen(level: str, change: Change, expected: str) -> None:
    pod = copy.deepcopy(BASE_POD)
    change(pod, pod["containers"][0])
    assert violations(pod, level) == [expected]
    if level == RESTRICTED:
        assert violations(pod, BASELINE) == []
