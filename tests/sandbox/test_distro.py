from __future__ import annotations

import pytest

from muster.errors import Refusal
from muster.sandbox import distro

DEB822 = """\
Types: deb deb-src
# a comment inside a stanza
URIs: http://mirror.example/debian http://other.example/debian
Suites: bookworm bookworm-updates
Components: main
  contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
Enabled: no
URIs: http://off.example/
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb http://commented.example/ jammy main
deb [arch=amd64 signed-by=/etc/apt/keyrings/x.gpg] http://mirror.example/ubuntu jammy main universe # note
deb http://mirror.example/ubuntu jammy-security main
deb-src http://mirror.example/ubuntu jammy main
deb http://flat.example/ ./
"""
DEBIAN = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
UBUNTU = {"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_CODENAME": "jammy"}


def test_os_release_is_read_with_and_without_quotes() -> None:
    text = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n# X=1\n\nVERSION_CODENAME=bookworm\n'
    assert distro.os_release(text) == {
        "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)",
        "ID": "debian",
        "VERSION_CODENAME": "bookworm",
    }


def test_stanzas_give_one_entry_per_address_and_suite() -> None:
    parsed = distro.deb822_sources(DEB822)
    assert [(source.uri, source.suite) for source in parsed] == [
        ("http://mirror.example/debian", "bookworm"),
        ("http://mirror.example/debian", "bookworm-updates"),
        ("http://other.example/debian", "bookworm"),
        ("http://other.example/debian", "bookworm-updates"),
    ]
    assert {source.components for source in parsed} == {("main", "contrib")}
    assert {source.signed_by for source in parsed} == {"/usr/share/keyrings/debian-archive-keyring.gpg"}


def test_lines_keep_the_key_and_drop_sources_and_comments() -> None:
    parsed = distro.one_line_sources(ONE_LINE)
    assert parsed == [
        distro.Source("http://mirror.example/ubuntu", "jammy", ("main", "universe"), "/etc/apt/keyrings/x.gpg"),
        distro.Source("http://mirror.example/ubuntu", "jammy-security", ("main",)),
        distro.Source("http://flat.example/", "./", ()),
    ]
    assert parsed[0].line() == "deb http://mirror.example/ubuntu jammy main universe"


def test_an_inlined_key_is_no_path() -> None:
    text = (
        "Types: deb\nURIs: http://m.example/\nSuites: noble\nComponents: main\nSigned-By:\n -----BEGIN PGP-----\n x\n"
    )
    assert distro.deb822_sources(text)[0].signed_by is None


def test_the_machines_own_release_and_mirror_are_chosen() -> None:
    foreign = distro.Source("http://vendor.example/", "bookworm", ("stable",))
    chosen = distro.distro(DEBIAN, [foreign, *distro.deb822_sources(DEB822)])
    assert (chosen.id, chosen.suite, chosen.main.uri) == ("debian", "bookworm", "http://mirror.example/debian")
    assert foreign not in chosen.sources
    ubuntu = distro.distro(UBUNTU, distro.one_line_sources(ONE_LINE))
    assert ubuntu.main.components == ("main", "universe")


def test_a_mirror_given_by_hand_wins_and_keeps_the_key() -> None:
    chosen = distro.distro(DEBIAN, distro.deb822_sources(DEB822), mirror="http://mine.example/d")
    assert chosen.main.uri == "http://mine.example/d"
    assert chosen.main.signed_by == "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert chosen.sources == (chosen.main,)
    assert distro.distro(DEBIAN, [], mirror="http://mine.example/d").main.components == ("main",)


def test_hosts_may_run_another_release_of_the_same_distribution() -> None:
    chosen = distro.distro(DEBIAN, distro.deb822_sources(DEB822), suite="trixie")
    assert (chosen.suite, chosen.main.suite, chosen.main.uri) == ("trixie", "trixie", "http://mirror.example/debian")
    assert [source.suite for source in chosen.sources] == ["trixie"]
    assert distro.distro(DEBIAN, distro.deb822_sources(DEB822), suite="bookworm").main.suite == "bookworm"


def test_another_system_or_no_mirror_is_refused() -> None:
    with pytest.raises(Refusal, match="Fedora"):
        distro.distro({"ID": "fedora", "PRETTY_NAME": "Fedora 42", "VERSION_CODENAME": "x"}, [])
    with pytest.raises(Refusal, match="MUSTER_SANDBOX_MIRROR"):
        distro.distro(DEBIAN, distro.one_line_sources(ONE_LINE))
