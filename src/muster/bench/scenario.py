"""The recipe's benchmark scenarios, and the `vllm bench serve` command of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muster.bench.figures import LATENCIES, PERCENTILES
from muster.errors import Refusal, unknown
from muster.plan.command_lines import spell
from muster.spec.recipe import Recipe
from muster.spec.strategy import FlagValue

# A scenario sets the load and nothing else: addresses, names and files are the runner's.
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


# The tool's own lengths of prompt and answer.
_RANDOM = {"random-input-len": 1024, "random-output-len": 128}


@dataclass(frozen=True)
class Scenario:
    """One named load.

    Args:
        name: in the recipe.
        about: the hardware it was published for, in words.
        flags: flags of `vllm bench serve` by full name, without dashes.
        sweep: numbers of prompts to step through, smallest first; empty without a sweep.
    """

    name: str
    about: str
    flags: Mapping[str, FlagValue] = field(default_factory=dict)
    sweep: tuple[int, ...] = ()

    def prompts(self, *, sweep: bool) -> tuple[int, ...]:
        """Return the numbers of prompts to run: the sweep's steps, or the scenario's own number.

        Raises:
            Refusal: a sweep was requested of a scenario without one.
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


def longest(scenario: Scenario) -> int:
    """Return the tokens of a scenario's longest request, prompt and answer; of a data set only the answer is known."""
    flags = scenario.flags
    lengths = [float(flags.get(key, default)) for key, default in _RANDOM.items()]
    spread = 1 + float(flags.get("random-range-ratio", 0))
    if flags.get("dataset-name", "random") == "random":
        return int(float(flags.get("random-prefix-len", 0)) + sum(int(length * spread) for length in lengths))
    return max(int(flags.get(key, 0)) for key in ("sharegpt-output-len", "custom-output-len"))


def require_served(scenarios: Sequence[Scenario], served: int | None) -> None:
    """Refuse scenarios whose requests are longer than what is served; each of them would fail.

    Args:
        scenarios: to run.
        served: tokens of the longest request that is served; None when not known.

    Raises:
        Refusal: naming the scenario and both lengths.
    """
    for scenario in scenarios:
        length = longest(scenario)
        if served is not None and length > served:
            raise Refusal(
                f"scenario {scenario.name} has requests of {length:,} tokens, and {served:,} are served",
                needed="a served length that holds prompt and answer",
                fix=f"deploy with max_model_len={length} or more, or take another scenario with --scenario",
            )


def scenarios(recipe: Recipe) -> dict[str, Scenario]:
    """Return the recipe's scenarios by name.

    Raises:
        Refusal: an unknown key (the nearest is suggested), no number of prompts, a sweep that is no list of counts.
    """
    return {name: _scenario(recipe.name, name, keys) for name, keys in recipe.bench.items()}


def pick(recipe: Recipe, names: Sequence[str], *, gpu: str = "") -> list[Scenario]:
    """Return the named scenarios; without names, the one for the hosts' GPUs, or else the first.

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


def _scenario(recipe: str, name: str, keys: Mapping[str, Any]) -> Scenario:
    where = f"recipe {recipe}: bench.{name}"
    flags = {key: value for key, value in keys.items() if key not in ("about", "sweep")}
    for key, value in flags.items():
        if key not in LOAD_FLAGS:
            raise unknown("benchmark key", key, {*LOAD_FLAGS, "about", "sweep"}, where=where)
        if not isinstance(value, bool | int | float | str):
            raise Refusal(f"{where}: {key} is {value!r}", needed="a number, a text, true or false")
    sweep = keys.get("sweep", ())
    counts = [flags.get("num-prompts"), *sweep] if isinstance(sweep, list | tuple) else [None]
    if any(not isinstance(count, int) or isinstance(count, bool) or count < 1 for count in counts):
        raise Refusal(
            f"{where}: num-prompts is {flags.get('num-prompts')!r}, sweep is {sweep!r}",
            needed="num-prompts: a number of requests, at least 1; sweep: a list of such numbers",
            fix="correct the recipe",
        )
    return Scenario(name, str(keys.get("about", "")), flags, tuple(sorted(set(sweep))))


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
    backend: tuple[str, str] | None = None,
) -> list[str]:
    """Return the `vllm bench serve` command of one run, flags in full.

    Args:
        scenario: the load.
        prompts: number of requests, instead of the scenario's own.
        base_url: of the endpoint, as reached from the host that runs the tool.
        model: id or directory from which the tool loads the tokenizer.
        served_model_name: the model's name in the API.
        result_dir, result_filename: where the tool writes its JSON.
        trust_remote_code: whether the tokenizer may run the model's own code.
        metadata: names and values the tool copies into its JSON.
        backend: the tool's backend and its path, for a model that answers no completions.
    """
    load = {**scenario.flags, "num-prompts": prompts}
    words = ["vllm", "bench", "serve", "--base-url", base_url, "--model", model]
    words += ["--served-model-name", served_model_name]
    if backend:
        words += ["--backend", backend[0], "--endpoint", backend[1]]
    words += spell(load)
    if trust_remote_code:
        words.append("--trust-remote-code")
    words += ["--percentile-metrics", ",".join(LATENCIES), "--metric-percentiles", ",".join(map(str, PERCENTILES))]
    words += [
        "--disable-tqdm",
        "--save-result",
        "--save-detailed",
        "--result-dir",
        result_dir,
        "--result-filename",
        result_filename,
    ]
    if metadata:
        words += ["--metadata", *(f"{key}={value}" for key, value in metadata.items())]
    return words
