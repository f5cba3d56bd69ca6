"""One resolution of a release for all hosts of a run: who makes it, who fetches its files, what each host installs.

The release is resolved on one of the hosts, while the run is under way; only then is it known what the others are to
install. So requests are made when their operation is executed. A bundle brings its own resolution, and every file.

The first resolution is kept on the control machine (`spec.resolutions`); from then on no host's word counts: every host
gets the kept one, and a host that answers with another is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.shared.engine_addresses import addresses_of, require_allowed
from muster.deploys.shared.group_run import GroupRun
from muster.errors import Refusal
from muster.hosts import programs, uv_binary
from muster.hosts.once import OncePerRun
from muster.hosts.program_operation import Later, Session
from muster.hosts.say import fail, say
from muster.on_host import places, pylock
from muster.on_host.in_words import size
from muster.on_host.whole_files import text_sha256
from muster.plan.weights_path import bundle_path, revision_path
from muster.spec import bundles, resolutions
from muster.spec.listing import Entry, Listing
from muster.weights.keys import pair_keys
from muster.weights.staging_roles import requests


@dataclass
class Resolution:
    """How one run resolves its release, and the result once it is known.

    Args:
        run: of the group.
        keeper: a host that has the whole release, whose resolution holds for the others; "" where there is none.
        seed: the host that resolves, and fetches for all; "" where nothing is installed or a bundle has it all.
        gather: hosts that get the files from the seed; empty where every host asks the index itself.
        text: of the `pylock.toml`, once it is known.
        refused: the host whose resolution was refused; nothing is resolved after that.
        kept: the file on the control machine that holds it; None before the first resolution, and with a bundle.
        bundle: its directory on the hosts; None without one.
        sizes: file -> bytes, of the files whose size the text does not say.
    """

    run: GroupRun
    keeper: str = ""
    seed: str = ""
    gather: tuple[str, ...] = ()
    text: str = ""
    kept: Path | None = None
    refused: str = ""
    bundle: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    packages: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, state: State, run: GroupRun) -> Resolution:
        """Return the one of a run, made by whichever host asks first."""
        return _resolutions.get(state, run.plan.group, lambda: cls._prepared(run))

    @classmethod
    def _prepared(cls, run: GroupRun) -> Resolution:
        prepared = cls(run, bundle=bundle_path(run.settings))
        lacking = [name for name in run.plan.hosts if run.decision.hosts[name].install]
        bundle = bundles.directory_of(run.settings)
        if bundle is not None and lacking:
            text = bundles.resolution(bundle)
            prepared.know(text, prepared.parsed(text, str(bundle)), {})
        elif lacking:
            prepared.seed = lacking[0]
            prepared.kept = resolutions.path_in_use(run.plan.release.id, run.homes)
            if prepared.kept is None:
                prepared.keeper = next((name for name in run.plan.hosts if name not in lacking), "")
            prepared.gather = tuple(lacking) if run.settings.engine_fanout and len(lacking) > 1 else ()
            prepared.keys = pair_keys(lacking, os.urandom(32))
            if prepared.kept is not None:
                text = resolutions.read(prepared.kept)
                prepared.know(text, prepared.checked(text, str(prepared.kept)), {})
        return prepared

    def parsed(self, text: str, where: str) -> list[dict[str, Any]]:
        """Return the packages of a resolution.

        Args:
            text: of the resolution.
            where: it came from, for messages.

        Raises:
            Refusal: it cannot be understood.
        """
        directory = str(Path(places.resolution(self.run.plan.release.path)).parent)
        try:
            return pylock.parse(text, directory)
        except ValueError as error:
            raise Refusal(
                f"{where}: the resolution of {self.run.plan.release.id} cannot be read: {error}",
                needed="what uv resolves",
                fix=f"remove it ({directory} on a host) and run again",
            ) from None

    def checked(self, text: str, where: str) -> list[dict[str, Any]]:
        """Return the packages of a resolution that names configured addresses only; raises as `parsed` otherwise."""
        packages = self.parsed(text, where)
        addresses = addresses_of(self.run.plan.release, self.run.settings.index_file_hosts)
        require_allowed(packages, addresses, where)
        return packages

    def know(self, text: str, packages: list[dict[str, Any]], sizes: Mapping[str, int]) -> None:
        """Take a resolution that has passed every check."""
        self.text, self.packages, self.sizes = text, packages, sizes
        if any(package["kind"] != "wheel" for package in packages):
            self.gather = ()  # what has to be built needs the index for its tools as well

    def reading(self, host: str) -> Session | None:
        """Return the keeper's part: to send the resolution of its release."""
        if host != self.keeper:
            return None
        request = {"path": self.run.plan.release.path, "resolve": False}
        return Session("resolve_engine", request, "read the resolution of the release", self._take)

    def resolving(self, host: str) -> Session | None:
        """Return the seed's part: to resolve, or to take what the keeper has."""
        if host != self.seed:
            return None
        return Session("resolve_engine", Later(self._resolution), "resolve the release", self._take)

    def gathering(self, host: str) -> Session | None:
        """Return a host's part in getting every file from the index to all hosts."""
        if host not in self.gather:
            return None
        return Session("transfer_stage", Later(lambda: self._gathering(host)), "gather the packages", streams=True)

    def _take(self, _state: State, host: Host, answer: programs.Answer) -> bool:
        """Take a host's answer; an older muster kept no resolution of what it installed."""
        if not answer["text"] and host.name == self.keeper:
            return True
        try:
            self.take(host.name, answer["text"], answer.get("sizes", {}))
        except Refusal as refusal:
            self.refused = host.name
            fail(host, str(refusal))
            return False
        total = sum(package["size"] or self.sizes.get(package["file"], 0) for package in self.packages)
        say(host, f"the release is {len(self.packages)} packages, {size(total)}, as {self.kept} names them")
        return True

    def take(self, host: str, text: str, sizes: Mapping[str, int]) -> None:
        """Take a host's resolution: the first one is kept on the control machine, any other must equal it.

        Raises:
            Refusal: it is another one, cannot be understood, or has files from elsewhere or of unknown size.
        """
        release = self.run.plan.release.id
        if self.text and text != self.text:
            raise Refusal(
                f"{host}: its resolution of {release} has SHA-256 {text_sha256(text)[:16]}…",
                needed=f"{text_sha256(self.text)[:16]}…, as {self.kept} holds: the same files on every host",
                fix=f"find out who changed it there; to resolve again for all, remove {self.kept}",
            )
        packages = self.checked(text, host)
        unknown = [package["file"] for package in packages if package["size"] is None and package["file"] not in sizes]
        if unknown and host == self.seed:
            raise Refusal(
                f"{host}: no size of {', '.join(unknown[:3])}", needed="the bytes of every file of the engine"
            )
        if self.kept is None:
            self.kept = resolutions.write(release, text, self.run.homes)
        self.know(text, packages, sizes)

    def _resolution(self) -> dict[str, Any]:
        if self.refused:
            # Another resolution would give this host other files than those that have the release already.
            raise Refusal(
                f"the resolution of {self.refused} was refused", fix=f"read the lines of {self.refused} above"
            )
        release = self.run.plan.release
        return {
            **self._common(self.seed),
            "resolve": True,
            "text": self.text,
            "source": self._source(),
            "requirements": list(release.requirements),
            "overrides": list(release.overrides),
        }

    def _gathering(self, host: str) -> dict[str, Any] | None:
        if not self.packages:
            raise Refusal(f"{self.seed} did not resolve the release", fix=f"read the lines of {self.seed} above")
        if not self.gather:
            return None
        plan, settings = self.run.plan, self.run.settings
        listing = self._listing()
        urls = {package["file"]: package["url"] for package in self.packages}
        source = {"kind": "urls", "from": "from the index", "urls": urls, **self._source()}
        addresses = {name: plan.hosts[name].address for name in self.gather}
        directory = self._directory(listing)
        return requests(addresses, listing, settings.weights, self.keys, source, self.seed, directory)[host]

    def installation(self, host: str) -> Later:
        """Return the request to install on a host, made once the resolution is known."""
        release = self.run.plan.release

        def request() -> dict[str, Any]:
            if not self.text:
                raise Refusal(f"{self.seed} did not resolve the release", fix=f"read the lines of {self.seed} above")
            gathered = self._directory(self._listing()) if self.gather else None
            wheels = gathered or (self.bundle and f"{self.bundle}/wheels")
            return {
                **self._common(host),
                "spec": release.id,
                "lock": self.text,
                "wheels": wheels,
                "forget": bool(self.gather),
            }

        return Later(request)

    def _common(self, host: str) -> dict[str, Any]:
        release = self.run.plan.release
        sends = self.run.decision.hosts[host].send_uv
        return {
            "path": release.path,
            "python": release.python,
            "install_args": list(release.install_args),
            "env": dict(release.env),
            **uv_binary.places(self.run.settings.root),
            "uv_payload": uv_binary.payload(self.run.observations[host]["machine"]) if sends else None,
        }

    def _source(self) -> dict[str, Any]:
        return {"proxy": self.run.settings.proxy, "ssl_cert_file": self.run.settings.ssl_cert_file}

    def _listing(self) -> Listing:
        entries = [Entry(p["file"], p["size"] or self.sizes[p["file"]], p["sha256"]) for p in self.packages]
        files = tuple(sorted(entries, key=lambda entry: entry.path))
        name = self.run.plan.release.id.replace("+", "_")
        return Listing(f"engine/{name}", Listing("", "", "", files).digest[:40], "index", files)

    def _directory(self, listing: Listing) -> str:
        return revision_path(f"{self.run.settings.root}/{places.WHEELS}", listing.model, listing.revision)


_resolutions: OncePerRun[Resolution] = OncePerRun()
