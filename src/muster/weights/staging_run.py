"""One staging run over pyinfra's hosts, shared by all of them: the files, their directory, and each host's part."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyinfra import logger
from pyinfra.api.state import State

from muster.errors import Refusal
from muster.hosts import programs, uv_binary
from muster.hosts.all_hosts import reached
from muster.hosts.once import OncePerRun
from muster.hosts.run_programs import ask_all
from muster.on_host import kept_rate, places, read_rate
from muster.plan import loaders
from muster.plan.cold_load import ColdLoad, Rate
from muster.plan.loaders import Choice
from muster.plan.prepare import plans_for
from muster.plan.release import release_of
from muster.plan.types import Plan
from muster.plan.weights_path import revision_path
from muster.spec import bundles, inventory, pins, recipe
from muster.spec.inventory import Fleet
from muster.spec.listing import Listing
from muster.spec.settings import Settings, Weights
from muster.weights import loader_requests, tokens
from muster.weights.keys import pair_keys
from muster.weights.staging_roles import Staging, secret, staging

_PROBE_SECONDS = 120


@dataclass(frozen=True)
class StageRun:
    """What the hosts of one run share.

    Args:
        listing: of the revision.
        options: of the group.
        staging: what is done.
        measures: host without a fresh measurement of its disk -> request of `muster.on_host.read_rate`.
        load: what each host reads when the engine starts; None where no plan can be made.
        loaders: host whose loaders were not measured lately -> request of `muster.on_host.loader_rates`.
        choice: what they are measured for; None where nothing is chosen.
    """

    listing: Listing
    options: Weights
    staging: Staging
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    load: ColdLoad | None = None
    loaders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    choice: Choice | None = None


_runs: OncePerRun[StageRun | None] = OncePerRun()
_runs_of_drafts: OncePerRun[tuple[StageRun, ...]] = OncePerRun()


def of_weights(
    state: State, recipe_name: str, group: str = "", *, required: bool = False, plan: Plan | None = None
) -> StageRun | None:
    """Return the run that stages a recipe's weights; None where the settings name no source.

    Args:
        state: pyinfra's.
        recipe_name: name of the recipe.
        group: of the inventory, where that has several.
        required: whether to refuse where the settings name no source: staging is all that this run is for.
        plan: of the group, with the release that its hosts get; None plans it for every release that they may have.

    Raises:
        DeployError: no pin, no room, no such source; nothing was touched.
    """

    def prepare() -> StageRun | None:
        fleet = inventory.of_run(state.inventory, group)
        settings = fleet.settings
        chosen, bundle = recipe.load(recipe_name).of_variant(settings.variant), bundles.directory_of(settings)
        options = bundles.weights(settings)
        if options.kind == "none":
            if required:
                raise Refusal(
                    "weights_source is none: nothing would be staged",
                    needed=f"where the weights of {settings.model or chosen.model} come from",
                    fix="set weights_source in group_data, or with --data: hub, modelscope, /a/directory on the hosts,"
                    " or control:/a/directory on this machine (docs/weights.md)",
                )
            return None
        listing = pins.read(chosen.pin, bundle, fleet.homes)
        model = settings.model or chosen.model
        if listing is None or listing.model != model:
            raise Refusal(
                f"there is no pin of {model} ({pins.path_of(chosen.pin)})",
                needed="its commit, and the SHA-256 of every file",
                fix=f"{chosen.pin_command}",
            )
        if settings.revision not in (None, listing.revision):
            pin = pins.path_in_use(chosen.pin, bundle, fleet.homes)
            raise Refusal(
                f"revision is {settings.revision}, but {pin} pins {listing.revision}",
                needed="one commit: what is served is the directory that was staged",
                fix=f"leave revision out, or {chosen.pin_command} --revision {settings.revision}",
            )
        return _run(state, fleet, listing, options, plans=lambda: [plan] if plan else [*plans_for(recipe_name, fleet)])

    return _runs.get(state, f"weights of {group} {recipe_name}", prepare)


def of_drafts(state: State, recipe_name: str, group: str = "") -> tuple[StageRun, ...]:
    """Return the runs that stage the draft models which are pinned beside a recipe; none where nothing is staged.

    Raises:
        DeployError: no room, or weights that come from a bundle; nothing was touched.
    """

    def prepare() -> tuple[StageRun, ...]:
        fleet = inventory.of_run(state.inventory, group)
        settings = fleet.settings
        name, options, bundle = recipe.load(recipe_name).name, settings.weights, bundles.directory_of(settings)
        if bundles.weights_of(settings) is None:
            bundle = None  # its engine alone comes from it
        if options.kind == "none" and bundle is None:
            return ()
        listings = pins.drafts(name, fleet.homes, bundle)
        return tuple(_run(state, fleet, listing, draft_source(options, listing, bundle)) for listing in listings)

    return _runs_of_drafts.get(state, f"drafts of {group} {recipe_name}", prepare)


def draft_source(options: Weights, listing: Listing, bundle: Path | None) -> Weights:
    """Return where a draft comes from: the model's source, where that is a directory the one beside it.

    Args:
        options: of the model's weights.
        listing: the draft's pin.
        bundle: that the model's weights come from; None where they come from elsewhere.

    Raises:
        Refusal: the bundle has weights, and none of the draft.
    """
    if bundle is not None:
        held = bundles.draft(bundle.resolve(), listing.model)
        if not held.is_dir():
            raise Refusal(
                f"{listing.model} is pinned as a draft, and the bundle {bundle} has the model's weights alone",
                needed=f"{held}",
                fix="make the bundle again with --weights, the draft in a directory beside the model's",
            )
        return options.model_copy(update={"source": f"control:{held}"})
    if options.kind not in ("directory", "control"):
        return options
    place = f"{Path(options.path).parent}/{bundles.model_directory(listing.model)}"
    return options.model_copy(update={"source": f"control:{place}" if options.kind == "control" else place})


def of_bundle(state: State, group: str = "") -> StageRun | None:
    """Return the run that brings the engine's bundle to the hosts; None where the settings name none.

    Raises:
        DeployError: it is not a bundle, or there is no room.
    """

    def prepare() -> StageRun | None:
        fleet = inventory.of_run(state.inventory, group)
        settings = fleet.settings
        bundle = bundles.directory_of(settings)
        if bundle is None:
            return None
        source = f"control:{bundle.resolve() / bundles.ENGINE}"
        options = settings.weights.model_copy(update={"source": source, "root": f"{settings.root}/{places.BUNDLES}"})
        return _run(state, fleet, bundles.read(bundle), options)

    return _runs.get(state, f"bundle {group}", prepare)


def _run(
    state: State,
    fleet: Fleet,
    listing: Listing,
    options: Weights,
    *,
    plans: Callable[[], Sequence[Plan]] | None = None,
) -> StageRun:
    """Probe every host at once, decide, and say what will happen.

    Args:
        plans: returns the plans of an engine that may read these files; None of files whose disk is not measured.
    """
    active = reached(state)
    addresses = {spec.name: spec.address for spec in fleet.hosts if spec.name in active}
    directory = revision_path(options.root, listing.model, listing.revision)
    probe = {"do": "probe", "directory": directory, "manifest": listing.digest}
    asked = [active[name] for name in addresses]
    probes = ask_all(state, asked, "weights_on_disk", probe, seconds=_PROBE_SECONDS)
    keys = pair_keys(list(addresses), os.urandom(32))
    source = source_of(fleet.settings, options)
    decided = staging(addresses, probes, listing, options, keys, source)
    logger.info(decided.text(listing))
    if plans is None:
        return StageRun(listing, options, decided)
    rates: dict[str, Rate | None] = {name: probes[name].get("rate") for name in addresses}
    readers = {spec.name: spec.gpus for spec in fleet.hosts if spec.name in active}
    planned, measures = plans(), dict[str, Mapping[str, Any]]()
    load, choice = (planned[0].load, planned[0].loaders) if planned else (None, None)
    if listing.weight_bytes >= read_rate.LEAST:
        lacking = [name for name in addresses if not kept_rate.is_fresh(rates[name], readers[name])]
        measures = {name: {**probe, "readers": readers[name]} for name in lacking}
    enough = listing.weight_bytes >= loaders.LEAST  # the pin's bytes: a shape may be of more than is staged
    requests = loader_requests.of(fleet, planned, probes, directory, listing.digest) if enough else {}
    kept = {name: probes[name].get("loaders") for name in addresses}
    if not measures and (line := loaders.cold_load_line(choice, load, rates, kept)):
        logger.info(line)
    return StageRun(listing, options, decided, measures, load, requests, choice)


def source_of(settings: Settings, options: Weights) -> dict[str, Any]:
    """Return the source for the seed, token included; it travels on standard input only.

    Raises:
        Refusal: the token's file cannot be read.
    """
    release = release_of(settings, ray=False)
    without_torch = release_of(settings.model_copy(update={"torch_backend": None}), ray=False)
    texts = {
        "hub": f"from {settings.hf_endpoint or 'the hub'}",
        "modelscope": "from ModelScope",
        "directory": f"from {options.path}",
        "control": "from the control machine",
    }
    return {
        "kind": options.kind,
        "from": texts[options.kind],
        "path": options.path,
        "endpoint": settings.hf_endpoint,
        "proxy": settings.proxy,
        "ssl_cert_file": settings.ssl_cert_file,
        "token": secret(_token(settings, options)),
        "program": programs.source("transfer_hub"),
        "pythons": [f"{release.path}/bin/python"],
        "venv": f"{settings.root}/{places.HUB}",
        "uv": uv_binary.path_on_hosts(settings.root),
        "install_args": list(without_torch.install_args),
        "install_env": dict(release.env),
    }


def _token(settings: Settings, options: Weights) -> str | None:
    if options.token_file is None or options.kind not in ("hub", "modelscope"):
        return None
    if settings.hf_endpoint:
        tokens.check_goes_to(settings.hf_endpoint, setting="hf_endpoint")
    return tokens.read(options.token_file, setting="weights_token_file")
