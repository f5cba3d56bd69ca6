"""Which distribution this machine runs and where its packages come from: readers of os-release and apt's files."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from muster.errors import Refusal


@dataclass(frozen=True)
class Source:
    """One `deb` entry of apt."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str | None = None

    def line(self) -> str:
        """Return the one-line form, without the key: hosts trust the distribution's own keyring."""
        return f"deb {self.uri} {self.suite} {' '.join(self.components)}"


@dataclass(frozen=True)
class Distro:
    """A Debian or Ubuntu release and its main archive."""

    id: str
    suite: str
    main: Source
    sources: tuple[Source, ...]


def os_release(text: str) -> dict[str, str]:
    """Parse /etc/os-release into a dictionary; lines that are not assignments are skipped."""
    out = {}
    for line in text.splitlines():
        key, sep, value = line.strip().partition("=")
        if sep and not key.startswith("#"):
            out[key] = "".join(shlex.split(value))
    return out


def one_line_sources(text: str) -> list[Source]:
    """Parse `deb [options] uri suite component…` lines (sources.list(5))."""
    out = []
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        if not line.startswith(("deb ", "deb\t")):
            continue
        rest = line[3:].strip()
        signed = None
        if rest.startswith("["):
            options, _, rest = rest[1:].partition("]")
            for option in options.split():
                key, _, value = option.partition("=")
                signed = value if key == "signed-by" else signed
        words = rest.split()
        if len(words) >= 2:
            out.append(Source(words[0], words[1], tuple(words[2:]), signed))
    return out


def deb822_sources(text: str) -> list[Source]:
    """Parse the stanzas of a `.sources` file; several URIs or suites give one entry each."""
    out = []
    for stanza in _stanzas(text):
        if "deb" not in stanza.get("types", "").split() or stanza.get("enabled", "yes").lower() == "no":
            continue
        # An inlined key block is not a path.
        signed = stanza.get("signed-by", "").split()
        for uri in stanza.get("uris", "").split():
            for suite in stanza.get("suites", "").split():
                path = signed[0] if signed and signed[0].startswith("/") else None
                out.append(Source(uri, suite, tuple(stanza.get("components", "").split()), path))
    return out


def _stanzas(text: str) -> Iterable[Mapping[str, str]]:
    current: dict[str, str] = {}
    key = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if current:
                yield current
            current, key = {}, ""
        elif line[0] in " \t":
            current[key] = current.get(key, "") + " " + line.strip()
        else:
            name, _, value = line.partition(":")
            key = name.strip().lower()
            current[key] = value.strip()


def distro(
    release: Mapping[str, str], sources: Iterable[Source], *, mirror: str | None = None, suite: str | None = None
) -> Distro:
    """Choose the archive that the hosts are built from: the machine's own release and mirror.

    Args:
        release: os-release of this machine.
        sources: every apt entry of this machine.
        mirror: overrides the archive's address (`MUSTER_SANDBOX_MIRROR`).
        suite: another release of the same archive (`MUSTER_SANDBOX_SUITE`), such as `trixie`.

    Raises:
        Refusal: no Debian or Ubuntu, or no entry for the release's main archive.
    """
    own = release.get("VERSION_CODENAME", "")
    family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if not own or not family & {"debian", "ubuntu"}:
        raise Refusal(
            f"this machine runs {release.get('PRETTY_NAME', 'an unknown system')}",
            needed="Debian or Ubuntu, whose packages the sandbox's hosts are built from",
            fix="run the sandbox on such a machine; `muster plan` works here without it",
        )
    known = [s for s in sources if s.suite.split("-")[0] == own and "main" in s.components]
    main = next((s for s in known if s.suite == own), None)
    if mirror:
        main = Source(mirror, own, main.components if main else ("main",), main.signed_by if main else None)
        known = [main]
    if main is None:
        raise Refusal(
            f"apt on this machine has no entry for {own}",
            needed="a package mirror to build the hosts from",
            fix="set MUSTER_SANDBOX_MIRROR to one",
        )
    if suite and suite != own:
        # The suites of updates do not have the same names in every release.
        main = replace(main, suite=suite)
        known = [main]
    return Distro(release["ID"], main.suite, main, tuple(known))
