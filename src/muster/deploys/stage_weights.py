"""Stage weights, or a bundle: every host gets all of it, verified; the running group is not touched.

All hosts are probed at once. When all are complete, nothing else happens: a second run costs one remote command per
host, with any number of files.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from pyinfra.api.command import FunctionCommand, PyinfraCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.errors import Refusal
from muster.hosts import programs
from muster.hosts.once import OncePerRun
from muster.hosts.program_operation import Session
from muster.hosts.pyinfra_types import current_host, current_state, operation, stage
from muster.hosts.run_words import words
from muster.hosts.say import say
from muster.on_host.in_words import size
from muster.plan import cold_load
from muster.plan.cold_load import ColdLoad
from muster.plan.loaders import Choice
from muster.plan.types import Plan
from muster.spec import inventory
from muster.spec.listing import Listing
from muster.weights import staging_run as runs
from muster.weights import upload


@stage("Weights")
def stage_weights(recipe_name: str, group: str = "", *, changes: bool = True, plan: Plan | None = None) -> None:
    """Bring the pinned revisions of a recipe's model and of its draft models to every host of the inventory.

    Args:
        recipe_name: name of the recipe.
        group: of the inventory, where that has several.
        changes: whether the run changes something anyhow: then a disk without a fresh measurement is measured too.
        plan: of the group.

    Raises:
        DeployError: no pin, no room, no such source; nothing was touched.
    """
    run = runs.of_weights(current_state(), recipe_name, group, plan=plan)
    if run is not None:
        _bring(run, current_host().name)
        if changes or run.staging.requests:
            _measure(run, current_host().name)
    for draft in runs.of_drafts(current_state(), recipe_name, group):
        _bring(draft, current_host().name)


@stage("Weights")
def stage_only(recipe_name: str | None) -> None:
    """Bring the weights in a run that does nothing else; settings without a source are refused.

    Args:
        recipe_name: name of the recipe; None takes that of the group, where its data name one.

    Raises:
        DeployError: no recipe, no source, no pin, no room; nothing was touched.
    """
    state = current_state()
    recipe, group = _staged.get(state, "", lambda: _meant(state, recipe_name))
    run = runs.of_weights(state, recipe, group, required=True)
    if run is not None:
        if not words.outcomes:
            words.done(_outcome(run))
        _bring(run, current_host().name)
        _measure(run, current_host().name)
        for draft in runs.of_drafts(state, recipe, group):
            _bring(draft, current_host().name)


_staged: OncePerRun[tuple[str, str]] = OncePerRun()


def _meant(state: State, recipe_name: str | None) -> tuple[str, str]:
    """Return the recipe and the group of the inventory whose weights are meant.

    Raises:
        Refusal: as `inventory.scope_of`; no recipe.
    """
    scope = inventory.scope_of(state.inventory, recipe_name)
    recipe = recipe_name or inventory.of_run(state.inventory, scope.group).settings.recipe
    if not recipe:
        fix = "add --data _recipe=NAME, or muster stage INVENTORY NAME"
        raise Refusal("no recipe is named", fix=fix)
    return recipe, scope.group


def _outcome(run: runs.StageRun) -> str:
    listing, hosts = run.listing, len(run.staging.requests) or len(run.staging.complete)
    what = f"{listing.model} at {listing.revision[:12]}, {size(listing.size)}"
    return f"{what}: complete and verified on {hosts} host{'s' * (hosts > 1)}"


@stage("Bundle")
def stage_bundle(group: str = "") -> None:
    """Bring the engine's bundle, where the settings name one, to every host, before the engine is installed from it.

    Args:
        group: of the inventory, where that has several.

    Raises:
        DeployError: it is not a bundle, or there is no room; nothing was touched.
    """
    run = runs.of_bundle(current_state(), group)
    if run is not None:
        _bring(run, current_host().name)


def _bring(run: runs.StageRun, host: str) -> None:
    what = f"{run.listing.model} at {run.listing.revision[:12]}"
    weights_sent(
        run.listing if run.options.kind == "control" and host == run.staging.seed else None,
        run.staging.directory,
        run.options.path,
        name=f"the seed has all of {what} from the control machine",
    )
    weights_complete(run.staging.requests.get(host), name=f"{what} is complete and verified")
    weights_linked(
        run.staging.directory if host in run.staging.links else None,
        run.listing.digest,
        name=f"'current' points to {what}",
    )


def _measure(run: runs.StageRun, host: str) -> None:
    if run.measures:
        weights_measured(run.measures.get(host), run.load, name="how fast this host reads its weights is known")
    if run.loaders:
        loaders_measured(run.loaders.get(host), run.choice, name="how fast each loader loads its weights is known")


@operation
def weights_measured(request: programs.Request | None, load: ColdLoad | None) -> Iterator[PyinfraCommand]:
    """How fast this host reads its weights was measured lately; a disk that cannot be measured fails nothing.

    Args:
        request: of `muster.on_host.read_rate`, or None where it was.
        load: what the host reads when the engine starts; None where that is not known.
    """

    def answered(_: State, host: Host, answer: programs.Answer) -> None:
        rate = answer["rate"]
        say(host, cold_load.measured(load, rate) if rate else f"the disk was not measured: {answer['why']}")

    if request is not None:
        yield Session("read_rate", request, f"measure how fast {request['directory']} is read", answered)


@operation
def loaders_measured(request: programs.Request | None, choice: Choice | None) -> Iterator[PyinfraCommand]:
    """How fast each of vLLM's loaders gets the weights onto this host's GPUs was measured lately, where they are idle.

    Args:
        request: of `muster.on_host.loader_rates`, or None where it was.
        choice: what it is measured for.
    """

    def answered(_: State, host: Host, answer: programs.Answer) -> None:
        if answer["loaders"] is None:
            say(host, f"the loaders were not measured: {answer['why']}")
        elif choice is not None:
            say(host, choice.line(answer["loaders"]))
        for name, why in answer["failed"].items():
            say(host, f"{name} is not taken: {why}")

    if request is not None:
        directory = request["directory"]
        yield Session("loader_rates", request, f"measure how fast each loader loads {directory}", answered)


@operation
def weights_sent(listing: Listing | None, directory: str, origin: str) -> Iterator[PyinfraCommand]:
    """The seed has every byte of a directory on the control machine, not verified yet.

    Args:
        listing: of the revision; None on every host but the seed.
        directory: of the revision, on the seed.
        origin: directory on the control machine.
    """
    if listing is not None:
        yield FunctionCommand(upload.send, [listing, directory, origin], {})


@operation
def weights_complete(request: programs.Request | None) -> Iterator[PyinfraCommand]:
    """The revision is complete on this host, and no peer still needs this host.

    Args:
        request: of `muster.on_host.transfer_stage`, or None when every host is complete.
    """
    if request is not None:
        yield Session("transfer_stage", request, f"bring {request['directory']}", streams=True)


@operation
def weights_linked(directory: str | None, digest: str) -> Iterator[PyinfraCommand]:
    """`current`, beside the revisions, points to this one.

    Args:
        directory: of the revision, or None where it already does.
        digest: of the pinned files.
    """
    if directory is not None:
        request = {"do": "link", "directory": directory, "manifest": digest}
        yield Session("weights_on_disk", request, f"point current to {shlex.quote(directory)}")
