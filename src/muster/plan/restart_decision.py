"""From a plan and observations to a decision: which host writes, installs, stops and starts what. Pure.

An observation is what `muster.on_host.probe_group` answered for one host.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from muster.on_host import places
from muster.plan import manifest
from muster.plan.types import File, HostPlan, Plan, Process, Secret

Observation = Mapping[str, Any]

# Users, directories, kernel settings, and who may reach which port: they take effect at once, and no running rank reads
# them again.
BASE_DIRECTORIES = ("/etc/sysusers.d/", "/etc/tmpfiles.d/", "/etc/sysctl.d/")
_AT_REST = ("inactive", "failed", "")


@dataclass(frozen=True)
class HostDecision:
    """What one host has to do; nothing in any field means that it is as planned.

    Args:
        base: planned files of users, directories and kernel settings that differ.
        files: every other planned file that differs.
        secrets: secret files that differ.
        remove: files of this group that no plan names any more.
        install: whether the engine release has to be installed.
        send_uv: whether the host lacks uv.
        ask: command lines that the installed parser has not yet taken.
        stop: units to stop.
        enable: whether some unit is not enabled.
        reload: whether systemd holds an older state of some unit than its file: what starts next would be another.
    """

    base: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    install: bool = False
    send_uv: bool = False
    ask: tuple[tuple[str, ...], ...] = ()
    stop: tuple[str, ...] = ()
    enable: bool = False
    reload: bool = False


@dataclass(frozen=True)
class Decision:
    """What the group has to do.

    Args:
        hosts: host -> its part.
        restart: whether the whole group is restarted, on every host.
        reasons: why, one line each, naming the host.
        ready: whether the group runs as planned and answered already.
        answers: whether it answered already, whatever plan it runs.
        held: `stopped` or `failed`: the guards start nothing until the group is resumed, which this run does.
    """

    hosts: Mapping[str, HostDecision]
    restart: bool
    reasons: tuple[str, ...]
    ready: bool
    answers: bool
    held: str = ""

    @property
    def changes(self) -> bool:
        """Whether any host has something to do before the group is verified."""
        return self.restart or not self.ready or any(host != HostDecision() for host in self.hosts.values())


def decide(
    plan: Plan, seen: Mapping[str, Observation], secrets: Mapping[str, str], *, exchanged: Collection[str] = ()
) -> Decision:
    """Compare every host with the plan.

    Args:
        plan: the whole group.
        seen: host -> observation, for every host of the plan.
        secrets: path -> the SHA-256 that the secret must have on every host.
        exchanged: hosts that will put the files of an earlier change in place before this run does anything.

    One change on one host restarts the whole group together; so does a release that must be installed.
    """
    hosts = {name: _host(plan, host, seen[name], secrets) for name, host in plan.hosts.items()}
    hosts |= {name: _whole(plan, plan.hosts[name], hosts[name]) for name in exchanged if name in hosts}
    reasons = [f"{name}: its files were being exchanged when a change was cut" for name in hosts if name in exchanged]
    compared = [name for name in plan.hosts if name not in exchanged]
    reasons += [reason for name in compared for reason in _reasons(plan, name, hosts[name], seen[name])]
    answers = all(seen[name].get("ready") is not False for name in plan.hosts)
    if not answers and not plan.heals:
        reasons += [reason for name, host in plan.hosts.items() for reason in _orphans(host, seen[name])]
    if not reasons:
        # Everything that runs may go on; units of an older plan are removed with their files.
        hosts = {name: replace(host, stop=()) for name, host in hosts.items()}
    held = next((seen[name].get("held") for name in plan.hosts if seen[name].get("held")), "") if plan.heals else ""
    return Decision(hosts, bool(reasons), tuple(reasons), answers and not reasons, answers, str(held))


def _host(plan: Plan, host: HostPlan, seen: Observation, secrets: Mapping[str, str]) -> HostDecision:
    differing = [path for path, file in sorted(host.files.items()) if differs(file, seen["files"].get(path, {}))]
    release = seen["release"]
    units: Mapping[str, Any] = seen["units"]
    return HostDecision(
        base=tuple(path for path in differing if is_base(path)),
        files=tuple(path for path in differing if not is_base(path)),
        secrets=tuple(
            secret.path
            for secret in plan.secrets
            if secret_differs(secret, secrets[secret.path], seen["secrets"].get(secret.path, {}))
        ),
        remove=tuple(seen["stale"]),
        install=plan.release.managed and not release["complete"],
        send_uv=plan.release.managed and not release["complete"] and not seen["uv"],
        ask=tuple(argv for argv, taken in zip(asked(host), seen["accepted"], strict=True) if not taken),
        # What keeps weights turns by itself when its own plan has changed, and not when the engine's has.
        stop=tuple(
            name
            for name, unit in reversed(list(units.items()))
            if unit["active"] not in _AT_REST and name not in host.beside
        ),
        enable=any(not units.get(name, {}).get("enabled") for name in host.units),
        reload=any(units.get(name, {}).get("reload") for name in host.units),
    )


_STAGED = re.compile(r"(.*/)\.([^/]+)\.muster-new")


def _whole(plan: Plan, host: HostPlan, decision: HostDecision) -> HostDecision:
    """Return the decision for a host whose files will be others than it has shown: all of the plan's, and no others."""
    waiting = [match.expand(r"\1\2") for path in decision.remove if (match := _STAGED.fullmatch(path))]
    secrets = tuple(secret.path for secret in plan.secrets if secret.path in decision.secrets or secret.path in waiting)
    return replace(
        decision,
        base=tuple(path for path in sorted(host.files) if is_base(path)),
        files=tuple(path for path in sorted(host.files) if not is_base(path)),
        secrets=secrets,
        remove=(*decision.remove, *(path for path in waiting if path not in host.files and path not in secrets)),
        enable=True,
        reload=True,
    )


