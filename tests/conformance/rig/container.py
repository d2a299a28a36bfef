"""What a container runtime does to a container of pygw: its security context, and the token of its ServiceAccount.

    python -m tests.conformance.rig.container RUN_FOLDER COMMAND…

in a Pod of the rig, as its image's program. The Pod's own object (POD_NAMESPACE, POD_NAME) says what holds: read-only
root file system, user and group, no capabilities, no new privileges. So what a restricted Pod may do, and where it
looks for the API server, is tested without a kubelet. Resource limits and seccomp are not played, and files outside
the project can be read, as nothing here is an image.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.conformance.rig.rest import Api, Object, path_of
from tests.conformance.rig.tools import ROOT

ACCOUNT_FOLDER = Path("/run/secrets/kubernetes.io/serviceaccount")  # /var/run is a link to /run
_CLONE_NEWNS = 0x00020000
_KERNELS_OWN = ("/proc", "/sys", "/dev")  # a container has its own of these, not the image's


def main() -> None:
    """Become COMMAND, as the Pod's container may run it."""
    folder, command = Path(sys.argv[1]), sys.argv[2:]
    options = json.loads((folder / "kubelet.json").read_text())
    api = Api(options["server"], options["token"], folder / "ca.crt")
    namespace = os.environ["POD_NAMESPACE"]
    pod = api.get("Pod", os.environ["POD_NAME"], namespace)["spec"]
    (container,) = pod["containers"]
    _leave_mounts()
    if (container.get("securityContext") or {}).get("readOnlyRootFilesystem"):
        _make_read_only()
    _admit(ROOT, Path(sys.prefix), Path(sys.base_prefix))
    if pod.get("automountServiceAccountToken", True):
        _mount_account(api, namespace, pod.get("serviceAccountName", "default"), folder / "ca.crt")
    server = urlsplit(options["server"])
    os.environ["KUBERNETES_SERVICE_HOST"] = str(server.hostname)
    os.environ["KUBERNETES_SERVICE_PORT"] = str(server.port)
    os.environ |= {"HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"}  # as in deploy/Dockerfile
    os.execvp("setpriv", [*_privileges(pod, container), *command])


def _privileges(pod: Object, container: Object) -> list[str]:
    """setpriv with what the security contexts of Pod and container come to."""
    context = {**(pod.get("securityContext") or {}), **(container.get("securityContext") or {})}
    flags = ["setpriv"]
    if "runAsUser" in context:
        flags += ["--reuid", str(context["runAsUser"]), "--regid", str(context.get("runAsGroup", 0)), "--clear-groups"]
    if "ALL" in (context.get("capabilities") or {}).get("drop", ()):
        flags += ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    if context.get("allowPrivilegeEscalation") is False:
        flags.append("--no-new-privs")
    return flags


def _leave_mounts() -> None:
    """A mount namespace of our own, whose changes stay in it; os.unshare is new in Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "unshare")
    _mount("--make-rprivate", "/")


def _mount_account(api: Api, namespace: str, name: str, authority: Path) -> None:
    """The folder that every client library looks for."""
    path = f"{path_of('ServiceAccount', name, namespace)}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = api.call("POST", path, request)["status"]["token"]
    _mount("-t", "tmpfs", "-o", "mode=755", "none", "/run")
    ACCOUNT_FOLDER.mkdir(parents=True)
    for file, text in (("token", token), ("namespace", namespace), ("ca.crt", authority.read_text())):
        (ACCOUNT_FOLDER / file).write_text(text)
    _mount("-o", "remount,ro", "/run")


def _admit(*needed: Path) -> None:
    """Let any user reach these: of a folder on the way that is its owner's alone, only what leads to them is kept."""
    closed: dict[Path, set[str]] = {}
    for path in needed:
        for parent in path.resolve().parents:
            if not parent.stat().st_mode & 0o001:
                closed.setdefault(parent, set()).add(path.resolve().relative_to(parent).parts[0])
    for parent, names in sorted(closed.items(), reverse=True):
        descriptors = {name: os.open(parent / name, os.O_PATH) for name in names}
        _mount("-t", "tmpfs", "-o", "mode=755", "none", str(parent))
        for name, descriptor in descriptors.items():
            (parent / name).mkdir()
            _mount("--no-canonicalize", "--rbind", f"/proc/{os.getpid()}/fd/{descriptor}", str(parent / name))
            os.close(descriptor)
        _mount("-o", "remount,ro", str(parent))


def _make_read_only() -> None:
    """Every file system, but the kernel's own."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4]
        if not any(point == own or point.startswith(f"{own}/") for own in _KERNELS_OWN):
            _mount("-o", "remount,bind,ro", point)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
