"""`muster recipe new`: a recipe out of a model's own config.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from muster.errors import Refusal
from muster.on_host import whole_files
from muster.spec import recipe as recipes
from muster.spec.listing import CONFIG_LIMIT
from muster.spec.model_recipe import recipe_of
from muster.spec.recipe import Recipe
from muster.weights import hub, tokens


@click.group()
def recipe() -> None:
    """Make recipes."""


@recipe.command(
    epilog="""\b
Examples:
  muster recipe new Qwen/Qwen3-32B
  muster recipe new my-org/my-model --config /srv/models/my-model/config.json --output my-model.yaml
"""
)
@click.argument("model", metavar="ORG/MODEL")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Its config.json; the hub's otherwise.")
@click.option("--endpoint", default=None, help="A mirror of the hub.")
@click.option("--proxy", default=None, help="HTTP(S) proxy.")
@click.option("--token-file", type=click.Path(exists=True, dir_okay=False), help="File that holds the hub's token.")
@click.option("--output", type=click.Path(dir_okay=False), help="The file to write; NAME.yaml here otherwise.")
def new(
    model: str, config: str | None, endpoint: str | None, proxy: str | None, token_file: str | None, output: str | None
) -> None:
    """Write a recipe for ORG/MODEL from its config.json: architecture, layers, context, bits.

    What config.json does not say is left out and printed: parsers of tool calls, flags that the model's authors advise.
    """
    read = read_config(config) if config else _from_hub(model, endpoint=endpoint, proxy=proxy, token_file=token_file)
    raw, notes = recipe_of(model, read)
    recipes.parse(raw, where=model)
    place = Path(output or f"{raw['name']}.yaml")
    if place.exists():
        raise Refusal(f"{place} exists", needed="a new file", fix="name another with --output, or remove it")
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    head = "".join(f"# {line}\n" for line in notes)
    whole_files.write_whole(
        str(place), f"# By `muster recipe new` from the model's config.json.\n{head}{text}".encode()
    )
    recipes.load(str(place.resolve()))
    click.echo(f"{model}: strategies {', '.join(raw['strategies'])}, in {place}")
    for line in notes:
        click.echo(f"  {line}")


def is_model(name: str) -> bool:
    """Whether a word names a model at the hub, rather than a recipe or its file."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.endswith((".yaml", ".yml"))


def of_model(model: str, config: str | None, **hub_options: str | None) -> tuple[Recipe, list[str]]:
    """Return a recipe for a model without a file, and what its config.json does not say.

    Args:
        model: id at the hub.
        config: path of its config.json; None asks the hub.
        hub_options: endpoint, proxy, token_file.

    Raises:
        Refusal: no such file or model, or one of which no recipe can be made.
    """
    raw, notes = recipe_of(model, read_config(config) if config else _from_hub(model, **hub_options))
    return recipes.parse(raw, where=model), notes


def read_config(path: str) -> Mapping[str, Any]:
    """Return what a config.json holds.

    Raises:
        Refusal: it is too large, or no mapping.
    """
    body = b""
    try:
        with open(path, "rb") as file:
            body = file.read(CONFIG_LIMIT + 1)
        config = json.loads(body) if len(body) <= CONFIG_LIMIT else None
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror}", fix="name a config.json") from None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise Refusal(f"{path} is no config.json", needed=f"a JSON object of at most {CONFIG_LIMIT:,} bytes")
    return config


def _from_hub(
    model: str, *, endpoint: str | None = None, proxy: str | None = None, token_file: str | None = None
) -> Mapping[str, Any]:
    token = tokens.read(token_file, setting="--token-file") if token_file else None
    return hub.config_of(model, endpoint=endpoint, token=token, proxy=proxy)