def _reasons(plan: Plan, name: str, host: HostDecision, seen: Observation) -> list[str]:
    # What a host says of its group is read by no rank: it is written again while they run.
    files = [path for path in host.files if path != manifest.path(plan.group)]
    reasons = [f"{name}: {path} {_how(seen['files'].get(path, {}))}" for path in files]
    reasons += [f"{name}: {path} {_how(seen['secrets'].get(path, {}))}" for path in host.secrets]
    if host.install:
        reasons.append(f"{name}: engine {plan.release.id} is not installed")
    for unit in plan.hosts[name].units:
        state = seen["units"].get(unit, {})
        if state.get("active") != "active":
            reasons.append(f"{name}: {unit} is {state.get('active') or 'not there'}")
        elif state.get("digest") != plan.digest:
            reasons.append(f"{name}: {unit} runs plan {state.get('digest') or 'unknown'}, not {plan.digest}")
    return reasons


def _orphans(host: HostPlan, seen: Observation) -> list[str]:
    """Return the units that systemd restarted on its own: their peers still wait for the process that died."""
    restarts = {unit: seen["units"].get(unit, {}).get("restarts", 0) for unit in host.units}
    return [
        f"{host.name}: {unit} ended and was started again {count} time(s), and the group is not ready"
        for unit, count in restarts.items()
        if count
    ]


def _how(file: Mapping[str, Any]) -> str:
    return "is not there" if file.get("kind", "missing") == "missing" else "differs"


def is_base(path: str) -> bool:
    """Whether a file takes effect at once and restarts nothing; the plan's digest leaves it out."""
    return path.startswith(BASE_DIRECTORIES) or path == places.FIREWALL_UNIT or path.endswith("/firewall.nft")


def differs(file: File, on_host: Mapping[str, Any]) -> bool:
    """Whether a file on a host differs from the planned one, in content, mode or owners."""
    planned = ("file", file.sha256, _mode(file.mode), file.owner, file.group)
    return planned != _state(on_host)


_KEYS = ("kind", "sha256", "mode", "owner", "group")


def secret_differs(secret: Secret, digest: str, on_host: Mapping[str, Any]) -> bool:
    """Whether a secret on a host differs from what it must be, in content, mode or owners."""
    return ("file", digest, _mode(secret.mode), secret.owner, secret.group) != _state(on_host)


def _state(on_host: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(_mode(on_host.get(key)) if key == "mode" else on_host.get(key) for key in _KEYS)


def _mode(text: Any) -> Any:
    return int(text, 8) if isinstance(text, str) else text


def decided(host: HostPlan, argvs: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Return, for command lines of a host, what each is with the plan's own words alone."""
    known = {process.argv: process.decided for process in (*host.processes, *_kept(host))}
    return tuple(known[argv] for argv in argvs)


def asked(host: HostPlan) -> tuple[tuple[str, ...], ...]:
    """Return the command lines of a host that vLLM's parser has to accept."""
    return tuple(process.argv for process in (*host.processes, *_kept(host)) if process.name != "ray")


def _kept(host: HostPlan) -> tuple[Process, ...]:
    return (host.weights,) if host.weights is not None else ()
