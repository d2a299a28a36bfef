"""Certificates for tests: authorities, what they issue, and the Secrets and ConfigMaps that hold it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pygw.control.cluster_state import Object
from pygw.model import Certificate

DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def new_key(algorithm: str = "EC") -> Key:
    """A private key; RSA takes a while."""
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "EC" else rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its chain and key, in PEM."""

    chain: bytes
    key: bytes

    def config(self, *names: str, algorithm: str = "EC") -> Certificate:
        """As the control plane hands it to the data plane."""
        return Certificate(self.chain.decode(), self.key.decode(), names, algorithm)

    def secret(self, name: str, namespace: str = "default") -> Object:
        """A kubernetes.io/tls Secret with it."""
        data = {"tls.crt": _base64(self.chain), "tls.key": _base64(self.key)}
        metadata = {"name": name, "namespace": namespace}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data}


@dataclass(slots=True)
class Authority:
    """A certificate authority."""

    name: str = "test authority"
    key: Key = field(default_factory=new_key)
    issuer: Authority | None = None
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        signer, issuer = (self.issuer.key, self.issuer.name) if self.issuer else (self.key, self.name)
        builder = _builder(self.name, issuer, self.key, datetime.now(UTC) - DAY, datetime.now(UTC) + DAY)
        builder = builder.add_extension(x509.BasicConstraints(True, None), True)
        self.certificate = builder.sign(signer, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        *names: str,
        begins: datetime | None = None,
        ends: datetime | None = None,
        algorithm: str = "EC",
        key: Key | None = None,
    ) -> Issued:
        """A certificate for clients and servers; names with "://" become URIs, addresses IP addresses."""
        key = key or new_key(algorithm)
        now = datetime.now(UTC)
        builder = _builder(names[0] if names else "nobody", self.name, key, begins or now - DAY, ends or now + DAY)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), False)
        leaf = builder.sign(self.key, hashes.SHA256())
        chain = leaf.public_bytes(Encoding.PEM) + (self.pem if self.issuer else b"")
        return Issued(chain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def config_map(self, name: str, namespace: str = "default") -> Object:
        """A ConfigMap with the authority's certificate at ca.crt."""
        return config_map(name, self.pem.decode(), namespace)


def config_map(name: str, text: str, namespace: str = "default") -> Object:
    """A ConfigMap with this ca.crt."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": text}}


def to_yaml(*items: Object) -> str:
    """The objects as one YAML text."""
    return yaml.safe_dump_all(items, explicit_start=True) + "---\n"


def _builder(
    subject: str, issuer: str, key: Key, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
