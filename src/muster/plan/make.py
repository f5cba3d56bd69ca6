"""Recipe, hosts and settings become one plan. Every decision of a deploy is made here, before any host is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from muster.errors import Refusal, unknown
from muster.plan import (
    answered_kind,
    cache_size,
    capacity,
    cold_load,
    conflicts,
    draft_model,
    engine_limits,
    flags_in_argv,
    gpu_memory,
    kept_weights,
    known_faults,
    load_ranks,
    loaders,
    merged_environment,
    merged_flags,
    model_limits,
    own_files,
    release,
    remote_code,
    strategies,
    visible_paths,
    vllm_versions,
    weights_path,
)
from muster.plan.group import Group
from muster.plan.host_plans import host_plans, processes_of, secrets_of, with_digest
from muster.plan.layout import Layout, lay_out
from muster.plan.manifest import with_manifest
from muster.plan.plan_digest import digest_of
from muster.plan.start_order import steps_of
from muster.plan.topology import Topology, build_topology
from muster.plan.types import Plan
from muster.spec import catalogue_text
from muster.spec.host import HostSpec
from muster.spec.listing import Listing
from muster.spec.recipe import Recipe
from muster.spec.settings import Settings
from muster.spec.shape import Shape
from muster.spec.validation import refusal_of

LEAST_MODEL_LEN = 4096
"""Tokens; a context shorter than this is not chosen by itself."""


class DoesNotFit(Refusal):
    """A strategy for which the GPUs have too little memory."""


def build_plan(
    recipe: Recipe, hosts: Sequence[HostSpec], settings: Settings, *, drafts: Sequence[Listing] = ()
) -> Plan:
    """Return the whole plan of a group.

    Args:
        recipe: the model and its strategies.
        hosts: in inventory order; the first is the head.
        settings: of the group.
        drafts: pins of draft models.

    Raises:
        Refusal: anything that can be known to fail without asking a host.
    """
    try:
        return _build(recipe, hosts, settings, drafts)
    except DoesNotFit as refusal:
        better = [name for name in recipe.strategies if _can_be_planned(recipe, hosts, settings, drafts, name)]
        ways = [f"strategy {' or '.join(better)}, which fits"] if better else []
        fix = f"take {', '.join([*ways, 'more hosts', 'a smaller max_model_len'])}, or set allow_oversubscription"
        raise Refusal(refusal.found, needed=refusal.needed, fix=fix, detail=refusal.detail) from None


def _can_be_planned(
    recipe: Recipe, hosts: Sequence[HostSpec], settings: Settings, drafts: Sequence[Listing], strategy: str
) -> bool:
    try:
        _build(recipe, hosts, settings.model_copy(update={"strategy": strategy}), drafts)
    except Refusal:
        return False
    return True


def _build(recipe: Recipe, hosts: Sequence[HostSpec], settings: Settings, drafts: Sequence[Listing]) -> Plan:
    topology = build_topology(hosts)
    recipe = recipe.of_variant(settings.variant).on(topology.gpu)
    vllm_versions.check_version(settings.vllm_version, recipe.min_vllm, recipe=recipe.name)
    name, choice = strategies.choose(recipe, settings.strategy, topology)
    strategy = recipe.strategies[name].in_profile(settings.profile)
    shape = _shape(recipe, settings)
    layout = lay_out(
        name,
        strategy,
        topology,
        dcp=settings.decode_context_parallel_size,
        expert_parallel=settings.expert_parallel,
    )
    settings = settings.model_copy(
        update={
            "executor": settings.executor or strategy.executor,
            "extra_env": merged_environment.merged(recipe, strategy, settings),
        }
    )
    idle = topology.gpus_per_host - layout.host_gpus
    if idle:
        choice = [*choice, f"{idle} of {topology.gpus_per_host} GPUs of each host stay idle: {layout.label}"]
        topology = topology.using(layout.host_gpus)
    if layout.load_balancing == "hybrid":
        choice = [*choice, f"every host answers on port {settings.port} for its own DP ranks: balance over all of them"]
    merged = merged_flags.merged(recipe, strategy, settings)
    merged, extra_args, draft = draft_model.placed(merged, settings, drafts, recipe=recipe.name)
    settings = settings.model_copy(update={"extra_args": extra_args})
    spoken, notes = vllm_versions.translate(merged, settings.vllm_version)
    words = flags_in_argv.values_of(settings.extra_args)
    vllm_versions.check_flags({**spoken, **words}, layout, settings.vllm_version)
    if load_ranks.filters(layout, {**spoken, **words}, settings.vllm_version):
        spoken[load_ranks.FILTER] = True
    uses_ray = layout.spans_hosts and settings.executor == "ray"
    if settings.keep_weights:
        notes += kept_weights.check(settings, {**spoken, **words}, shape, ray=uses_ray)
    spoken, faults = known_faults.cured(
        spoken,
        layout,
        topology.gpu,
        shape,
        version=settings.vllm_version,
        own=words,
        allowed=settings.allow_known_fault,
    )
    model = settings.model or recipe.model
    own = model == recipe.model or weights_path.is_copy_of(model, recipe.model)
    asked = {**spoken, **words}
    answered_kind.check(recipe, asked)
    limits = engine_limits.limits_of(asked, settings.vllm_version)
    model_limits.check(shape, layout, limits.context, settings.extra_env, recipe.context if own else None)
    fit = _fit(recipe, settings, shape, layout, topology, limits, cache_size.element_bytes(asked), draft)
    if fit is None:
        notes += _too_large(recipe, topology)
        notes.append("the cache is not known: neither recipe nor pin has a shape that is understood; vLLM measures it")
    elif not fit.fits:
        notes.append(f"{layout.label} does not fit {topology.gpu.product}; allow_oversubscription is set")
    elif limits.context is None and fit.needed_tokens < recipe.context:
        if "max-model-len" not in words:
            spoken["max-model-len"] = fit.needed_tokens
        notes.append(
            f"max_model_len set to {fit.needed_tokens:,}: the model's own {recipe.context:,} tokens do not fit"
            f" {topology.gpu.product} with {layout.label}"
        )
    tool_calling = "enable-auto-tool-choice" in asked
    served = settings.served_model_name or strategy.served_model_name
    if served is None and (model != recipe.model or settings.offline):
        served = recipe.model  # a path would become the name in the API
    choice_of_loaders = loaders.of(settings, shape, layout, topology.gpu, fit, asked, draft)
    group = Group(
        name=settings.group or recipe.name,
        title=recipe.title,
        recipe=recipe.name,
        strategy=name,
        served_model_name=served or model,
        endpoint=recipe.endpoint,
        topology=topology,
        layout=layout,
        settings=settings,
        release=release.release_of(settings, ray=uses_ray, packages=recipe.packages),
        own_files=own_files.named([*map(str, spoken.values())], recipe, settings.group or recipe.name),
        loading=choice_of_loaders.loading if choice_of_loaders is not None else None,
    )
    conflicts.check(group)
    processes = {node.host.name: processes_of(group, node, model, served, spoken) for node in topology.nodes}
    kept = kept_weights.keep(group, processes) if settings.keep_weights else None
    if kept is not None:
        processes = kept_weights.mapping(group, processes, kept, experts=shape is None or shape.n_routed_experts > 0)
    for mine in processes.values():
        for process in mine:
            visible_paths.check(process.argv, process.env, settings={"engine_path": settings.engine_path})
    engine = processes[topology.head.host.name][-1]
    code, refused = remote_code.judged(recipe.pin_command, engine.argv, model, allowed=settings.allow_unpinned_code)
    warnings = (*choice, *notes, *_cautions(settings), *faults, *draft_model.notes(engine.argv, draft), *code)
    brought = own_files.notes(engine.argv, recipe, group.name, allowed=settings.trust_remote_code)
    warnings = (*warnings, *answered_kind.notes(recipe, layout), *brought)
    warnings = (*warnings, *release.notes(recipe.packages, settings), *_silent(recipe, topology))
    hosts_without = host_plans(group, processes, kept)
    digest = digest_of(group.release.id, hosts_without)
    plan = Plan(
        group=group.name,
        recipe=recipe.name,
        strategy=name,
        profile=settings.profile if recipe.strategies[name].profiles else "",
        serves=capacity.line(limits, fit, kind=recipe.endpoint, tool_calling=tool_calling, ranks=layout.dp),
        label=layout.label,
        model=model,
        served_model_name=served or model,
        endpoint_kind=recipe.endpoint,
        vllm_version=settings.vllm_version,
        digest=digest,
        hosts=with_digest(group, hosts_without, digest),
        release=group.release,
        warnings=warnings,
        refused=refused,
        steps=steps_of(group),
        secrets=secrets_of(group),
        endpoint=f"http://{topology.head.host.address}:{settings.port}",
        local_endpoint=f"http://127.0.0.1:{settings.port}",
        tool_calling=tool_calling,
        sequences=limits.sequences,
        ready_timeout=settings.ready_timeout,
        drain_seconds=settings.drain_seconds,
        heals=group.guarded,
        memory=fit,
        weight_bytes=gpu_memory.weight_bytes(shape) if shape else 0,
        load=cold_load.of(shape, layout, asked, draft=draft.weight_bytes if draft else 0),
        loaders=choice_of_loaders,
        cuda_variant=release.chosen(settings).cuda_variant,
        cuda_variant_assumed=release.chosen(settings).assumed,
    )
    return with_manifest(plan)


def _shape(recipe: Recipe, settings: Settings) -> Shape | None:
    if not settings.model_shape:
        return recipe.shape
    for key in settings.model_shape:
        if key not in Shape.model_fields:
            raise unknown("model_shape key", key, Shape.model_fields)
    try:
        return Shape.model_validate(settings.model_shape)
    except ValidationError as error:
        raise refusal_of(error, Shape, where="model_shape", what="model_shape key") from None


def _too_large(recipe: Recipe, topology: Topology) -> list[str]:
    """Return what the recipe says of the weights, where the GPUs have less and no shape says more."""
    memory = topology.hosts * topology.gpus_per_host * topology.gpu.gigabytes
    if recipe.vram_minimum_gb is None or recipe.vram_minimum_gb <= memory:
        return []
    return [f"the recipe asks for {recipe.vram_minimum_gb:,.0f} GB; these GPUs have {memory:,}: pin it for a table"]


def _fit(
    recipe: Recipe,
    settings: Settings,
    shape: Shape | None,
    layout: Layout,
    topology: Topology,
    limits: engine_limits.Limits,
    cache_bytes: int,
    draft: Listing | None,
) -> gpu_memory.Memory | None:
    """Return the memory table, None of an unknown shape; a context that no flag asks for becomes as short as need be.

    Raises:
        DoesNotFit: unless `allow_oversubscription` is set.
    """
    if shape is None:
        return None
    fit = gpu_memory.per_gpu(
        shape,
        layout,
        topology.gpu,
        utilization=limits.utilization,
        batched_tokens=limits.batched_tokens,
        max_model_len=limits.context or recipe.context,
        cache_bytes=cache_bytes,
    )
    if draft is not None:
        batched = limits.batched_tokens
        fit = draft_model.beside(fit, draft, layout, element=cache_bytes, batched_tokens=batched)
    if settings.keep_weights:
        fit = kept_weights.beside(fit)
    if fit.fits:
        return fit
    if limits.context is None and fit.longest() >= LEAST_MODEL_LEN:
        return replace(fit, needed_tokens=fit.longest())
    if settings.allow_oversubscription:
        return fit
    raise DoesNotFit(
        f"{recipe.name} as {layout.label} does not fit {topology.hosts} x {topology.gpus_per_host}"
        f" {topology.gpu.product}",
        needed="room for the weights, the allowance and one request of full length on every GPU",
        detail=f"per GPU:\n{fit.table()}",
    )


def _silent(recipe: Recipe, topology: Topology) -> list[str]:
    """Return that the catalogue which a recipe is from has no word on this GPU."""
    word = catalogue_text.NO_WORD.get(topology.gpu.profile)
    return [f"vLLM's catalogue has no word on {word}"] if word and recipe.source else []


def _cautions(settings: Settings) -> list[str]:
    notes = []
    if vllm_versions.version_of(settings.vllm_version) < vllm_versions.SECURITY_FLOOR:
        notes.append(f"vLLM {settings.vllm_version} lacks security fixes of 0.30 to 0.32")
    return notes
