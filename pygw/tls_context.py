"""SSLContexts: how pygw speaks TLS at either end, from PEM text in memory.

TLS 1.2 is the floor (RFC 9113 §9.2), with the suites that HTTP/2 allows (RFC 9113 appendix A) and forward secrecy;
ALPN offers h2 alone; no renegotiation, no compression. No TLS 1.3 tickets: gRPC connections are long-lived, workers do
not share ticket keys, and a ticket would outlive the validation of the client that got it.

The control process uses the same functions to find out whether a certificate can be loaded, so that a worker can.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable

from pygw.channel import sealed_memfd
from pygw.model import Certificate, ClientValidation, TlsUpstream

ALPN = "h2"
# For TLS 1.2; the suites of TLS 1.3 are all fine. Security level 2 refuses RSA keys below 2048 bits and SHA-1.
CIPHERS = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(certificates: Iterable[Certificate], validation: ClientValidation | None) -> ssl.SSLContext:
    """A context for client connections. `certificates`: at most one for each algorithm is of use.

    Raises ssl.SSLError where one cannot be loaded, ValueError where it is no PEM text.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE
    for certificate in certificates:
        load_certificate(context, certificate.chain, certificate.private_key)
    # AllowInsecureFallback: nothing follows from the certificate, whether there is one or not, so none is asked for.
    if validation is not None and not validation.allow_insecure:
        context.verify_mode = ssl.CERT_REQUIRED
        load_trust(context, validation.ca)
    return context


def client_context(upstream: TlsUpstream, certificate: Certificate | None) -> ssl.SSLContext:
    """A context for connections to the endpoints of a backend. Raises as server_context()."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    # With names of its own, the policy says that the server name proves nothing.
    context.check_hostname = not upstream.names
    context.verify_mode = ssl.CERT_REQUIRED
    if upstream.ca:
        load_trust(context, upstream.ca)
    else:
        context.set_default_verify_paths()
    if certificate is not None:
        load_certificate(context, certificate.chain, certificate.private_key)
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols([ALPN])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


def load_certificate(context: ssl.SSLContext, chain: str, private_key: str) -> None:
    """Load a certificate with its key. Raises ssl.SSLError where they are no PEM or do not fit."""
    # The ssl module reads files alone; a key has no business on a disk.
    fd = sealed_memfd("pygw-certificate", f"{private_key}\n{chain}".encode())
    try:
        # Without a password given, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{fd}", password="")
    finally:
        os.close(fd)


def load_trust(context: ssl.SSLContext, ca: str) -> None:
    """Trust what the PEM text `ca` holds, intermediate certificates too. Raises ssl.SSLError where it is none."""
    context.load_verify_locations(cadata=ca)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
