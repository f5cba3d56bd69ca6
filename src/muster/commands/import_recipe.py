"""`muster import`: a recipe out of vLLM's own catalogue, in a directory or in git."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from muster.commands import git_files
from muster.commands.git_files import Fetched
from muster.errors import Refusal, unknown
from muster.on_host import whole_files
from muster.spec import catalogue_text, git_source, own_files, recipe, recipe_changes, yaml_text
from muster.spec.git_source import GitSource
from muster.spec.vllm_catalogue import Importer


class Tree(click.ParamType[Fetched]):
    """A directory, or `git URL@COMMIT`, which is fetched."""

    name = "DIR|git URL@COMMIT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fetched:
        """Return where the files are."""
        if str(value).startswith(git_source.WORD):
            return git_files.fetched(git_source.parse(value))
        if not Path(value).is_dir():
            self.fail(f"{value!r} is no directory; files in git are written 'git URL@COMMIT'", param, ctx)
        return Fetched(Path(value))


@click.command(
    "import",
    epilog="""\b
Examples:
  muster import moonshotai/Kimi-K2.6 --catalogue "git https://github.com/vllm-project/recipes@main"
  muster import Qwen/Qwen3-235B-A22B-Instruct-2507 --variant fp8 --catalogue ../recipes
  muster import google/gemma-4-26B-A4B-it --catalogue ../recipes \\
      --files "git https://github.com/vllm-project/vllm@v0.33.0"
  muster import --check
  muster import --check my-recipe.yaml --catalogue ../recipes
""",
)
@click.argument("model", metavar="ORG/MODEL", required=False)
@click.option("--variant", default="default", show_default=True, help="The one that is taken without the setting.")
@click.option(
    "--catalogue",
    type=Tree(),
    help="Where models/ is. With --check the newest commit of each recipe's own repository, where it has one.",
)
@click.option(
    "--files",
    type=Tree(),
    help="The chat templates and plugins that the commands name: vLLM's source at the engine's tag.",
)
@click.option("--output", type=click.Path(dir_okay=False), help="The file to write; NAME.yaml here otherwise.")
@click.option("--check", is_flag=True, help="Write nothing: what moved since RECIPE, or every imported one, was made.")
@click.pass_context
def import_recipe(
    ctx: click.Context,
    model: str | None,
    variant: str,
    catalogue: Fetched | None,
    files: Fetched | None,
    output: str | None,
    check: bool,
) -> None:
    """Write one recipe file from ORG/MODEL of a catalogue, with its variants, source and hash.

    What cannot be carried over is refused by name; what is served otherwise than there is printed. Look at the plan,
    pin the model (`muster pin`), and deploy as with any other recipe. --check takes recipes instead, and ends with 1
    where the catalogue's file is another now.
    """
    if check:
        ctx.exit(1 if _moved(catalogue, [model] if model else _imported_ones(), files) else 0)
    if model is None:
        raise Refusal("no model", needed="ORG/MODEL of the catalogue", fix="name one, or give --check")
    if catalogue is None:
        raise Refusal("no catalogue", needed="a directory or 'git URL@COMMIT'", fix="give --catalogue")
    raw, differences = imported(catalogue, model, variant, files)
    place = Path(output or f"{raw['name']}.yaml")
    if place.exists():
        raise Refusal(f"{place} exists", needed="a new file", fix="name another with --output, or remove it")
    whole_files.write_whole(str(place), as_text(raw).encode())
    recipe.load(str(place.resolve()))
    click.echo(f"{model}: variants {', '.join(raw['variants'])}, strategies {', '.join(raw['strategies'])}, in {place}")
    for line in (*differences, catalogue_text.silence()):
        click.echo(f"  {line}")


def _imported_ones() -> list[str]:
    return [name for name in recipe.names() if recipe.load(name).source is not None]


def _moved(given: Fetched | None, names: list[str], files: Fetched | None) -> bool:
    """Print for each recipe what its file in the catalogue says otherwise now; return whether any is another."""
    newest: dict[str, Fetched] = {}
    moved = False
    for name in names:
        old = recipe.load(name)
        if old.source is None:
            raise Refusal(f"{name} has no source", needed="a recipe that was imported", fix="name another")
        catalogue = given or _newest(name, old.source, newest)
        model = old.source.path.removeprefix("models/").removesuffix(".yaml")
        if model not in models_of(catalogue.directory):
            click.echo(f"{name}: {old.source.path} is gone")
            moved = True
            continue
        if whole_files.sha256(str(catalogue.directory / "models" / f"{model}.yaml")) == old.source.sha256:
            click.echo(f"{name}: unchanged")
            continue
        moved = True
        try:
            new = recipe.parse(imported(catalogue, model, old.source.variant, files)[0], where=old.source.path)
        except Refusal as refusal:
            click.echo(f"{name}: {refusal}")
            continue
        lines = list(recipe_changes.lines(old, new))
        click.echo(f"{name}: the catalogue's file is another" + ("" if lines else "; the recipe would be the same"))
        for line in lines:
            click.echo(f"  {line}")
    return moved


def _newest(name: str, source: recipe.Source, known: dict[str, Fetched]) -> Fetched:
    """Return the newest commit of the repository that a recipe is from, fetched once for all of its recipes."""
    if source.repository is None:
        raise Refusal(f"{name} was imported from a directory", needed="a catalogue to compare", fix="give --catalogue")
    if source.repository not in known:
        known[source.repository] = git_files.fetched(GitSource(source.repository, "HEAD"))
        click.echo(f"{source.repository} is at {known[source.repository].commit}")
    return known[source.repository]


def models_of(catalogue: Path) -> list[str]:
    """Return the models of a catalogue, as `org/model`."""
    return [f"{path.parent.name}/{path.stem}" for path in sorted(catalogue.glob("models/*/*.yaml"))]


def as_text(raw: dict[str, Any]) -> str:
    """Return the text of an imported recipe's file."""
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return (
        "# By `muster import` from vLLM's recipe catalogue: source says which file, and its hash.\n"
        f"# {catalogue_text.silence()}.\n{text}"
    )


def imported(
    catalogue: Fetched, model: str, variant: str, files: Fetched | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return a recipe as data, as its file will hold it, and in words what it does otherwise than the catalogue.

    Args:
        catalogue: that holds `models/`.
        model: as the catalogue names its file: `org/model`.
        variant: the one that is taken where nobody names another.
        files: that the catalogue's commands name; None leaves out what needs one.

    Raises:
        Refusal: no such model or variant, text that a recipe may not hold, or what cannot be carried over.
    """
    names = models_of(catalogue.directory)
    if model not in names:
        raise unknown("model", model, names, where=str(catalogue.directory))
    where = f"models/{model}.yaml"
    path = catalogue.directory / where
    brought = own_files.below(files.directory) if files else {}
    importer = Importer(yaml_text.read(path, what="catalogue's", texts=True), where, brought)
    raw = importer.recipe({**catalogue.origin, "path": where, "sha256": whole_files.sha256(str(path))}, variant)
    if files and files.repository:
        for file in raw.get("files", {}).values():
            file["source"] += f" of {files.repository} at {files.commit}"
    recipe.parse(raw, where=where)
    return raw, list(dict.fromkeys(importer.differences))
