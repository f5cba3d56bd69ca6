"""Certificates that clients would refuse are refused before anything is touched."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from muster.edge.certificate import served
from muster.errors import Refusal
from tests.edge.live import make_certificate
from tests.faults.edge_matrix import by_key

NOW = datetime.now(timezone.utc)
WHERE = ("c.pem", "k.pem")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    path = tmp_path_factory.mktemp("certificate") / "edge.pem"
    make_certificate(path, ("api.example", "*.models.example"))
    return Path(f"{path}.crt").read_text(), Path(f"{path}.key").read_text()


def test_a_good_one_is_one_file_for_haproxy(pair: tuple[str, str]) -> None:
    text = served(*pair, ["api.example", "a.models.example"], NOW, where=WHERE)
    assert text.count("BEGIN CERTIFICATE") == text.count("PRIVATE KEY-----\n") / 2 == 1


@pytest.mark.parametrize(
    ("key", "names", "now", "words"),
    [
        ("certificate-name", ["other.example"], NOW, "is for api.example, *.models.example, not for other.example"),
        ("certificate-name", ["models.example"], NOW, "not for models.example"),
        ("certificate-name", ["a.b.models.example"], NOW, "not for a.b.models.example"),
        ("certificate-expired", ["api.example"], NOW + timedelta(days=3), "c.pem: "),
        ("certificate-early", ["api.example"], NOW - timedelta(days=30), "c.pem: "),
    ],
)
def test_names_and_times_are_held_against_it(
    pair: tuple[str, str], key: str, names: list[str], now: datetime, words: str
) -> None:
    with pytest.raises(Refusal) as refused:
        served(*pair, names, now, where=WHERE)
    assert by_key(key).says(str(refused.value))
    assert words in str(refused.value)


def test_an_edge_without_a_name_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(Refusal, match="edge_names is empty"):
        served(*pair, [], NOW, where=WHERE)


def test_another_key_and_no_pem_are_told_by_file(pair: tuple[str, str], tmp_path: Path) -> None:
    make_certificate(tmp_path / "other.pem")
    other = (tmp_path / "other.pem.key").read_text()
    for certificate, key, words in (
        (pair[0], other, f"k.pem {by_key('certificate-key').refusal} c.pem"),
        ("x", pair[1], "c.pem holds no certificate"),
        (pair[0], pair[0], "k.pem holds no private key"),
    ):
        with pytest.raises(Refusal, match=words) as refused:
            served(certificate, key, ["api.example"], NOW, where=WHERE)
        assert "PRIVATE" not in str(refused.value)
