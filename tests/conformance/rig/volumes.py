"""What a container finds of the cluster: volumes of Secrets and ConfigMaps as folders, and environment variables.

Nothing is mounted over the machine's own paths. A path below a mountPath, in a variable, an argument or a ConfigMap's
file, is rewritten to the folder that plays the volume.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conformance.rig.namespace import NODE_ADDRESS
from tests.conformance.rig.rest import Api, ApiError, Object

NODE_NAME = "rig-node"


class Volumes:
    """The volumes of one Pod, below `folder`."""

    def __init__(self, api: Api, pod: Object, folder: Path) -> None:
        self._api, self._pod, self._folder = api, pod, folder
        self._namespace: str = pod["metadata"]["namespace"]

    def write(self) -> None:
        """Write what the volumes hold. Raises ApiError where an object does not exist yet, as a kubelet would wait."""
        for volume in self._pod["spec"].get("volumes", []):
            folder = self._folder / volume["name"]
            folder.mkdir(parents=True, exist_ok=True)
            for source in volume.get("projected", {}).get("sources", [volume]):
                for kind, field in (("Secret", "secret"), ("ConfigMap", "configMap")):
                    if field in source:
                        self._write_source(kind, source[field], folder)

    def _write_source(self, kind: str, source: Object, folder: Path) -> None:
        name = source.get("secretName") or source["name"]
        try:
            found = self._api.get(kind, name, self._namespace)
        except ApiError:
            if source.get("optional"):
                return
            raise
        for key, text in (found.get("data") or {}).items():
            paths = {item["key"]: item["path"] for item in source.get("items") or []}
            if paths and key not in paths:
                continue
            target = folder / paths.get(key, key)
            target.parent.mkdir(parents=True, exist_ok=True)
            # In place of the old file at once: a program may be reading it.
            scratch = target.with_name(f".{target.name}.new")
            scratch.write_bytes(base64.b64decode(text) if kind == "Secret" else self._moved_everywhere(text).encode())
            scratch.rename(target)

    def mounts(self, container: Object) -> dict[str, Path]:
        """mountPath: folder, of one container."""
        names = {volume["name"] for volume in self._pod["spec"].get("volumes", [])}
        return {
            mount["mountPath"]: self._folder / mount["name"] / mount.get("subPath", "")
            for mount in container.get("volumeMounts", [])
            if mount["name"] in names
        }

    def _moved_everywhere(self, text: str) -> str:
        for container in self._pod["spec"]["containers"]:
            text = moved(text, self.mounts(container))
        return text

    def environment(self, container: Object, address: str) -> dict[str, str]:
        """The variables of one container. Raises ApiError where what they refer to does not exist."""
        mounts = self.mounts(container)
        variables = {"PATH": os.environ.get("PATH", ""), "HOSTNAME": self._pod["metadata"]["name"]}
        for entry in container.get("env", []):
            if "valueFrom" in entry:
                text = self._value_from(entry["valueFrom"], address)
            else:
                text = expanded(entry.get("value", ""), variables)
            variables[entry["name"]] = moved(text, mounts)
        return variables

    def _value_from(self, source: Any, address: str) -> str:
        metadata = self._pod["metadata"]
        if "fieldRef" in source:
            path = source["fieldRef"]["fieldPath"]
            keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.*)'\]", path)
            if keyed:
                return str(metadata.get(keyed[1], {}).get(keyed[2], ""))
            fields = {f"metadata.{name}": metadata[name] for name in ("name", "namespace", "uid")}
            fields |= {"status.podIP": address, "status.hostIP": NODE_ADDRESS, "spec.nodeName": NODE_NAME}
            return str(fields.get(path, ""))
        for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if field in source:
                found = self._api.get(kind, source[field]["name"], self._namespace)
                text: str = (found.get("data") or {}).get(source[field]["key"], "")
                return base64.b64decode(text).decode() if kind == "Secret" else text
        return ""


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by the variable, where there is one."""
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)


def moved(text: str, mounts: Mapping[str, Path]) -> str:
    """Paths below a mountPath, as they are on this machine; longer mountPaths first."""
    for path in sorted(mounts, key=len, reverse=True):
        text = re.sub(re.escape(path.rstrip("/")) + r"(?=/|\"|'|\s|$)", str(mounts[path]).rstrip("/"), text)
    return text
