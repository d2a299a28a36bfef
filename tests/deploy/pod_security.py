"""The Pod Security Standards, as far as a Pod's spec can break them (Kubernetes 1.36, "Pod Security Standards").

violations() names each control that a Pod breaks with its path. The real admission plugin judges the same Pods in
tests/conformance/test_installation.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

BASELINE, RESTRICTED = "baseline", "restricted"
HOST_NAMESPACES = ("hostNetwork", "hostPID", "hostIPC")
SECCOMP = ("RuntimeDefault", "Localhost")
BASELINE_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip


def violations(pod: Object, level: str) -> list[str]:
    """What a Pod's spec breaks of a level; restricted includes baseline."""
    found = list(_baseline(pod))
    if level == RESTRICTED:
        found += _restricted(pod)
    return found


def _containers(pod: Object) -> Iterator[tuple[str, Object]]:
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(group) or ():
            yield f"{group}[{container['name']}]", container


def _contexts(pod: Object) -> Iterator[tuple[str, Object]]:
    """The security contexts of the Pod and all containers."""
    yield "securityContext", pod.get("securityContext") or {}
    for path, container in _containers(pod):
        yield f"{path}.securityContext", container.get("securityContext") or {}


def _baseline(pod: Object) -> Iterator[str]:
    for name in HOST_NAMESPACES:
        if pod.get(name):
            yield name
    for volume in pod.get("volumes") or ():
        if "hostPath" in volume:
            yield f"volumes[{volume['name']}].hostPath"
    for sysctl in (pod.get("securityContext") or {}).get("sysctls") or ():
        if sysctl["name"] not in SAFE_SYSCTLS:
            yield f"sysctls[{sysctl['name']}]"
    for path, context in _contexts(pod):
        yield from _baseline_context(path, context)
    for path, container in _containers(pod):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield f"{path}.ports[{port['containerPort']}].hostPort"
        added = set(((container.get("securityContext") or {}).get("capabilities") or {}).get("add") or ())
        for name in sorted(added - BASELINE_CAPABILITIES):
            yield f"{path}.capabilities.add[{name}]"
        probes = [container.get(f"{name}Probe") or {} for name in ("startup", "liveness", "readiness")]
        hooks = [(container.get("lifecycle") or {}).get(name) or {} for name in ("postStart", "preStop")]
        for action in (*probes, *hooks):
            if any((action.get(name) or {}).get("host") for name in ("httpGet", "tcpSocket")):
                yield f"{path}: a probe or hook with a host"


def _baseline_context(path: str, context: Object) -> Iterator[str]:
    if context.get("privileged"):
        yield f"{path}.privileged"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{path}.hostProcess"
    if context.get("procMount", "Default") != "Default":
        yield f"{path}.procMount"
    if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
        yield f"{path}.seccompProfile"
    if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
        yield f"{path}.appArmorProfile"
    options = context.get("seLinuxOptions") or {}
    if options.get("user") or options.get("role"):
        yield f"{path}.seLinuxOptions"


def _restricted(pod: Object) -> Iterator[str]:
    for volume in pod.get("volumes") or ():
        if not RESTRICTED_VOLUMES & volume.keys():
            yield f"volumes[{volume['name']}]"
    own = pod.get("securityContext") or {}
    for path, context in _contexts(pod):
        if context.get("runAsUser") == 0:
            yield f"{path}.runAsUser"
    for path, container in _containers(pod):
        context = container.get("securityContext") or {}
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{path}.allowPrivilegeEscalation"
        if context.get("runAsNonRoot", own.get("runAsNonRoot")) is not True:
            yield f"{path}.runAsNonRoot"
        if (context.get("seccompProfile") or own.get("seccompProfile") or {}).get("type") not in SECCOMP:
            yield f"{path}.seccompProfile"
        capabilities = context.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            yield f"{path}.capabilities.drop"
        if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
            yield f"{path}.capabilities.add"
