"""Which host fetches, which serve, which are complete, and what cannot work: observations in, requests out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muster.errors import Refusal
from muster.on_host.in_words import size
from muster.on_host.transfer_progress import RESERVE
from muster.plan.weights_path import revision_path
from muster.spec.listing import Listing
from muster.spec.settings import Weights

Probe = Mapping[str, Any]
"""Answer of `muster.on_host.weights_on_disk.probe`."""


@dataclass(frozen=True)
class Staging:
    """What one run does.

    Args:
        directory: of the revision, the same on every host.
        complete: hosts that have all of it, verified.
        seed: the host that fetches and announces; empty when all are complete.
        requests: host -> request of `muster.on_host.transfer_stage`; empty when all are complete.
        links: hosts on which `current` points elsewhere.
    """

    directory: str
    complete: tuple[str, ...]
    seed: str
    requests: Mapping[str, Mapping[str, Any]]
    links: tuple[str, ...]

    def text(self, listing: Listing) -> str:
        """Return in one line what will happen."""
        what = f"{listing.model} at {listing.revision[:12]}, {len(listing.files)} files, {size(listing.size)}"
        if not self.requests:
            return f"{what}: complete on all {len(self.complete)} hosts"
        lacking = [host for host in self.requests if host not in self.complete]
        return f"{what}: {len(lacking)} of {len(self.requests)} hosts lack some of it; {self.seed} is the seed"


def staging(
    addresses: Mapping[str, str],
    probes: Mapping[str, Probe],
    listing: Listing,
    options: Weights,
    keys: Mapping[str, Mapping[str, str]],
    source: Mapping[str, Any],
) -> Staging:
    """Decide one run.

    Args:
        addresses: host -> fabric address, in inventory order.
        probes: host -> its answer.
        listing: the files of the revision.
        options: of the group.
        keys: host -> peer -> key.
        source: of the seed, for `muster.on_host.transfer_source`.

    Raises:
        Refusal: a host without room, with the arithmetic, before a byte has moved.
    """
    directory = revision_path(options.root, listing.model, listing.revision)
    complete = tuple(host for host in addresses if probes[host]["complete"])
    links = tuple(host for host in addresses if probes[host]["link"] != listing.revision)
    if len(complete) == len(addresses):
        return Staging(directory, complete, "", {}, links)
    _check_room([host for host in addresses if host not in complete], probes, listing, directory)
    seed = choose_seed(list(addresses), probes, options.seed)
    requests_by_host = requests(addresses, listing, options, keys, source, seed, directory)
    return Staging(directory, complete, seed, requests_by_host, links)


def requests(
    addresses: Mapping[str, str],
    listing: Listing,
    options: Weights,
    keys: Mapping[str, Mapping[str, str]],
    source: Mapping[str, Any],
    seed: str,
    directory: str,
) -> dict[str, dict[str, Any]]:
    """Return host -> request of `transfer_stage`; arguments as in `staging`, plus the seed and the directory."""
    return {
        host: {
            "directory": directory,
            "listing": listing.as_data(),
            "me": host,
            "seed": seed,
            "address": address,
            "port": options.port,
            "interval": options.interval,
            "patience": options.patience,
            "source": dict(source) if host == seed else None,
            "peers": {
                peer: {"address": addresses[peer], "port": options.port, "key": secret(keys[host][peer])}
                for peer in addresses
                if peer != host
            },
        }
        for host, address in addresses.items()
    }


def secret(value: str | None) -> dict[str, str] | None:
    """Return a secret as a request carries it: `session.public` hides every value called `text`."""
    return None if value is None else {"text": value}


def choose_seed(hosts: Sequence[str], probes: Mapping[str, Probe], requested: str | None) -> str:
    """Return the host that fetches: a complete one, else the requested one, else the one with most of the files.

    Raises:
        Refusal: the requested host is not in the inventory.
    """
    if requested is not None and requested not in hosts:
        raise Refusal(f"weights_seed is '{requested}'", needed=f"one of {', '.join(hosts)}", fix="correct weights_seed")
    complete = [host for host in hosts if probes[host]["complete"]]
    if complete:
        return complete[0]
    return requested or max(hosts, key=lambda host: int(probes[host]["bytes"]))


def _check_room(hosts: Sequence[str], probes: Mapping[str, Probe], listing: Listing, directory: str) -> None:
    rows = []
    for host in hosts:
        here, free = int(probes[host]["bytes"]), int(probes[host]["free"])
        needed = listing.size - here + RESERVE
        if needed > free:
            rows.append(
                f"{host}: {size(listing.size)} of files - {size(here)} here + {size(RESERVE)} to stay free"
                f" = {size(needed)}, but {size(free)} are free: {size(needed - free)} short"
            )
            others = {name: taken for name, taken in probes[host]["revisions"].items() if name != listing.revision}
            rows += [f"  revision {name[:12]} takes {size(taken)}" for name, taken in others.items()]
    if rows:
        raise Refusal(
            f"no room for {listing.model} in {directory} on {len([r for r in rows if r[0] != ' '])} host(s)",
            needed="room for all files on every host before the first byte moves",
            fix="muster weights prune, free the disk, or set weights_root to a larger one",
            detail="\n".join(rows),
        )
