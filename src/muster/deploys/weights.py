"""Stage weights: every host gets the pinned revision, verified; the running group is not touched.

One look at each host, all at once. When all are complete, nothing else is asked of them: a second run costs one remote
command a host, with any number of files.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from gevent.lock import RLock
from pyinfra import logger
from pyinfra.api.command import FunctionCommand, PyinfraCommand
from pyinfra.api.exceptions import DeployError
from pyinfra.api.state import State

from muster import inventory, recipe, remote, uv_binary
from muster.errors import Refusal
from muster.inventory import Fleet
from muster.release import release_of
from muster.session import Session
from muster.typed import current_host, current_state, operation, stage
from muster.weights import ask, pins, upload
from muster.weights import options as weight_options
from muster.weights.keys import pair_keys
from muster.weights.layout import revision_path
from muster.weights.listing import Listing
from muster.weights.options import Options
from muster.weights.staging import Staging, staging


@dataclass(frozen=True)
class WeightsRun:
    """What the hosts of one run share."""

    listing: Listing
    options: Options
    staging: Staging


_runs: WeakKeyDictionary[State, dict[str, WeightsRun | DeployError | None]] = WeakKeyDictionary()
_lock = RLock()


@stage("Weights")
def stage_weights(recipe_name: str) -> None:
    """Bring the pinned revision of a recipe's model to every host of the inventory.

    Args:
        recipe_name: name of the recipe.

    Raises:
        DeployError: no pin, no room, no such source; nothing was touched.
    """
    run = weights_run(current_state(), recipe_name)
    if run is None:
        return
    name = current_host().name
    weights_sent(
        run.listing if run.options.kind == "control" and name == run.staging.seed else None,
        run.staging.directory,
        run.options.path,
        name="what the seed lacks is sent from the control machine",
    )
    weights_complete(
        run.staging.requests.get(name),
        name=f"{run.listing.model} at {run.listing.revision[:12]} is complete and verified",
    )
    weights_linked(
        run.staging.directory if name in run.staging.links else None,
        name=f"'current' leads to {run.listing.revision[:12]}",
    )


@operation
def weights_sent(listing: Listing | None, directory: str, origin: str) -> Iterator[PyinfraCommand]:
    """The seed has every file of a directory on the control machine, though not verified yet.

    Args:
        listing: of the revision; None on every host but the seed.
        directory: of the revision, on the seed.
        origin: directory on the control machine.
    """
    if listing is not None:
        yield FunctionCommand(upload.send, [listing, directory, origin], {})


@operation
def weights_complete(request: remote.Request | None) -> Iterator[PyinfraCommand]:
    """The revision is whole on this host, and no peer needs it from here.

    Args:
        request: of `muster.host.weights_stage`, or None when every host is complete.
    """
    if request is not None:
        yield Session("weights_stage", request, f"bring {request['directory']}", streams=True)


@operation
def weights_linked(directory: str | None) -> Iterator[PyinfraCommand]:
    """`current` beside the revisions leads to this one.

    Args:
        directory: of the revision, or None where it does.
    """
    if directory is not None:
        request = {"do": "link", "directory": directory}
        yield Session("weights", request, f"link current to {shlex.quote(directory)}")


def weights_run(state: State, recipe_name: str) -> WeightsRun | None:
    """Return the run, made by whichever host asks first; None where the settings name no source."""
    with _lock:
        runs = _runs.setdefault(state, {})
        if recipe_name not in runs:
            try:
                runs[recipe_name] = _prepare(state, recipe_name)
            except Refusal as error:
                runs[recipe_name] = DeployError(str(error))
            except DeployError as error:
                runs[recipe_name] = error
        found = runs[recipe_name]
    if isinstance(found, DeployError):
        raise found
    return found


def _prepare(state: State, recipe_name: str) -> WeightsRun | None:
    fleet = inventory.from_pyinfra(state.inventory, name="inventory")
    options = weight_options.of(fleet.settings)
    if options.kind == "none":
        return None
    wanted = recipe.load(recipe_name)
    listing = pins.read(wanted.name)
    model = fleet.settings.model or wanted.model
    if listing is None or listing.model != model:
        raise Refusal(
            f"there is no pin of {model} ({pins.path_of(wanted.name)})",
            needed="the commit and what every file of it must be",
            fix=f"muster pin {wanted.name}",
        )
    hosts = {host.name: host for host in state.inventory}
    active = {host.name for host in state.active_hosts}
    addresses = {spec.name: spec.address for spec in fleet.hosts if spec.name in active}
    directory = revision_path(options.root, listing.model, listing.revision)
    look = {"do": "look", "directory": directory, "manifest": listing.digest}
    looks = ask.hosts(state, {name: hosts[name] for name in addresses}, "weights", look)
    keys = pair_keys(list(addresses), os.urandom(32))
    run = WeightsRun(listing, options, staging(addresses, looks, listing, options, keys, source_of(fleet, options)))
    logger.info(run.staging.text(listing))
    return run


def source_of(fleet: Fleet, options: Options) -> dict[str, Any]:
    """Return what the seed fetches from, the token included; it travels on standard input only.

    Raises:
        Refusal: the token's file cannot be read.
    """
    settings = fleet.settings
    release = release_of(settings, ray=False)
    texts = {
        "hub": f"from {options.endpoint or 'the hub'}",
        "modelscope": "from ModelScope",
        "directory": f"from {options.path}",
        "control": "from the control machine",
    }
    return {
        "kind": options.kind,
        "text": texts[options.kind],
        "path": options.path,
        "endpoint": options.endpoint,
        "proxy": options.proxy,
        "ssl_cert_file": options.ssl_cert_file,
        "token": _token(options),
        "program": remote.source("weights_hub"),
        "pythons": [f"{release.path}/bin/python"],
        "venv": f"{settings.root}/hub",
        "uv": uv_binary.path_on_hosts(settings.root),
        "install_args": [
            word for word in release.install_args if "torch" not in word and word != settings.torch_backend
        ],
        "install_env": dict(release.env),
    }


def _token(options: Options) -> str | None:
    if options.token_file is None:
        return None
    try:
        return Path(options.token_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Refusal(
            f"weights_token_file {options.token_file}: {error.strerror}",
            needed="a file on this machine with nothing but the token",
            fix="correct weights_token_file",
        ) from None
