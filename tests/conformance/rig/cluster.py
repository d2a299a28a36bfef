"""A cluster without machines: etcd, kube-apiserver, kube-controller-manager, the rig's kubelet and the CRDs.

`up` leaves them running in the background, `down` ends them; both may be called by different processes, so what a rig
is lies in its folder. Several rigs live beside each other under different names ($RIG_NAME).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pygw.errors import UsageError
from tests.conformance.rig import certificates, tools
from tests.conformance.rig.certificates import SERVER
from tests.conformance.rig.namespace import NODE_ADDRESS, Namespace, create_node
from tests.conformance.rig.rest import Api, Object

# In the order in which they start.
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubelet")
START_TIMEOUT = 120.0  # all on two busy cores; it takes 10 s on idle ones
STOP_TIMEOUT = 10.0
POLL_INTERVAL = 0.1
PYGW = (sys.executable, "-m", "pygw")
# No node, disk, certificate or autoscaling controllers: nothing of the kind is here.
CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "daemonset-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "disruption-controller",
)


def rig_name() -> str:
    """$RIG_NAME: namespace and folder of the rig."""
    return os.environ.get("RIG_NAME") or "pygw-rig"


class Cluster:
    """One rig, whether it runs or not."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or rig_name()
        self.folder = tools.folder() / "run" / self.name
        self.namespace = Namespace(self.name)
        self.kubeconfig = self.folder / "kubeconfig"

    # ===== up and down =====

    def up(self, channel: str = "standard") -> float:
        """Start everything; seconds until it answers. Raises UsageError where a rig of this name runs."""
        if self.namespace.exists():
            raise UsageError(f"the rig {self.name} runs: python -m tests.conformance down, or set another RIG_NAME")
        lacks = tools.missing()
        if lacks:
            raise UsageError("a rig cannot run here:\n  " + "\n  ".join(lacks))
        start = time.monotonic()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        token = certificates.create(self.folder)
        self._write_kubelet_options(token)
        try:
            create_node(self.name)
            for component in COMPONENTS:
                self.start(component)
                if component == "kube-apiserver":
                    self.wait_until_ready()
            self.kubectl("apply", "--server-side", "-f", str(tools.crds(channel)))
            self.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        except BaseException:
            self.down()
            raise
        return time.monotonic() - start

    def down(self) -> None:
        """End everything, in whatever state it is. What was logged stays in the folder."""
        for component in reversed(COMPONENTS):
            self.stop(component)
        for file in self.folder.glob("*.pid"):  # gateways that were started beside
            self.stop(file.stem)
        for pod in self.namespace.pods():
            pod.delete()
        self.namespace.delete()

    def is_up(self) -> bool:
        return self.namespace.exists() and self.is_running("kube-apiserver")

    def _write_kubelet_options(self, token: str) -> None:
        images = {
            "gateway-api/echo-basic": [str(tools.folder() / "bin" / "echo-basic")],
            "pygw.dev/test-backend": [sys.executable, "-m", "tests.conformance.backend"],
            "pygw-grpc": [sys.executable, "-m", "tests.conformance.rig.container", str(self.folder), *PYGW],
        }
        options = {"server": SERVER, "token": token, "images": images, "prefix": f"{self.name}-"}
        (self.folder / "kubelet.json").write_text(json.dumps(options, indent=2))

    def wait_until_ready(self) -> None:
        """Until the API server says so. Raises RuntimeError with the end of its log where it ends or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT
        while self.kubectl("get", "--raw", "/readyz", check=False, quiet=True).returncode:
            if not self.is_running("kube-apiserver") or time.monotonic() > deadline:
                log = self.folder / "kube-apiserver.log"
                raise RuntimeError(f"kube-apiserver is not ready, {log}:\n" + log.read_text()[-2000:])
            time.sleep(POLL_INTERVAL)

    # ===== processes =====

    def start(self, component: str) -> None:
        """Start one of COMPONENTS; tests also take them away and bring them back."""
        self.start_process(component, self._command(component), cwd=tools.ROOT)

    def start_process(
        self,
        name: str,
        command: Sequence[str],
        environment: dict[str, str] | None = None,
        *,
        cwd: Path | None = None,
        namespace: Namespace | None = None,
    ) -> int:
        """Run a program in the background inside the rig, logging to NAME.log; its process id, kept in NAME.pid."""
        with (self.folder / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                (namespace or self.namespace).command(*command),
                env=self.environment() | (environment or {}),
                cwd=cwd or self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process.returncode = 0  # it may outlive us: its pid is what we keep, and Popen need not warn
        (self.folder / f"{name}.pid").write_text(str(process.pid))
        return process.pid

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM, timeout: float = STOP_TIMEOUT) -> None:
        """End a background program: by signal `number`, and after `timeout` seconds by force."""
        file = self.folder / f"{name}.pid"
        if not file.exists():
            return
        pid = int(file.read_text())
        deadline = time.monotonic() + timeout
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            while not _has_ended(pid):
                if time.monotonic() > deadline:
                    os.killpg(pid, signal.SIGKILL)
                time.sleep(0.02)
        file.unlink()

    def is_running(self, name: str) -> bool:
        file = self.folder / f"{name}.pid"
        return file.exists() and not _has_ended(int(file.read_text()))

    def environment(self) -> dict[str, str]:
        """Ours with KUBECONFIG, and without what `pygw run` would read as options."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYGW_")}
        return kept | {"KUBECONFIG": str(self.kubeconfig), "PYTHONUNBUFFERED": "1"}

    def run(self, *command: str, check: bool = True, quiet: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a program inside to its end. Raises RuntimeError with what it said where it fails and `check` is set."""
        done = subprocess.run(self.namespace.command(*command), env=self.environment(), capture_output=True, text=True)
        if done.returncode and check:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        if done.returncode and not quiet:
            print(done.stderr, file=sys.stderr, end="")
        return done

    def kubectl(self, *arguments: str, check: bool = True, quiet: bool = False) -> subprocess.CompletedProcess[str]:
        """`kubectl ARGUMENTS`, as the cluster's admin."""
        return self.run(*tools.kubebox("kubectl"), *arguments, check=check, quiet=quiet)

    def kubectl_apply(self, *items: Object) -> None:
        """Create objects, or make them so; for a process outside the namespace."""
        for item in items:
            file = self.folder / "applied.json"
            file.write_text(json.dumps(item))
            self.kubectl("apply", "-f", str(file))

    # ===== access =====

    def api(self) -> Api:
        """The API, as the cluster's admin. Only a process inside the namespace reaches it."""
        options = json.loads((self.folder / "kubelet.json").read_text())
        return Api(SERVER, options["token"], self.folder / "ca.crt")

    def account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig that has the rights of a ServiceAccount, and no others."""
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration=24h").stdout.strip()
        path = self.folder / f"kubeconfig-{namespace}-{name}"
        path.write_text(certificates.kubeconfig(self.folder, token))
        return path

    def _command(self, component: str) -> list[str]:
        if component == "kubelet":
            return [sys.executable, "-m", "tests.conformance.rig.kubelet", str(self.folder)]
        return [*tools.kubebox(component), *_FLAGS[component](self.folder)]


def _has_ended(pid: int) -> bool:
    """Whether a process is gone, or dead and waited for by nobody; reaps it where it is a child of ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        state = re.search(r"^State:\s+(\w)[^$]*^Threads:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    except (FileNotFoundError, ProcessLookupError):
        return True
    # The first thread is a zombie before the others have let go of the process's ports.
    return bool(state and state[1] == "Z" and state[2] == "1")


def _etcd(folder: Path) -> list[str]:
    clients, peers = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    addresses = [f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}", f"--listen-peer-urls={peers}"]
    # Nothing here must survive a power cut.
    return [f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn", *addresses]


def _apiserver(folder: Path) -> list[str]:
    return [
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={NODE_ADDRESS}",
        "--secure-port=6443",
        "--service-cluster-ip-range=10.96.0.0/16",
        f"--tls-cert-file={folder / 'tls.crt'}",
        f"--tls-private-key-file={folder / 'tls.key'}",
        f"--cert-dir={folder}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'sa.pub'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        # Pods here have no token mounted, so a Pod must not wait for its ServiceAccount.
        "--disable-admission-plugins=ServiceAccount",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def _controller_manager(folder: Path) -> list[str]:
    return [
        f"--kubeconfig={folder / 'kubeconfig'}",
        "--leader-elect=false",
        f"--service-account-private-key-file={folder / 'sa.key'}",
        f"--root-ca-file={folder / 'ca.crt'}",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--concurrent-namespace-syncs=10",
        f"--controllers={','.join(CONTROLLERS)}",
    ]


_FLAGS = {"etcd": _etcd, "kube-apiserver": _apiserver, "kube-controller-manager": _controller_manager}


def class_object(name: str, controller: str) -> Object:
    """A GatewayClass."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": controller},
    }
