"""Plays what a cluster has beside its control plane: one node, its scheduler, kubelet and container runtime.

    python -m tests.conformance.rig.kubelet RUN_FOLDER

inside the rig's namespace. RUN_FOLDER/kubelet.json says where the API server is and which program an image is.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from tests.conformance.rig.namespace import NODE_ADDRESS
from tests.conformance.rig.pod import RETRY_INTERVAL, Images, Pod, now
from tests.conformance.rig.rest import Api, ApiError, Object, path_of
from tests.conformance.rig.volumes import NODE_NAME


def log(text: str) -> None:
    print(now(), text, flush=True)


class Kubelet:
    """Runs every Pod of the cluster."""

    def __init__(self, api: Api, folder: Path, images: Images, prefix: str) -> None:
        self._api, self._folder, self._images, self._prefix = api, folder, images, prefix
        self._numbers = itertools.count(1)
        self._pods: dict[str, Pod] = {}  # by uid; the watching thread alone changes it
        self._gone: set[str] = set()

    def run(self) -> NoReturn:
        """Register the node and follow the Pods, for ever."""
        self._register()
        log("the node is registered")
        for kind, found in self._api.watch(path_of("Pod"), log):
            if kind == "LIST":
                self._list(found)
            elif kind == "DELETED":
                self._forget(found["metadata"]["uid"])
            else:
                self._see(found)
        raise AssertionError("a watch has no end")

    def _register(self) -> None:
        labels = {"kubernetes.io/hostname": NODE_NAME, "kubernetes.io/os": "linux"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_NAME, "labels": labels}}
        self._api.apply(node)
        size = {"cpu": "64", "memory": "256Gi", "pods": "1000"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "no kubelet but the rig's"}
        moment = {"lastHeartbeatTime": now(), "lastTransitionTime": now()}
        addresses = [{"type": "InternalIP", "address": NODE_ADDRESS}, {"type": "Hostname", "address": NODE_NAME}]
        status = {"addresses": addresses, "capacity": size, "allocatable": size, "conditions": [ready | moment]}
        self._api.patch(node, {"status": status}, "status")

    def _list(self, pods: list[Object]) -> None:
        """A fresh list: what is not in it is gone, whatever events were missed."""
        there = {pod["metadata"]["uid"] for pod in pods}
        for uid in set(self._pods) - there:
            self._forget(uid)
        for pod in pods:
            self._see(pod)

    def _see(self, pod: Object) -> None:
        metadata = pod["metadata"]
        uid = metadata["uid"]
        if metadata.get("deletionTimestamp"):
            if uid not in self._gone:
                self._gone.add(uid)
                threading.Thread(target=self._end, args=(self._pods.get(uid), metadata), daemon=True).start()
        elif uid not in self._pods and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            number = next(self._numbers)
            self._pods[uid] = Pod(self._api, pod, number, self._folder, self._images, self._prefix, log)

    def _forget(self, uid: str) -> None:
        pod = self._pods.pop(uid, None)
        if pod and uid not in self._gone:
            threading.Thread(target=pod.kill, daemon=True).start()
        self._gone.discard(uid)

    def _end(self, pod: Pod | None, metadata: Object) -> None:
        """End the Pod, then take its object away, as a kubelet does."""
        if pod:
            pod.terminate()
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        options |= {"preconditions": {"uid": metadata["uid"]}}
        while True:
            try:
                self._api.call("DELETE", path_of("Pod", metadata["name"], metadata["namespace"]), options)
            except ApiError as error:
                if error.status not in (404, 409):
                    log(f"delete {metadata['name']}: {error}")
            except (OSError, http.client.HTTPException) as error:
                log(f"delete {metadata['name']}: {error}, again")
                time.sleep(RETRY_INTERVAL)  # tests take the API server away
                continue
            return

    def stop(self) -> NoReturn:
        """End all Pods at once, and this process."""
        for pod in list(self._pods.values()):
            pod.kill()
        os._exit(0)  # the watch is in a read that nothing else would end


def main() -> None:
    """Read the arguments and run until SIGTERM."""
    folder = Path(sys.argv[1])
    options = json.loads((folder / "kubelet.json").read_text())
    api = Api(options["server"], options["token"], folder / "ca.crt")
    kubelet = Kubelet(api, folder / "pods", options["images"], options["prefix"])
    signal.signal(signal.SIGTERM, lambda *_: kubelet.stop())
    kubelet.run()


if __name__ == "__main__":
    main()
