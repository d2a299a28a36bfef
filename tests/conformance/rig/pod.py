"""One Pod of the rig: a network namespace with one address, and its containers as plain processes in it.

The image says which local program runs (`images`: a pattern and a command; arguments are passed on); an unknown image
sleeps. A deleted Pod goes as on a node: its endpoint is terminating while preStop sleeps, SIGTERM, SIGKILL when the
grace period is over.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.conformance.rig import namespace
from tests.conformance.rig.rest import Api, ApiError, Object, path_of
from tests.conformance.rig.volumes import NODE_NAME, Volumes, expanded, moved

Images = Mapping[str, Sequence[str]]
PROBE_INTERVAL = 0.1
RETRY_INTERVAL = 0.5
RESTART_INTERVAL = 1.0


def now() -> str:
    """This moment as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Pod:
    """A Pod that has been started; `number` makes its address and the names of its devices."""

    def __init__(
        self, api: Api, pod: Object, number: int, folder: Path, images: Images, prefix: str, log: Callable[[str], None]
    ) -> None:
        self._api, self._pod, self._images, self._log = api, pod, images, log
        metadata = pod["metadata"]
        self.label = f"{metadata['namespace']}/{metadata['name']}"
        self._path = path_of("Pod", metadata["name"], metadata["namespace"])
        self._containers: list[Object] = pod["spec"]["containers"]
        self._folder = folder / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid'][:8]}"
        self._volumes = Volumes(api, pod, self._folder / "volumes")
        self._veth, self._namespace_name = f"v{number}", f"{prefix}{number}"
        self._namespace: namespace.Namespace | None = None
        self.address = f"10.244.{1 + number // 250}.{1 + number % 250}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # ===== start =====

    def _run(self) -> None:
        try:
            self._bind()
            if not self._wait_for_volumes():
                return
            self._namespace = namespace.create_pod(self._namespace_name, self._veth, self.address)
            for container in self._containers:
                threading.Thread(target=self._keep_running, args=(container,), daemon=True).start()
            self._report(ready=False)
            while not all(self._is_ready(container) for container in self._containers):
                if self._ending.wait(PROBE_INTERVAL):
                    return
            self._report(ready=True)
        except Exception as error:  # whatever it is, the other Pods go on, and the log says why this one does not
            self._log(f"pod {self.label}: {error!r}")

    def _bind(self) -> None:
        """What a scheduler does, with one node."""
        if self._pod["spec"].get("nodeName"):
            return
        metadata = {name: self._pod["metadata"][name] for name in ("name", "namespace")}
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE_NAME}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        try:
            self._api.call("POST", f"{self._path}/binding", binding)
        except ApiError as error:
            if error.status != 409:  # bound already
                raise

    def _wait_for_volumes(self) -> bool:
        while not self._ending.is_set():
            try:
                self._volumes.write()
                return True
            except ApiError as error:
                self._log(f"pod {self.label} waits for a volume: {error}")
                self._ending.wait(RETRY_INTERVAL)
        return False

    def _keep_running(self, container: Object) -> None:
        assert self._namespace
        name = container["name"]
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{name}.log").open("ab") as output:
            while not self._ending.is_set():
                environment = self._volumes.environment(container, self.address)
                process = subprocess.Popen(
                    self._namespace.command(*self._command(container, environment)),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._processes[name] = process
                code = process.wait()
                if not self._ending.is_set():
                    self._log(f"pod {self.label}: {name} ended with {code}, again in {RESTART_INTERVAL} s")
                    self._ending.wait(RESTART_INTERVAL)

    def _command(self, container: Object, environment: Mapping[str, str]) -> list[str]:
        for pattern, command in self._images.items():
            if re.search(pattern, container["image"]):
                mounts = self._volumes.mounts(container)
                arguments = [moved(expanded(text, environment), mounts) for text in container.get("args", [])]
                return [*command, *arguments]
        return ["sleep", "infinity"]

    # ===== readiness =====

    def _is_ready(self, container: Object) -> bool:
        probe = container.get("readinessProbe")
        if not probe and "echo-basic" in container["image"]:
            # The suite's Deployments have no probe; without one a Pod is Ready before its server listens.
            probe = {"tcpSocket": {"port": 3000}}
        action = (probe or {}).get("httpGet") or (probe or {}).get("tcpSocket")
        if not action:
            return container["name"] in self._processes
        ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
        port = int(ports.get(action["port"], action["port"]))
        try:
            if "tcpSocket" in (probe or {}):
                socket.create_connection((self.address, port), 1.0).close()
                return True
            connection = http.client.HTTPConnection(self.address, port, timeout=1.0)
            connection.request("GET", action.get("path", "/"))
            answered = connection.getresponse().status
            connection.close()
            return 200 <= answered < 400
        except (OSError, http.client.HTTPException):
            return False

    def _report(self, *, ready: bool) -> None:
        """Write the Pod's status, from which the controllers make EndpointSlices."""
        moment, truth = now(), "True" if ready else "False"
        conditions = {"PodScheduled": "True", "Initialized": "True", "ContainersReady": truth, "Ready": truth}
        status: dict[str, Any] = {
            "phase": "Running",
            "hostIP": namespace.NODE_ADDRESS,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": moment,
            "conditions": [
                {"type": name, "status": value, "lastTransitionTime": moment} for name, value in conditions.items()
            ],
            "containerStatuses": [
                {"name": container["name"], "image": container["image"], "imageID": container["image"], "ready": ready}
                | {"started": True, "restartCount": 0, "state": {"running": {"startedAt": moment}}}
                for container in self._containers
            ],
        }
        try:
            self._api.call(
                "PATCH", f"{self._path}/status", {"status": status}, "application/strategic-merge-patch+json"
            )
        except ApiError as error:
            if error.status != 404:  # deleted meanwhile
                raise

    # ===== end =====

    def terminate(self) -> None:
        """End it as a kubelet does, gracefully; returns when nothing of it runs."""
        self._ending.set()
        sleeps = [container.get("lifecycle", {}).get("preStop", {}).get("sleep") for container in self._containers]
        delay = max([sleep["seconds"] for sleep in sleeps if sleep], default=0)
        if delay:
            threading.Event().wait(delay)
        self._signal(signal.SIGTERM)
        grace = self._pod["spec"].get("terminationGracePeriodSeconds", 30)
        for process in list(self._processes.values()):
            try:
                process.wait(max(0.0, grace - delay))
            except subprocess.TimeoutExpired:
                self._log(f"pod {self.label} did not end in {grace} s")
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._ending.set()
        self._signal(signal.SIGKILL)
        self._thread.join(10.0)
        if self._namespace:
            # The device first: it would go with the namespace, but later, and its name is wanted again.
            subprocess.run(["ip", "link", "del", self._veth], capture_output=True)
            self._namespace.delete()

    def _signal(self, number: signal.Signals) -> None:
        for process in list(self._processes.values()):
            if process.poll() is None:
                os.killpg(process.pid, number)
