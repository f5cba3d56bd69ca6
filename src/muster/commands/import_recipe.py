"""`muster import`: a recipe out of a directory with vLLM's own catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from muster.errors import Refusal, unknown
from muster.on_host import whole_files
from muster.spec import own_files, recipe, yaml_text
from muster.spec.vllm_catalogue import Importer


@click.command(
    "import",
    epilog="""\b
Examples:
  muster import moonshotai/Kimi-K2.6 --catalogue ../recipes
  muster import Qwen/Qwen3-235B-A22B-Instruct-2507 --variant fp8 --catalogue ../recipes
  muster import google/gemma-4-26B-A4B-it --catalogue ../recipes --files ../vllm-0.33.0
""",
)
@click.argument("model", metavar="ORG/MODEL")
@click.option("--variant", default="default", show_default=True, help="The one that is taken without the setting.")
@click.option(
    "--catalogue", required=True, type=click.Path(exists=True, file_okay=False), help="Directory that holds models/."
)
@click.option(
    "--files",
    type=click.Path(exists=True, file_okay=False),
    help="Directory with the chat templates and plugins that the commands name: vLLM's source at the engine's tag.",
)
@click.option("--output", type=click.Path(dir_okay=False), help="The file to write; NAME.yaml here otherwise.")
def import_recipe(model: str, variant: str, catalogue: str, files: str | None, output: str | None) -> None:
    """Write one recipe file from ORG/MODEL of a catalogue, with its variants, source and hash.

    What cannot be carried over is refused by name; what is served otherwise than there is printed. Look at the plan,
    pin the model (`muster pin`), and deploy as with any other recipe.
    """
    raw, differences = imported(Path(catalogue), model, variant, Path(files) if files else None)
    place = Path(output or f"{raw['name']}.yaml")
    if place.exists():
        raise Refusal(f"{place} exists", needed="a new file", fix="name another with --output, or remove it")
    whole_files.write_whole(str(place), as_text(raw).encode())
    recipe.load(str(place.resolve()))
    click.echo(f"{model}: variants {', '.join(raw['variants'])}, strategies {', '.join(raw['strategies'])}, in {place}")
    for line in differences:
        click.echo(f"  {line}")


def as_text(raw: dict[str, Any]) -> str:
    """Return the text of an imported recipe's file."""
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return f"# By `muster import` from vLLM's recipe catalogue: source says which file, and its hash.\n{text}"


def imported(catalogue: Path, model: str, variant: str, files: Path | None = None) -> tuple[dict[str, Any], list[str]]:
    """Return a recipe as data, as its file will hold it, and in words what it does otherwise than the catalogue.

    Args:
        catalogue: directory that holds `models/`.
        model: as the catalogue names its file: `org/model`.
        variant: the one that is taken where nobody names another.
        files: directory with the files that the catalogue's commands name; None leaves out what needs one.

    Raises:
        Refusal: no such model or variant, text that a recipe may not hold, or what cannot be carried over.
    """
    names = [f"{path.parent.name}/{path.stem}" for path in sorted(catalogue.glob("models/*/*.yaml"))]
    if model not in names:
        raise unknown("model", model, names, where=str(catalogue))
    path = catalogue / "models" / f"{model}.yaml"
    brought = own_files.below(files) if files else {}
    importer = Importer(yaml_text.read(path, what="catalogue's", texts=True), f"models/{model}.yaml", brought)
    raw = importer.recipe({"path": f"models/{model}.yaml", "sha256": whole_files.sha256(str(path))}, variant)
    recipe.parse(raw, where=f"models/{model}.yaml")
    return raw, list(dict.fromkeys(importer.differences))
