"""What muster makes of vLLM's own catalogue: every model, variant, strategy, GPU product and number of hosts.

    .venv/bin/python benchmarks/catalogue.py [--files] [DIRECTORY] > verdicts.tsv

One line for each cell: exact, served with a difference (which), refused (why), or not offered there (why). Exact means
that every host's command and variables are those that the catalogue's YAML comes to by its own rules, which
tests/catalogue/expected.py follows without the importer and the planner. The sums go to standard error. Without a
directory the facts in tests/catalogue are taken; with --files chat templates and parser plugins count as at hand.
Memory is not judged: the catalogue has no config.json.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.catalogue import facts
from tests.catalogue.verdict import NOT_OFFERED, verdicts


def main() -> None:
    """Print every cell, and the sums."""
    words = [word for word in sys.argv[1:] if word != "--files"]
    directory, files = Path(words[0]) if words else None, "--files" in sys.argv
    sums: dict[str, Counter[str]] = {"every cell": Counter(), "H100 and H200, one and two hosts": Counter()}
    reasons: Counter[tuple[str, str]] = Counter()
    for name, raw in facts.models(directory):
        for each in verdicts(name, raw, files=files):
            cell = each.cell
            place = f"{name} {cell.variant} {cell.strategy} {cell.product} x{cell.hosts}"
            print(place, each.verdict, "; ".join(each.reasons), sep="\t")
            few = cell.product in ("H100", "H200") and cell.hosts <= 2
            for sum_ in list(sums.values())[: 1 + few]:
                sum_[each.verdict] += 1
            reasons.update((each.verdict, reason) for reason in each.reasons)
    for title, verdicts_ in sums.items():
        offered = sum(count for kind, count in verdicts_.items() if kind != NOT_OFFERED)
        print(f"{title}: {offered} offered", file=sys.stderr)
        for kind, count in verdicts_.most_common():
            share = "" if kind == NOT_OFFERED else f"{count / offered:.1%}"
            print(f"  {kind:<26} {count:>6} {share:>6}", file=sys.stderr)
    for (kind, reason), count in reasons.most_common():
        print(f"{count:>6} {kind}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
