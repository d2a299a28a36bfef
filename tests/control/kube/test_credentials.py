"""Where the API server is and who we are, by kubeconfig or by the Pod's account."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kubernetes.aio.client.configuration import Configuration

from pygw.control.kube import credentials as module
from pygw.control.kube.api import Api
from pygw.control.kube.credentials import configuration_loader
from pygw.errors import StartError

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: first, cluster: {server: "http://first.example.com:8080/"}}
- {name: second, cluster: {server: "http://second.example.com"}}
users:
- {name: by-token, user: {token: abc}}
- {name: by-file, user: {tokenFile: token}}
contexts:
- {name: one, context: {cluster: first, user: by-token, namespace: team-a}}
- {name: two, context: {cluster: second, user: by-file}}
"""


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("from-file")
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    return path


def load(kubeconfig: str = "", context: str = "") -> tuple[str, str, str]:
    """Server, Authorization and namespace."""

    async def main() -> tuple[str, str, str]:
        configuration = Configuration()
        namespace = await configuration_loader(kubeconfig, context)(configuration)
        return configuration.host, configuration.api_key.get("BearerToken", ""), namespace

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("", ("http://first.example.com:8080", "Bearer abc", "team-a")),
        ("two", ("http://second.example.com", "Bearer from-file", "")),
    ],
)
def test_a_kubeconfig_and_its_contexts(kubeconfig: Path, context: str, expected: tuple[str, str, str]) -> None:
    assert load(str(kubeconfig), context) == expected


def test_the_environment_names_one(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    assert load()[0] == "http://first.example.com:8080"


def test_in_a_pod_its_account_is_used_but_not_against_what_is_asked_for(
    kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = tmp_path / "account"
    account.mkdir()
    for name, text in (("token", "of-the-pod"), ("ca.crt", "x"), ("namespace", "pygw-system\n")):
        (account / name).write_text(text)
    monkeypatch.setattr(module, "SERVICE_ACCOUNT", account)
    monkeypatch.setattr("kubernetes.aio.config.incluster_config.SERVICE_TOKEN_FILENAME", str(account / "token"))
    monkeypatch.setattr("kubernetes.aio.config.incluster_config.SERVICE_CERT_FILENAME", str(account / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert load() == ("https://10.96.0.1:443", "bearer of-the-pod", "pygw-system")
    assert load(str(kubeconfig))[0] == "http://first.example.com:8080"


@pytest.mark.parametrize(
    ("text", "context", "says"),
    [
        (None, "", "does not exist"),
        ("", "", ""),
        ("[not, a, config]", "", ""),
        ("a: b: c", "", ""),
        (KUBECONFIG, "three", "three"),
        ("current-context: a\ncontexts: [{name: a}]\nclusters: []\nusers: []", "", ""),
    ],
    ids=["missing", "empty", "list", "no-yaml", "no-such-context", "incomplete"],
)
def test_what_cannot_be_used_is_a_start_error(tmp_path: Path, text: str | None, context: str, says: str) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)

    async def main() -> None:
        api = Api(configuration_loader(str(path), context))
        with pytest.raises(StartError, match=f"the Kubernetes configuration cannot be used: .*{says}"):
            await api.connect()

    asyncio.run(main())
