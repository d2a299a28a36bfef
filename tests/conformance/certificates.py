"""Certificates for the cluster tests: authorities and what they issue, made by openssl in some milliseconds each."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.rig.rest import Object

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def secret(self, name: str, namespace: str) -> Object:
        """A Secret of type kubernetes.io/tls."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "kubernetes.io/tls",
            "data": {
                "tls.crt": base64.b64encode(self.certificate).decode(),
                "tls.key": base64.b64encode(self.key).decode(),
            },
        }


class Authority:
    """A certificate authority that keeps its files in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self._name, self._issued = folder, name, 0
        folder.mkdir(parents=True, exist_ok=True)
        files = ("-keyout", self._path("key"), "-out", self._path("crt"))
        _openssl("req", "-x509", *_NEW_KEY, "-days", "2", "-subj", f"/CN={name}", *files)
        self.certificate = Path(self._path("crt")).read_bytes()

    def issue(self, common_name: str, *alternatives: str, days: int = 2) -> Certificate:
        """A certificate for clients and servers; `alternatives` as openssl writes them (DNS:name, URI:uri).

        It is valid for `days` from now; for fewer than none it has expired.
        """
        self._issued += 1
        label = f"{self._name}-{self._issued}"
        key, request, certificate, extensions = (
            str(self.folder / f"{label}.{ending}") for ending in ("key", "csr", "crt", "ext")
        )
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={common_name}", "-keyout", key, "-out", request)
        names = ",".join(alternatives or (f"DNS:{common_name}",))
        Path(extensions).write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        signer = ("-CA", self._path("crt"), "-CAkey", self._path("key"), "-CAcreateserial", "-days", str(days))
        _openssl("x509", "-req", "-in", request, *signer, "-out", certificate, "-extfile", extensions)
        return Certificate(Path(certificate).read_bytes(), Path(key).read_bytes())

    def config_map(self, name: str, namespace: str) -> Object:
        """A ConfigMap with the authority's certificate at ca.crt."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": {"ca.crt": self.certificate.decode()},
        }

    def _path(self, ending: str) -> str:
        return str(self.folder / f"{self._name}.{ending}")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
