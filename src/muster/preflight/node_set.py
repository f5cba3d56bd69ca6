"""Many hosts in few words: `h200-[00-61], h200-63`."""

from __future__ import annotations

import re
from collections.abc import Iterable


def node_set(names: Iterable[str]) -> str:
    """Return host names in natural order, runs of numbers as ranges.

    Three or more in a row become a range; names without a number stay as they are.
    """
    split: dict[tuple[str, str, int], list[int]] = {}
    plain: list[str] = []
    for name in names:
        match = re.fullmatch(r"(.*?)(\d{1,9})(\D*)", name)
        if match:
            head, digits, tail = match.groups()
            # Zero-padded names form ranges only with names of the same width.
            width = len(digits) if digits.startswith("0") and len(digits) > 1 else 0
            split.setdefault((head, tail, width), []).append(int(digits))
        else:
            plain.append(name)
    for (head, tail, width), numbers in _joined(split).items():
        for first, last in _runs(sorted(numbers)):
            texts = [str(number).zfill(width) for number in (first, last)]
            if last - first >= 2:
                plain.append(f"{head}[{texts[0]}-{texts[1]}]{tail}")
            else:
                plain += [f"{head}{text}{tail}" for text in dict.fromkeys(texts)]
    return ", ".join(plain)


def _joined(split: dict[tuple[str, str, int], list[int]]) -> dict[tuple[str, str, int], list[int]]:
    """Put `09` and `10` together: a number as wide as the padded ones belongs to them."""
    for (head, tail, width), numbers in list(split.items()):
        if width:
            loose = split.get((head, tail, 0), [])
            fitting = [number for number in loose if len(str(number)) == width]
            numbers += fitting
            split[head, tail, 0] = [number for number in loose if number not in fitting]
    return {key: numbers for key, numbers in split.items() if numbers}


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
