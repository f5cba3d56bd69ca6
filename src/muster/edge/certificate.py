"""Whether a certificate can be served: in time, with its key, for the names that clients use. Pure but for its clock,
which is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from muster.errors import Refusal, shown

_FIX = "name the certificate with its chain, leaf first, and its own key, both in PEM"


def served(certificate: str, key: str, names: Sequence[str], now: datetime, *, where: tuple[str, str]) -> str:
    """Return certificate, chain and key as HAProxy reads them from one file.

    Args:
        certificate: PEM, the leaf first.
        key: PEM, without a passphrase.
        names: that clients call the edge by.
        now: in UTC.
        where: names of the two files, for messages.

    Raises:
        Refusal: no such files, expired or not yet valid, another key's, or not for one of the names.
    """
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
    except ValueError:
        raise Refusal(f"{where[0]} holds no certificate in PEM", fix=_FIX) from None
    try:
        private = serialization.load_pem_private_key(key.encode(), None)
    except (ValueError, TypeError):  # TypeError: it has a passphrase, which nobody could type at a start
        raise Refusal(f"{where[1]} holds no private key in PEM without a passphrase", fix=_FIX) from None
    for each in chain:
        _in_time(each, now, where[0])
    leaf = chain[0]
    if _public(leaf.public_key()) != _public(private.public_key()):
        raise Refusal(f"{where[1]} is not the key of {where[0]} ({_subject(leaf)})", fix=_FIX)
    if not names:
        raise Refusal(
            "edge_names is empty", needed="the names that clients call the edge by", fix='edge_names = ["api.example"]'
        )
    held = _names(leaf)
    missing = [name for name in names if not any(_covers(pattern, name) for pattern in held)]
    if missing:
        raise Refusal(
            f"{where[0]} is for {shown(', '.join(held)) or 'no DNS name'}, not for {', '.join(missing)}",
            needed="every name of edge_names in the certificate: clients refuse it otherwise",
            fix="order it for these names, or correct edge_names",
        )
    return "".join(f"{text.strip()}\n" for text in (certificate, key))


def _in_time(certificate: x509.Certificate, now: datetime, where: str) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now < end:
        state = (
            f"expired on {end:%Y-%m-%d %H:%M} UTC" if now >= end else f"is not valid before {begin:%Y-%m-%d %H:%M} UTC"
        )
        raise Refusal(
            f"{where}: the certificate of {_subject(certificate)} {state}",
            needed=f"one that is valid now ({now:%Y-%m-%d %H:%M} UTC)",
            fix="renew it, then run this again",
        )


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _subject(certificate: x509.Certificate) -> str:
    return shown(certificate.subject.rfc4514_string()) or "no subject"


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


def _covers(pattern: str, name: str) -> bool:
    """Whether a name of a certificate stands for a name: itself, or any first label for `*`."""
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] and "." in pattern[2:]
    return pattern == name
