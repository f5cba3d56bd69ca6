"""The sandbox's own certificate authority, and the certificate that it gives an edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from muster.errors import Refusal, literal
from muster.on_host.whole_files import write_whole
from muster.spec.safe_text import host_name

_NO_USAGE = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)
_DAYS, _AUTHORITY_DAYS = 90, 3650
_EARLIER = timedelta(hours=1)
"""Before now, at which a certificate begins: clocks of clients may be behind."""
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class EdgeCertificate:
    """Files of an edge's certificate, in the sandbox's directory.

    Args:
        authority: what clients trust.
        certificate, key: for `edge_certificate_file` and `edge_certificate_key_file`.
    """

    authority: Path
    certificate: Path
    key: Path


def issue(directory: Path, names: Sequence[str], addresses: Sequence[str], now: datetime) -> EdgeCertificate:
    """Write a certificate of the sandbox's own authority, which is made the first time and kept.

    Args:
        directory: of the sandbox.
        names: of the DNS, by which clients call the edge; the first is the subject.
        addresses: of hosts, for clients that have no name for them.
        now: in UTC.

    Raises:
        Refusal: a name that no DNS has.
    """
    for name in names:
        try:
            host_name(name)
        except ValueError:
            raise Refusal(f"{literal(name)} is no name of the DNS", needed="one such as api.example.com") from None
    made = EdgeCertificate(*(directory / name for name in ("edge-ca.pem", "edge.pem", "edge.key")))
    authority, signer = _authority(made.authority, directory / "edge-ca.key", now)
    own = ec.generate_private_key(ec.SECP256R1())
    alternative = [*map(x509.DNSName, names), *(x509.IPAddress(ip_address(address)) for address in addresses)]
    certificate = (
        _begun(
            names[0], own.public_key(), authority.subject, now, min(_DAYS, (authority.not_valid_after_utc - now).days)
        )
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    _write_key(made.key, own)
    write_whole(str(made.certificate), certificate.public_bytes(_PEM))
    return made


def _authority(path: Path, key: Path, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if path.is_file() and key.is_file():
        kept = serialization.load_pem_private_key(key.read_bytes(), None)
        if isinstance(kept, ec.EllipticCurvePrivateKey):
            return x509.load_pem_x509_certificate(path.read_bytes()), kept
    own = ec.generate_private_key(ec.SECP256R1())
    subject = "muster sandbox"
    certificate = (
        _begun(subject, own.public_key(), _named(subject), now, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(key_cert_sign=True, crl_sign=True, **dict.fromkeys(_NO_USAGE, False)), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .sign(own, hashes.SHA256())
    )
    _write_key(key, own)
    write_whole(str(path), certificate.public_bytes(_PEM))
    return certificate, own


def _begun(
    name: str, key: ec.EllipticCurvePublicKey, issuer: x509.Name, now: datetime, days: int
) -> x509.CertificateBuilder:
    begin = now - _EARLIER
    return (
        x509.CertificateBuilder(issuer, _named(name), key, x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(now + timedelta(days=days))
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_whole(str(path), text, 0o600)
