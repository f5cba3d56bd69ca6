"""What muster makes of vLLM's own catalogue: every model, variant, strategy, GPU product and number of hosts.

    .venv/bin/python benchmarks/catalogue.py DIRECTORY > verdicts.tsv

One line a cell: served, served with a difference (which), or refused (why); the sums go to standard error. Memory is
not judged: the catalogue has no config.json, and of an unknown model nothing is refused for it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from muster.commands.import_recipe import imported
from muster.errors import Refusal
from muster.plan.make import build_plan
from muster.spec import recipe, yaml_text
from muster.spec.host import HostSpec
from muster.spec.settings import Settings

PRODUCTS = ("H100", "H200", "H800", "H20")
HOSTS = (1, 2, 4)


def cells(catalogue: Path) -> Iterator[tuple[str, str, str]]:
    """Yield each cell with its verdict and, where it is not plainly served, the words."""
    for path in sorted(catalogue.glob("models/*/*.yaml")):
        model = f"{path.parent.name}/{path.stem}"
        raw = yaml_text.read(path, what="catalogue's", texts=True)
        for variant in raw["variants"]:
            try:
                made, differences = imported(catalogue, model, variant)
            except Refusal as refusal:
                verdict = "not for Hopper" if "Hopper" in f"{refusal.found} {refusal.needed}" else "refused"
                for strategy in raw["compatible_strategies"]:
                    yield from ((f"{model} {variant} {each}", verdict, _line(refusal)) for each in _sizes(strategy))
                continue
            parsed = recipe.parse(made, where=model)
            for strategy in raw["compatible_strategies"]:
                yield from _planned(parsed, f"{model} {variant}", strategy, differences)


def _planned(parsed: recipe.Recipe, name: str, strategy: str, differences: list[str]) -> Iterator[tuple[str, str, str]]:
    own = [line for line in differences if not line.startswith("strategy ")]
    for product in PRODUCTS:
        for count in HOSTS:
            cell = f"{name} {strategy} {product} x{count}"
            if (count == 1) != strategy.startswith("single_node"):
                continue
            if strategy not in parsed.strategies:
                left = next(line for line in differences if line.startswith(f"strategy {strategy} "))
                yield cell, "not for Hopper" if "Hopper" in left else "refused", left
                continue
            hosts = [HostSpec(f"h{n}", f"198.51.100.{n + 1}", "eth1", product, 8) for n in range(count)]
            try:
                build_plan(parsed, hosts, Settings(strategy=strategy, allow_unpinned_code=True))
            except Refusal as refusal:
                yield cell, "refused", _line(refusal)
            else:
                yield cell, "served with a difference" if own else "served", "; ".join(own)


def _sizes(strategy: str) -> list[str]:
    single = strategy.startswith("single_node")
    return [f"{strategy} {product} x{count}" for product in PRODUCTS for count in HOSTS if (count == 1) == single]


def _line(refusal: Refusal) -> str:
    return refusal.found.rpartition("variant ")[2].partition(": ")[2] or refusal.found


def main() -> None:
    """Print every cell, and the sums."""
    verdicts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for cell, verdict, words in cells(Path(sys.argv[1])):
        print(f"{cell}\t{verdict}\t{words}")
        verdicts[verdict] += 1
        if verdict == "refused":
            reasons[words.partition(": ")[0]] += 1
    total = sum(verdicts.values())
    for verdict, count in verdicts.most_common():
        print(f"{verdict:<26} {count:>6} {count / total:>6.1%}", file=sys.stderr)
    for words, count in reasons.most_common(25):
        print(f"  {count:>6} {words[:100]}", file=sys.stderr)


if __name__ == "__main__":
    main()
