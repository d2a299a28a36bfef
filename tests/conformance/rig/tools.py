"""What the rig is made of: whether this machine can run it, and the Go programs, built once and kept.

All third-party code comes through the Go module proxy, at the versions and checksums of kubebox/go.mod, kubebox/go.sum,
suite/go.mod and suite/go.sum.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from pygw.errors import UsageError

HERE = Path(__file__).parents[1]
ROOT = HERE.parents[1]
KUBERNETES_VERSION = "1.36.1"
GATEWAY_API = "sigs.k8s.io/gateway-api"
ECHO_SERVER = f"{GATEWAY_API}/conformance/echo-basic"


def folder() -> Path:
    """Where the programs are built and rigs keep their state: $CONFORMANCE_DIR, else .tools/conformance."""
    return Path(os.environ.get("CONFORMANCE_DIR") or ROOT / ".tools" / "conformance").absolute()


def program(name: str) -> Path:
    """Path of kubebox, echo-basic or conformance.test. Raises UsageError where it was not built."""
    path = folder() / "bin" / name
    if not path.exists():
        raise UsageError(f"{path} is not there: python -m tests.conformance build")
    return path


def kubebox(component: str) -> list[str]:
    """The command that runs etcd, kube-apiserver, kube-controller-manager or kubectl."""
    return [str(program("kubebox")), component]


def crds(channel: str = "standard") -> Path:
    """Folder of the Gateway API's CRDs, as the module of the suite's version has them."""
    return folder() / "crds" / channel


# ===== what must be there =====


def missing() -> list[str]:
    """What this machine lacks to run a rig, one sentence each; empty where it can."""
    lacks = [f"{name} is not on the PATH ({why})" for name, why in _PROGRAMS.items() if not shutil.which(name)]
    if os.geteuid() != 0:
        lacks.append("not root: the rig makes network namespaces; run it as root in a virtual machine or container")
    elif not lacks:
        probe = f"pygw-probe-{os.getpid()}"
        made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
        if made.returncode:
            reason = made.stderr.strip()
            lacks.append(f"network namespaces are not permitted here ({reason}): needs CAP_SYS_ADMIN and CAP_NET_ADMIN")
        else:
            subprocess.run(["ip", "netns", "del", probe], check=True)
    return lacks


_PROGRAMS = {
    "ip": "of iproute2, makes the network namespaces",
    "openssl": "makes the certificates of the API server",
    "setsid": "of util-linux, keeps what is started in the background apart",
}


def go_is_missing() -> str:
    """Why the programs cannot be built; empty where they can."""
    wanted = re.search(r"^go ([\d.]+)$", (HERE / "kubebox" / "go.mod").read_text(), re.MULTILINE)
    assert wanted
    if not shutil.which("go"):
        return f"no Go on the PATH: install Go {wanted[1]} or newer from https://go.dev/dl/"
    told = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, cwd="/").stdout
    found = re.search(r"go([\d.]+)", told)
    if not found or _numbers(found[1]) < _numbers(wanted[1]):
        return f"Go {wanted[1]} or newer is needed, and {told.strip() or 'none'} is there: see https://go.dev/dl/"
    return ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part]


# ===== building =====


def build() -> None:
    """Build what is not built yet, or was built of other versions: about 15 minutes on two cores the first time.

    Raises UsageError where Go is missing, CalledProcessError where a build fails (Go has then said why).
    """
    plain = ["-trimpath", "-ldflags", "-s -w"]
    version = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in _version_strings().items())
    _build("kubebox", "kubebox", ["build", "-trimpath", "-ldflags", f"-s -w {version}"], ".")
    _build("echo-basic", "suite", ["build", *plain], ECHO_SERVER)
    _build("conformance.test", "suite", ["test", "-c", *plain], ".")
    _copy_crds()


def _version_strings() -> dict[str, str]:
    """What Kubernetes' own build stamps into its programs; without it the API server calls itself v0.0.0."""
    major, minor, _ = KUBERNETES_VERSION.split(".")
    return {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}


def _build(name: str, module: str, how: list[str], package: str) -> None:
    target, source = folder() / "bin" / name, HERE / module
    inputs = [source / "go.sum", *source.glob("*.go")]
    if target.exists() and target.stat().st_mtime > max(path.stat().st_mtime for path in inputs):
        return
    reason = go_is_missing()
    if reason:
        raise UsageError(f"{name} is not built, and {reason}")
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"building {name} (Go fetches its modules through {_go('env', 'GOPROXY')})", flush=True)
    start = time.monotonic()
    subprocess.run(
        ["go", *how, "-o", str(target), package], cwd=source, env=os.environ | {"CGO_ENABLED": "0"}, check=True
    )
    target.touch()  # Go leaves the date of an unchanged program as it was
    print(f"built {name} in {time.monotonic() - start:.0f} s", flush=True)


def _copy_crds() -> None:
    """Copy the CRDs out of the module, so that a rig starts without Go."""
    target, stamp = folder() / "crds", HERE / "suite" / "go.sum"
    if target.exists() and target.stat().st_mtime > stamp.stat().st_mtime:
        return
    _go("mod", "download", GATEWAY_API, cwd=HERE / "suite")
    source = Path(_go("list", "-m", "-f", "{{.Dir}}", GATEWAY_API, cwd=HERE / "suite")) / "config" / "crd"
    for channel in ("standard", "experimental"):
        (target / channel).mkdir(parents=True, exist_ok=True)
        for file in (source / channel).glob("*.yaml"):
            if file.name != "kustomization.yaml":
                shutil.copyfile(file, target / channel / file.name)
    target.touch()


def _go(*arguments: str, cwd: Path = HERE) -> str:
    done = subprocess.run(["go", *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.strip()
