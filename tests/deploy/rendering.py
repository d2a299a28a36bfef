"""The manifests of deploy/ as objects: by helm, by kustomize, or as the files are."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.doubles.gateway import ROOT
from tests.doubles.go_tools import go_tool

Object = dict[str, Any]

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "chart" / "pygw"
KUSTOMIZE = DEPLOY / "kustomize"
HOST_PORTS = ("-f", str(CHART / "values-hostport.yaml"))
RELEASE, NAMESPACE = "pygw", "pygw-system"


class RenderError(Exception):
    """helm did not render; the text is what it said."""


def helm(*arguments: str) -> str:
    """What `helm ARGUMENTS` prints. Raises RenderError."""
    done = subprocess.run([go_tool("helm"), *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RenderError(done.stderr)
    return done.stdout


def render(*arguments: str, release: str = RELEASE, namespace: str = NAMESPACE) -> list[Object]:
    """The objects of the chart, without its CRDs. Raises RenderError."""
    return objects_in(helm("template", release, str(CHART), "--namespace", namespace, *arguments))


def kustomized(name: str) -> list[Object]:
    """The objects of deploy/kustomize/NAME."""
    command = [str(go_tool("kustomize")), "build", str(KUSTOMIZE / name)]
    return objects_in(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)


def objects_in(text: str) -> list[Object]:
    """The objects of a YAML text."""
    return [item for item in yaml.safe_load_all(text) if item]


def read(*paths: Path) -> list[Object]:
    """The objects of YAML files."""
    return [item for path in paths for item in objects_in(path.read_text())]


def find(objects: Iterable[Object], kind: str, name: str = "") -> Object:
    """The one object of a kind (and name)."""
    found = [item for item in objects if item["kind"] == kind and name in ("", item["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects of kind {kind} {name}"
    return found[0]


def kinds(objects: Iterable[Object]) -> list[str]:
    """Their kinds, sorted."""
    return sorted(item["kind"] for item in objects)


def workload(objects: Iterable[Object]) -> Object:
    """The Deployment or DaemonSet."""
    return next(item for item in objects if item["kind"] in ("Deployment", "DaemonSet"))


def pod_of(objects: Iterable[Object]) -> Object:
    """The Pod's spec."""
    spec: Object = workload(objects)["spec"]["template"]["spec"]
    return spec


def container_of(objects: Iterable[Object]) -> Object:
    """Its one container."""
    (container,) = pod_of(objects)["containers"]
    return dict(container)
