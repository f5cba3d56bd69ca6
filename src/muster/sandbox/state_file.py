"""What a sandbox keeps between commands: state.json, and the paths of all its files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from muster.errors import Refusal
from muster.sandbox.names import Names, check_name, names
from muster.sandbox.shell import write

DEFAULT_DIRECTORY = "/var/lib/muster-sandbox"


@dataclass(frozen=True)
class Host:
    """One booted host."""

    name: str
    address: str
    gpu: str
    gpus: int
    index: int
    port: int = 22
    user: str = "root"


@dataclass(frozen=True)
class State:
    """One sandbox as written down."""

    name: str
    network: str
    base: str
    hosts: tuple[Host, ...] = ()

    def host(self, name: str) -> Host:
        """Return a host by name.

        Raises:
            Refusal: there is none of that name.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        raise Refusal(
            f"sandbox '{self.name}' has no host '{name}'",
            needed=f"one of {', '.join(host.name for host in self.hosts) or '(none)'}",
        )

    def with_host(self, host: Host) -> State:
        """Return the state with one host more."""
        return replace(self, hosts=(*self.hosts, host))


@dataclass(frozen=True)
class Place:
    """Where the files of one sandbox lie on the machine."""

    root: Path
    name: str

    @property
    def directory(self) -> Path:
        """The sandbox's own directory."""
        return self.root / self.name

    @property
    def state_file(self) -> Path:
        return self.directory / "state.json"

    @property
    def key(self) -> Path:
        """Private SSH key that opens every host."""
        return self.directory / "key"

    @property
    def known_hosts(self) -> Path:
        """Host keys, for strict checking."""
        return self.directory / "known_hosts"

    @property
    def bases(self) -> Path:
        """Built root file systems, shared by all sandboxes."""
        return self.root / ".base"

    @property
    def uv_cache(self) -> Path:
        """Package cache that all hosts share, so that N hosts do not download N times."""
        return self.root / ".uv-cache"

    @property
    def names(self) -> Names:
        return names(str(self.root), self.name)

    def host(self, name: str) -> Path:
        """Directory of one host: its changes, its root, its console's log."""
        return self.directory / "hosts" / name

    def tree(self, name: str) -> Path:
        """Root file system of one host as the machine sees it."""
        return self.host(name) / "root"


def root_directory() -> Path:
    """Return the directory of all sandboxes (`MUSTER_SANDBOX_DIR`)."""
    return Path(os.environ.get("MUSTER_SANDBOX_DIR") or DEFAULT_DIRECTORY).absolute()


def place(name: str) -> Place:
    """Return where the sandbox `name` keeps its files."""
    return Place(root_directory(), check_name(name))


def load(where: Place) -> State | None:
    """Read a sandbox's state; None when it was never brought up.

    Raises:
        Refusal: the file is there but is not what muster writes.
    """
    try:
        text = where.state_file.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        data = json.loads(text)
        hosts = tuple(Host(**host) for host in data.pop("hosts"))
        return State(hosts=hosts, **data)
    except (ValueError, TypeError, KeyError) as error:
        raise Refusal(
            f"{where.state_file} cannot be read ({error})",
            fix=f"muster sandbox down --name {where.name}",
        ) from None


def save(where: Place, state: State) -> None:
    """Write a sandbox's state."""
    write(where.state_file, json.dumps(asdict(state), indent=2) + "\n")


def every(root: Path) -> Iterator[str]:
    """Yield the names of all sandboxes under a directory."""
    if root.is_dir():
        for entry in sorted(root.iterdir()):
            if (entry / "state.json").is_file():
                yield entry.name
