"""Where the API server is and who we are to it: a kubeconfig, or the service account of the Pod that we run in.

All of it is read by the official client, which knows tokens, token files, client certificates, OIDC and exec plugins.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config

LoadConfiguration = Callable[[Configuration], Awaitable[str]]  # fills it in; gives the namespace we are in, or ""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def configuration_loader(kubeconfig: str = "", context: str = "") -> LoadConfiguration:
    """How to fill in a Configuration: kubectl's order, but that a Pod's own account comes before ~/.kube/config."""
    is_in_cluster = (
        not kubeconfig
        and not context
        and "KUBERNETES_SERVICE_HOST" in os.environ
        and (SERVICE_ACCOUNT / "token").exists()
    )

    async def load(configuration: Configuration) -> str:
        if is_in_cluster:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return (SERVICE_ACCOUNT / "namespace").read_text().strip()
        path = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube/config")
        if not _exists(path):
            raise FileNotFoundError(f"{path} does not exist; name a kubeconfig with --kubeconfig, or run in a Pod")
        loader = await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=path, context=context or None, client_configuration=configuration, persist_config=False
        )
        return str(loader.current_context["context"].get("namespace") or "")

    return load


def _exists(path: str) -> bool:
    """Whether one of the files of a KUBECONFIG is there."""
    return any(os.path.exists(os.path.expanduser(part)) for part in path.split(os.pathsep) if part)
