"""What the sandbox's own authority gives an edge: clients that trust it accept it, and the edge serves it."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from muster.edge import certificate
from muster.errors import Refusal
from muster.sandbox.edge_certificate import EdgeCertificate, issue
from tests.edge.live import Answer, Connection, Engine, LiveEdge, record

NOW = datetime.now(timezone.utc)
NAMES, ADDRESSES = ("api.example.com", "b.example.com"), ("127.0.0.1",)


def accept(made: EdgeCertificate, name: str, when: datetime = NOW) -> None:
    """Verify the certificate as a client does."""
    store = Store([x509.load_pem_x509_certificate(made.authority.read_bytes())])
    verifier = PolicyBuilder().store(store).time(when).build_server_verifier(x509.DNSName(name))
    verifier.verify(x509.load_pem_x509_certificate(made.certificate.read_bytes()), [])


def test_clients_accept_it_for_its_names_and_its_time(tmp_path: Path) -> None:
    made = issue(tmp_path, NAMES, ADDRESSES, NOW)
    for name in NAMES:
        accept(made, name)
    for name, when in (("c.example.com", NOW), (NAMES[0], NOW + timedelta(days=91))):
        with pytest.raises(VerificationError):
            accept(made, name, when)
    text, key = made.certificate.read_text(), made.key.read_text()
    assert certificate.served(text, key, NAMES, NOW, where=("c", "k")).startswith(text.strip())


def test_another_one_is_by_the_same_authority_and_keys_are_their_owners_alone(tmp_path: Path) -> None:
    first = issue(tmp_path, NAMES, ADDRESSES, NOW)
    authority, leaf = first.authority.read_bytes(), first.certificate.read_bytes()
    second = issue(tmp_path, ("other.example.com",), ADDRESSES, NOW)
    assert second.authority.read_bytes() == authority
    assert second.certificate.read_bytes() != leaf
    accept(second, "other.example.com")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}


@pytest.mark.parametrize("name", ["a b", "-a", "a/../b", "", "é"])
def test_what_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refusal, match="no name of the DNS"):
        issue(tmp_path, (name,), ADDRESSES, NOW)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow  # a real HAProxy
def test_an_edge_serves_it_to_who_trusts_the_authority(tmp_path: Path) -> None:
    made = issue(tmp_path, NAMES, ADDRESSES, NOW)
    engine = Engine("a")
    (tmp_path / "edge").mkdir()
    edge = LiveEdge(tmp_path / "edge", {"a": ("m", [engine])})
    edge.keys(**{"sk-1": record("one")})
    edge.certificate.write_text(made.certificate.read_text() + made.key.read_text())
    try:
        with edge:
            context = ssl.create_default_context(cafile=str(made.authority))
            with Connection("127.0.0.1", edge.port, context=context, timeout=60) as connection:
                connection.request("GET", "/v1/models", headers={"Authorization": "Bearer sk-1"})
                assert Answer(connection.getresponse()).json["data"][0]["id"] == "m"
    finally:
        engine.close()
