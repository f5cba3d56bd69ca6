"""The draft model of speculative decoding: held to its pin, served from where it is staged, and in the memory table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from muster.errors import Refusal
from muster.plan import cache_size, gpu_memory, remote_code
from muster.plan.command_lines import spell
from muster.plan.gpu_memory import Memory, Part
from muster.plan.layout import Layout
from muster.plan.weights_path import revision_path
from muster.spec import model_config
from muster.spec.listing import Listing
from muster.spec.settings import Settings
from muster.spec.strategy import FlagValue


def placed(
    flags: Mapping[str, FlagValue], settings: Settings, pinned: Sequence[Listing], *, recipe: str
) -> tuple[dict[str, FlagValue], list[str], Listing | None]:
    """Return flags and `extra_args` that name the draft as it is served, and its pin; None without one.

    Where muster stages the weights it is a directory, named by the commit; elsewhere the commit is written beside it.

    Args:
        flags: the recipe's and the settings', as asked for.
        settings: of the group.
        pinned: pins of draft models.
        recipe: its name, for what to do.

    Raises:
        Refusal: the weights are staged and the draft is not pinned; the engine is offline and has no directory; a
            revision other than the pin's.
    """
    found = remote_code.draft([*spell(flags), *settings.extra_args])
    if found is None or found.model.startswith("/"):
        return dict(flags), settings.extra_args, None
    pin = next((each for each in pinned if each.model == found.model), None)
    staged = settings.weights.kind != "none"
    if pin is None and (staged or settings.offline):
        raise Refusal(
            f"the draft model {found.model} of --speculative-config has no pin, and the engine is offline",
            needed="its commit, and the SHA-256 of every file; or a directory that every host has",
            fix=f"muster pin {recipe} --draft {found.model}, with weights_source set; or copy the draft below /srv on"
            " every host and name the directory",
        )
    if pin is None:
        return dict(flags), settings.extra_args, None
    if found.revision not in (None, pin.revision):
        raise Refusal(
            f"--speculative-config names {found.model} at {found.revision}, and its pin {pin.revision}",
            needed="one commit",
            fix=f"leave the revision out, or muster pin {recipe} --draft {found.model} --revision {found.revision}",
        )
    if staged:
        change = {"model": revision_path(settings.weights.root, pin.model, pin.revision)}
    elif settings.offline:
        raise Refusal(
            f"the draft model {found.model} of --speculative-config is a repository, and the engine is offline",
            needed="weights that muster stages, or a directory that every host has",
            fix="set weights_source, or copy the draft below /srv on every host and name the directory",
        )
    else:
        change = {"model": pin.model, "revision": pin.revision}
        if settings.trust_remote_code:
            change["code_revision"] = found.code_revision or pin.revision
    return _in_flags(flags, pin.model, change), _in_words(settings.extra_args, pin.model, change), pin


def _in_flags(flags: Mapping[str, FlagValue], model: str, change: Mapping[str, str]) -> dict[str, FlagValue]:
    """Return the recipe's flags with a draft as it is served; of a draft in the user's words, nothing changes."""
    changed: dict[str, FlagValue] = {}
    for name, value in flags.items():
        if name == "speculative-config.model" and value == model:
            changed |= {f"speculative-config.{key}": text for key, text in change.items()}
        elif name == "speculative-config" and isinstance(value, str):
            changed[name] = _in_json(value, model, change)
        else:
            changed[name] = value
    return changed


def _in_words(words: Sequence[str], model: str, change: Mapping[str, str]) -> list[str]:
    """Return the user's words with a draft as it is served: its fields one by one, or one JSON text."""
    changed: list[str] = []
    for word in words:
        name, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if value == model:
            changed.append(f"{name}{equals}{change['model']}")
            fields = [(key, text) for key, text in change.items() if key != "model"]
            changed += [text for key, each in fields for text in (f"--speculative-config.{key}", each)]
        else:
            changed.append(f"{name}{equals}{_in_json(value, model, change)}" if value else word)
    return changed


def _in_json(text: str, model: str, change: Mapping[str, str]) -> str:
    config = remote_code.read(text)
    if config.get("model") != model:
        return text
    kept = {key: value for key, value in config.items() if key not in ("model", "revision", "code_revision")}
    return json.dumps({**kept, **change}, separators=(",", ":"))


def beside(fit: Memory, draft: Listing, layout: Layout, *, element: int, batched_tokens: int) -> Memory:
    """Return the memory table with a draft model: its weights, and its layers' share of every token's cache.

    It runs on the last pipeline stage, in as many tensor parallel ranks as the model.

    Args:
        fit: of the model alone.
        draft: the draft's pin.
        layout: parallel sizes.
        element: bytes of one cache element.
        batched_tokens: of one batch.
    """
    weights, token, request, why = draft.weight_bytes // layout.tp, 0.0, 0, "its cache is not known"
    if draft.config is not None:
        try:
            shape = model_config.shape_of(draft.config, weight_bytes=draft.weight_bytes)
        except model_config.NotUnderstood:
            pass
        else:
            stage = replace(layout, pp=1)
            cache = cache_size.of(
                shape, stage, element=element, batched_tokens=batched_tokens, max_model_len=fit.needed_tokens
            )
            weights = sum(part.bytes for part in gpu_memory.weights_of(shape, stage))
            token, request, why = cache.token_bytes, cache.request_bytes, f"{shape.num_hidden_layers} layers"
    part = Part("draft model", weights, f"{draft.model}, {why}")
    return replace(
        fit,
        parts=(*fit.parts, part),
        token_bytes=fit.token_bytes + token,
        request_bytes=fit.request_bytes + request,
    )


def notes(argv: Sequence[str], draft: Listing | None) -> list[str]:
    """Return what a plan should say of a draft model that has no pin.

    Args:
        argv: of `vllm serve`.
        draft: its pin, where there is one.
    """
    found = remote_code.draft(argv)
    if found is None or draft is not None:
        return []
    return [f"the draft model {found.model} is in no memory table: leave room for its weights and cache"]
