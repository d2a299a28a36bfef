"""`pygw run --kubernetes` inside a rig, in the background."""

from __future__ import annotations

import sys
import time

from tests.conformance.rig import tools
from tests.conformance.rig.cluster import Cluster, class_object

CLASS_NAME = "pygw"
CONTROLLER = "pygw.dev/gateway-controller"
ADDRESS = "10.245.0.1"
ADMIN = "127.0.0.1:9901"
START_TIMEOUT = 60.0
POLL_INTERVAL = 0.1


def command(cluster: Cluster, *options: str) -> list[str]:
    """How it is run, with one address for all Gateways that ask for none."""
    common = ["--kubernetes", "--kubeconfig", str(cluster.kubeconfig), "--log-format", "json"]
    return [sys.executable, "-m", "pygw", "run", *common, *options]


def start(cluster: Cluster, *options: str) -> None:
    """Start it and wait until it is ready and its class is accepted. Raises RuntimeError with the end of its log."""
    cluster.kubectl_apply(class_object(CLASS_NAME, CONTROLLER))
    addresses = ["--gateway-address", ADDRESS, "--admin", ADMIN]
    cluster.start_process("pygw", command(cluster, *addresses, *options), cwd=tools.ROOT)
    deadline = time.monotonic() + START_TIMEOUT
    while not _is_ready(cluster):
        if not cluster.is_running("pygw") or time.monotonic() > deadline:
            log = (cluster.folder / "pygw.log").read_text()
            raise RuntimeError(f"pygw is not ready, {cluster.folder / 'pygw.log'}:\n{log[-3000:]}")
        time.sleep(POLL_INTERVAL)
    cluster.kubectl("wait", f"gatewayclass/{CLASS_NAME}", "--for=condition=Accepted", "--timeout=30s")


def stop(cluster: Cluster) -> None:
    """End it gracefully."""
    cluster.stop("pygw", timeout=60.0)


def _is_ready(cluster: Cluster) -> bool:
    asked = f"import urllib.request; urllib.request.urlopen('http://{ADMIN}/readyz', timeout=5)"
    return cluster.run(sys.executable, "-c", asked, check=False, quiet=True).returncode == 0
