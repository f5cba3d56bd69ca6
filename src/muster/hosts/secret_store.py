"""Secrets of a group on the control machine: made once, kept readable by their owner only, sent to every host."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from muster.on_host.whole_files import text_sha256
from muster.plan.restart_decision import Observation, secret_differs
from muster.plan.types import Plan, Secret
from muster.spec import secret_files


@dataclass
class Store:
    """The secrets of one group.

    Args:
        directory: where the ones made at random are kept.
        sha256: path on the hosts -> digest that every host must have.
        texts: path on the hosts -> the secret, where this machine knows it.
        made: paths of those that this run has made.
    """

    directory: Path
    sha256: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict, repr=False)
    made: list[str] = field(default_factory=list)

    def keep(self) -> None:
        """Write what this run has made before it is first sent, so that a run that is cut finds it again."""
        for path in self.made:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = self.directory / Path(path).name
            with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(self.texts[path])
        self.made.clear()


def open_store(plan: Plan, observations: Mapping[str, Observation]) -> Store:
    """Settle what every secret of a group must be; writes nothing.

    Args:
        plan: the group.
        observations: by host.

    Raises:
        Refusal: a secret that the user keeps in a file which is not there, or does not hold what it should.
    """
    store = Store(_directory(plan.group))
    for secret in plan.secrets:
        kept = store.directory / Path(secret.path).name
        text: str | None
        if secret.source is not None:
            canonical = secret_files.api_key if secret.kind == "api key" else secret_files.environment
            text = canonical(secret_files.read(secret.source), where=secret.source)
        else:
            text = _kept(kept)
        digests = {host: _digest(secret, seen["secrets"].get(secret.path, {})) for host, seen in observations.items()}
        stored = text_sha256(text) if text is not None else None
        choice = choose_secret(stored, digests, given=secret.source is not None)
        if choice == "hosts":
            store.sha256[secret.path] = str(next(iter(digests.values())))
            continue
        if text is None:
            text = secrets.token_hex(32) + "\n"
            store.made.append(secret.path)
        store.texts[secret.path], store.sha256[secret.path] = text, text_sha256(text)
    return store


def choose_secret(
    stored: str | None, on_hosts: Mapping[str, str | None], *, given: bool = False
) -> Literal["stored", "hosts", "new"]:
    """Decide where a secret comes from. Pure.

    Args:
        stored: SHA-256 of the control machine's copy, or None.
        on_hosts: host -> SHA-256 there, or None.
        given: whether the user keeps it in a file of theirs, which wins.

    A random secret that all hosts share stays, whatever this machine has kept: another control machine made it, and two
    that differ would restart the group by turns. Otherwise this machine's copy counts, or a new one is made for all.
    """
    digests = set(on_hosts.values())
    if not given and stored not in digests and len(digests) == 1 and None not in digests:
        return "hosts"
    return "new" if stored is None else "stored"


def _digest(secret: Secret, on_host: Mapping[str, Any]) -> str | None:
    """Return the digest of a secret that can stay on a host; None where mode or owner must be set again."""
    digest = on_host.get("sha256")
    return None if digest is None or secret_differs(secret, digest, on_host) else str(digest)


def _kept(place: Path) -> str | None:
    """Return the secret that an earlier run made, or None; what a run that was cut left half-written is none."""
    try:
        text = place.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return text if re.fullmatch(r"[0-9a-f]{64}\n", text) else None


def _directory(group: str) -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "muster" / group
