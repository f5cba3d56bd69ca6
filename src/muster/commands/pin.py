"""`muster pin`: the commit of a model to serve and the SHA-256 of its every file, written for review."""

from __future__ import annotations

from pathlib import Path

import click

from muster.errors import Refusal
from muster.on_host.in_words import size
from muster.on_host.transfer_store import is_commit
from muster.spec import pins, recipe
from muster.spec.listing import Listing
from muster.weights import hub, tokens


@click.command(
    epilog="""\b
Examples:
  muster pin kimi-k2-instruct
  muster pin kimi-k2-instruct --revision 9f2a… --endpoint https://hub.mirror.example
  muster pin kimi-k2-thinking --source modelscope --revision master
  muster pin kimi-k2-instruct --from /srv/models/kimi-k2-instruct
  muster pin kimi-k2-instruct --draft org/eagle-head
  muster pin kimi-k2-instruct --check
  muster pin deepseek-v4-pro --variant fp8
"""
)
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--revision", default=None, help="Branch, tag or commit; main (ModelScope: master) otherwise.")
@click.option("--source", type=click.Choice(["hub", "modelscope"]), default="hub", show_default=True)
@click.option("--from", "directory", type=click.Path(exists=True, file_okay=False), help="A directory instead.")
@click.option("--variant", default=None, help="One of the recipe's variants; its own otherwise.")
@click.option("--model", default=None, help="Another model than the recipe's.")
@click.option("--draft", default=None, metavar="MODEL", help="A draft model for RECIPE, beside the recipe's own pin.")
@click.option("--endpoint", default=None, help="A mirror of the hub.")
@click.option("--proxy", default=None, help="HTTP(S) proxy.")
@click.option("--token-file", type=click.Path(exists=True, dir_okay=False), help="File that holds the hub's token.")
@click.option("--check", is_flag=True, help="Write nothing; end with 1 when the revision has moved since.")
@click.pass_context
def pin(
    ctx: click.Context,
    recipe_name: str,
    revision: str | None,
    source: str,
    directory: str | None,
    variant: str | None,
    model: str | None,
    draft: str | None,
    endpoint: str | None,
    proxy: str | None,
    token_file: str | None,
    check: bool,
) -> None:
    """Resolve the model of RECIPE to a commit and write pins/<RECIPE>.json, which plans and staging read.

    The pin of a variant is called <RECIPE>-<VARIANT>.json. Model, code and tokenizer are files of one commit here: the
    pin holds the SHA-256 of each.
    """
    chosen = recipe.load(recipe_name).of_variant(variant)
    name = draft or model or chosen.model
    pinned = chosen.pin if draft is None else chosen.name  # the variants of a recipe share its drafts
    pins.path_of(pinned, draft)  # refused before anything is fetched
    token = tokens.read(token_file, setting="--token-file") if token_file else None
    if directory:
        if revision is not None and not is_commit(revision):
            raise Refusal(f"--revision {revision}", needed="40 hexadecimal digits, or none with --from")
        listing = hub.from_directory(name, Path(directory), revision)
    elif source == "hub":
        listing = hub.from_hub(name, revision or "main", endpoint=endpoint, token=token, proxy=proxy)
    else:
        listing = hub.from_modelscope(name, revision or "master", endpoint=endpoint, token=token, proxy=proxy)
    before = _readable_pin(pinned, draft)
    for line in differences(before, listing):
        click.echo(line)
    if check:
        ctx.exit(0 if before is not None and before.digest == listing.digest else 1)
    if before == listing:
        click.echo(f"{name} is pinned to {listing.revision}; nothing changed")
        return
    place = pins.write(pinned, listing, draft=draft is not None)
    click.echo(f"{name} pinned to {listing.revision}: {len(listing.files)} files, {size(listing.size)}, in {place}")


def _readable_pin(recipe_name: str, draft: str | None) -> Listing | None:
    """Return the pin that is there; one that cannot be read is said and replaced."""
    try:
        if draft is not None:
            return next((each for each in pins.drafts(recipe_name) if each.model == draft), None)
        return pins.read(recipe_name)
    except Refusal as refusal:
        click.echo(f"the pin that is there cannot be read: {refusal.found}", err=True)
        return None


def differences(before: Listing | None, now: Listing) -> list[str]:
    """Return the changes between two pins, in words."""
    if before is None:
        return []
    lines = []
    if (before.model, before.revision) != (now.model, now.revision):
        lines.append(f"was {before.model} at {before.revision}, now {now.model} at {now.revision}")
    old, new = ({entry.path: entry for entry in listing.files} for listing in (before, now))
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            lines.append(f"  gone    {path}")
        elif path not in old:
            lines.append(f"  new     {path}, {size(new[path].size)}")
        elif old[path] != new[path]:
            lines.append(f"  changed {path}")
    return lines
