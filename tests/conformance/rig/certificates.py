"""The certificate authority, keys and admin token of a rig, and kubeconfigs for it."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
from pathlib import Path

from tests.conformance.rig.namespace import NODE_ADDRESS

SERVER = f"https://{NODE_ADDRESS}:6443"
_NAMES = f"IP:{NODE_ADDRESS},IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"
_EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def create(folder: Path) -> str:
    """Write ca.crt, tls.crt, tls.key, sa.key, sa.pub, tokens.csv and kubeconfig into `folder`; the admin's token."""
    _openssl(
        folder, "req", "-x509", *_EC_KEY, "-days", "3650", "-subj", "/CN=rig-ca", "-keyout", "ca.key", "-out", "ca.crt"
    )
    _openssl(folder, "req", *_EC_KEY, "-subj", "/CN=kube-apiserver", "-keyout", "tls.key", "-out", "tls.csr")
    (folder / "names").write_text(f"subjectAltName={_NAMES}\n")
    signer = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    _openssl(folder, "x509", "-req", "-in", "tls.csr", *signer, "-days", "3650", "-out", "tls.crt", "-extfile", "names")
    _openssl(folder, "genrsa", "-out", "sa.key", "2048")
    _openssl(folder, "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    token = secrets.token_urlsafe(18)
    (folder / "tokens.csv").write_text(f"{token},rig-admin,rig-admin,system:masters\n")
    (folder / "kubeconfig").write_text(kubeconfig(folder, token))
    return token


def kubeconfig(folder: Path, token: str) -> str:
    """A kubeconfig for the bearer of `token`, valid inside the rig's namespace. (JSON is YAML.)"""
    authority = base64.b64encode((folder / "ca.crt").read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "rig", "cluster": {"server": SERVER, "certificate-authority-data": authority}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "user"}}],
        "current-context": "rig",
    }
    return json.dumps(content, indent=2) + "\n"


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
