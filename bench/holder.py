"""Holds connections or open streams over TLS, which programs/load.c does not speak; the client of scenario memory-tls.

    python -m bench.holder PORT CONNECTIONS STREAMS

With 0 STREAMS each connection makes one call, else it opens so many that never end. Says "ready" when the other end
has handled it all, and holds them until standard input ends.
"""

from __future__ import annotations

import datetime
import ssl
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.caller import Caller
from bench.rules import HOST, PLAIN


def new_certificate() -> tuple[bytes, bytes]:
    """A self-signed certificate for HOST with its key (ECDSA P-256), both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(pem)
    return certificate, key.private_bytes(pem, pkcs8, serialization.NoEncryption())


def client_context() -> ssl.SSLContext:
    """TLS as a gRPC client speaks it, but for the certificate, which nobody vouches for."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def main() -> int:
    port, connections, streams = map(int, sys.argv[1:])
    context = client_context()
    held = []
    for _ in range(connections):
        caller = Caller(port, context, HOST)
        if streams:
            for _ in range(streams):
                caller.open(HOST, PLAIN.path(0))
            caller.ping()
        elif not caller.call(HOST, PLAIN.path(0)):
            sys.exit("holder: a call was not served")
        held.append(caller)
    print("ready", flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
