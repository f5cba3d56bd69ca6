"""Scenarios: the recipe's named benchmark data, and the `vllm bench serve` command of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muster.errors import Refusal, unknown
from muster.plan.vllm_flags import spell
from muster.spec.recipe import FlagValue, Recipe

# What a scenario may set: the load. Addresses, names and files are the runner's.
LOAD_FLAGS = frozenset(
    {
        "dataset-name",
        "dataset-path",
        "random-input-len",
        "random-output-len",
        "random-range-ratio",
        "random-prefix-len",
        "sharegpt-output-len",
        "custom-output-len",
        "request-rate",
        "burstiness",
        "max-concurrency",
        "num-prompts",
        "num-warmups",
        "ignore-eos",
        "seed",
        "temperature",
        "top-p",
        "top-k",
    }
)
METRICS = ("ttft", "tpot", "itl", "e2el")
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Scenario:
    """One named load.

    Args:
        name: as the recipe calls it.
        about: the hardware it was published for, in words.
        flags: full flag names of `vllm bench serve`, without dashes.
        sweep: numbers of prompts to step through, smallest first; empty when there is no sweep.
    """

    name: str
    about: str
    flags: Mapping[str, FlagValue] = field(default_factory=dict)
    sweep: tuple[int, ...] = ()

    def prompts(self, *, sweep: bool) -> tuple[int, ...]:
        """Return the numbers of prompts to run: the sweep's steps, or the one of the scenario.

        Raises:
            Refusal: a sweep asked of a scenario that has none.
        """
        if not sweep:
            return (int(self.flags["num-prompts"]),)
        if not self.sweep:
            raise Refusal(
                f"scenario {self.name} has no sweep",
                needed="a list of prompt counts",
                fix=f"run it without --sweep, or give 'sweep' under bench.{self.name} in the recipe",
            )
        return self.sweep


def scenarios(recipe: Recipe) -> dict[str, Scenario]:
    """Return the recipe's scenarios by name.

    Raises:
        Refusal: an unknown key (the nearest is suggested), no number of prompts, a sweep that is no list of counts.
    """
    return {name: _scenario(recipe.name, name, told) for name, told in recipe.bench.items()}


def pick(recipe: Recipe, names: Sequence[str], *, gpu: str = "") -> list[Scenario]:
    """Return the scenarios asked for; without names the one of the hosts' GPUs, else the first.

    Args:
        recipe: whose scenarios.
        names: as typed.
        gpu: hardware profile of the hosts, `H200`.

    Raises:
        Refusal: an unknown name, or a recipe without scenarios.
    """
    known = scenarios(recipe)
    if not known:
        raise Refusal(
            f"recipe {recipe.name} has no benchmark scenarios", needed="an entry under 'bench'", fix="add one to it"
        )
    if not names:
        return [known.get(gpu.lower()) or next(iter(known.values()))]
    for name in names:
        if name not in known:
            raise unknown("scenario", name, known, where=f"recipe {recipe.name}")
    return [known[name] for name in names]


def _scenario(recipe: str, name: str, told: Mapping[str, Any]) -> Scenario:
    where = f"recipe {recipe}: bench.{name}"
    flags = {key: value for key, value in told.items() if key not in ("about", "sweep")}
    for key, value in flags.items():
        if key not in LOAD_FLAGS:
            raise unknown("benchmark key", key, {*LOAD_FLAGS, "about", "sweep"}, where=where)
        if not isinstance(value, bool | int | float | str):
            raise Refusal(f"{where}: {key} is {value!r}", needed="a number, a text, true or false")
    sweep = told.get("sweep", ())
    counts = [flags.get("num-prompts"), *sweep] if isinstance(sweep, list | tuple) else [None]
    if any(not isinstance(count, int) or isinstance(count, bool) or count < 1 for count in counts):
        raise Refusal(
            f"{where}: num-prompts is {flags.get('num-prompts')!r}, sweep is {sweep!r}",
            needed="num-prompts, a number of requests of at least 1, and a list of such numbers as sweep",
            fix="correct the recipe",
        )
    return Scenario(name, str(told.get("about", "")), flags, tuple(sorted(set(sweep))))


def argv(
    scenario: Scenario,
    *,
    prompts: int,
    base_url: str,
    model: str,
    served_model_name: str,
    result_dir: str,
    result_filename: str,
    trust_remote_code: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the `vllm bench serve` command of one run, flags in full.

    Args:
        scenario: the load.
        prompts: number of requests; a sweep replaces the scenario's own.
        base_url: of the endpoint, as the host that runs the tool reaches it.
        model: id or directory, from which the tool takes the tokenizer.
        served_model_name: name in the API.
        result_dir, result_filename: where the tool writes its JSON.
        trust_remote_code: whether the tokenizer may run the model's own code.
        metadata: names and values the tool copies into its JSON.
    """
    load = {**scenario.flags, "num-prompts": prompts}
    words = ["vllm", "bench", "serve", "--base-url", base_url, "--model", model]
    words += ["--served-model-name", served_model_name]
    words += spell(load)
    if trust_remote_code:
        words.append("--trust-remote-code")
    words += ["--percentile-metrics", ",".join(METRICS), "--metric-percentiles", ",".join(map(str, PERCENTILES))]
    words += ["--disable-tqdm", "--save-result", "--result-dir", result_dir, "--result-filename", result_filename]
    if metadata:
        words += ["--metadata", *(f"{key}={value}" for key, value in metadata.items())]
    return words
