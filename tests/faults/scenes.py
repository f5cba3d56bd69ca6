"""The rows of the matrix that are more than a fault and its recovery."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

from muster.sandbox import simulated_gpus
from tests.faults import kept_weights
from tests.faults.effects import CannotRun
from tests.faults.group import CONFIG, HEAD, HOSTS, MEMBER, NAME, UNIT, Group, Late, Load
from tests.faults.matrix import Fault, Outcome
from tests.faults.sightings import engines, generations, gone_at, lives, overlaps, started_at


def _generation(group: Group) -> str:
    (name,) = generations(group.watch.alive)
    return name


def _steady(group: Group, outcome: Outcome, name: str, old: str, seconds: float) -> None:
    """The oracle `name`: for so long, under load, the generation stays and its ranks answer."""
    load, until = Load(group), time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            if set(generations(group.watch.alive)) != {old}:
                break
            time.sleep(0.2)
    finally:
        load.end()
    now = sorted(generations(group.watch.alive))
    outcome.oracles[name] = "" if now == [old] else f"generation {old[:8]} became {[each[:8] for each in now]}"
    unanswered = [rank for rank, count in load.answered.items() if not count]
    outcome.oracles[f"{name}, answering"] = f"ranks {unanswered} answered nothing" if unanswered else ""


def _finish(group: Group, outcome: Outcome) -> None:
    outcome.oracles["no overlap"] = "; ".join(overlaps(group.watch.seen)[:3])
    group.until_ready()
    outcome.oracles["each rank answers"] = "" if group.answers() else "a rank did not answer"


def _never(group: Group, seconds: float) -> str:
    """What breaks: no engine process is seen for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if engines(group.watch.alive):
            return f"engine processes run: {[each.title[:40] for each in engines(group.watch.alive)][:3]}"
        time.sleep(0.1)
    return ""


def _lacks(group: Group, host: str) -> str:
    members = group.status().get("members", [])
    return next((str(each["lacks"]) for each in members if each["host"] == host), "")


def _stopped(group: Group) -> None:
    group.both(f"systemctl stop {UNIT}")
    group.wait("all processes are gone", lambda: not group.watch.alive, 60)


def disk_full(group: Group, fault: Fault, outcome: Outcome) -> None:
    """A full disk restarts nothing; what fails meanwhile cannot start again, and the status says why."""
    places = [f"/var/lib/muster/{NAME}", f"/var/cache/muster/{NAME}"]
    _stopped(group)
    for place in places:
        group.sh(MEMBER, f"mount -t tmpfs -o size=300M,mode=700 tmpfs {place} && chown muster:muster {place}")
    try:
        group.both(f"systemctl start {UNIT}")
        group.until_ready()
        old = _generation(group)
        for place in places:
            group.sh(MEMBER, f"dd if=/dev/zero of={place}/filler bs=1M 2>/dev/null; true")
        outcome.oracles["filled"] = group.sh(
            MEMBER, f"df --output=avail {places[0]} | tail -n 1 | grep -vx ' *0'; true"
        )
        _steady(group, outcome, "no restart in 40 s", old, 40)
        begun = time.monotonic()
        group.signal(HEAD, "vllm", signal.SIGKILL)
        group.wait("the old generation is gone", lambda: not engines(group.watch.alive), 30)
        outcome.gone = (gone_at(group.watch.seen, old) or begun) - begun
        expected = f"blocked: {places[0]} has 0.0 GiB free"
        group.wait("the status says which disk", lambda: _lacks(group, MEMBER).startswith(expected), 30)
        outcome.oracles["refuses to start for 20 s"] = _never(group, 20)
        outcome.note = f"/status: node1 {_lacks(group, MEMBER)}"
        freed = time.monotonic()
        group.sh(MEMBER, f"rm {places[0]}/filler {places[1]}/filler")
        outcome.answering = group.until_ready() - freed
        _finish(group, outcome)
    finally:
        _stopped(group)
        for place in places:
            group.sh(MEMBER, f"umount {place}", check=False)
        group.both(f"systemctl start {UNIT}")
    group.until_ready()


FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
DROP_IN = f"""\
[Service]
Environment=LD_PRELOAD={FAKETIME} FAKETIME_TIMESTAMP_FILE=/etc/muster-faults.clock FAKETIME_NO_CACHE=1
Environment=DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_RESET=1
"""


def clock(group: Group, fault: Fault, outcome: Outcome) -> None:
    """The wall clock of one host's guard jumps an hour ahead, and back: nothing happens.

    Not its engine's: under libfaketime 0.9.10 Python's own sleep fails with EINVAL.
    """
    install = "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -y -qq install --no-install-recommends"
    group.sh(
        MEMBER, f"ls {FAKETIME} >/dev/null 2>&1 || ({install} libfaketime) >/dev/null 2>&1", check=False, timeout=120
    )
    if group.sh(MEMBER, f"ls {FAKETIME}", check=False) != FAKETIME:
        raise CannotRun("libfaketime cannot be installed on the host; containers share the machine's clock")
    folder = f"/etc/systemd/system/{UNIT}.d"
    group.box.exec(MEMBER, ["/bin/sh", "-c", f"mkdir -p {folder}; cat >{folder}/faults.conf"], stdin=DROP_IN)
    config = group.sh(MEMBER, f"cat {CONFIG}")
    spared = json.loads(config)
    spared["processes"][0]["env"]["LD_PRELOAD"] = ""
    try:
        _write(group, json.dumps(spared))
        group.sh(MEMBER, f"echo +0 >/etc/muster-faults.clock; systemctl daemon-reload; systemctl restart {UNIT}")
        group.wait("the group runs", group.ready, 120)
        group.until_ready()
        old = _generation(group)
        group.sh(MEMBER, "echo +1h >/etc/muster-faults.clock")
        mapped = group.sh(MEMBER, f"grep -c faketime /proc/$(systemctl show -P MainPID {UNIT})/maps; true")
        outcome.oracles["the guard's clock is faked"] = "" if int(mapped) else "libfaketime is not in the guard"
        ahead = group.sh(
            MEMBER,
            f"a=$(env LD_PRELOAD={FAKETIME} FAKETIME_TIMESTAMP_FILE=/etc/muster-faults.clock date +%s); b=$(date +%s);"
            " echo $((a - b))",
        )
        outcome.oracles["by an hour"] = "" if abs(int(ahead) - 3600) < 5 else f"by {ahead} s"
        _steady(group, outcome, "nothing happens, one hour ahead", old, 60)
        group.sh(MEMBER, "echo +0 >/etc/muster-faults.clock")
        _steady(group, outcome, "nothing happens, back again", old, 60)
    finally:
        _write(group, config)
        group.sh(MEMBER, f"rm -r {folder}; systemctl daemon-reload; systemctl restart {UNIT}")
    group.wait("the next generation", lambda: old not in generations(group.watch.alive), 60)
    _finish(group, outcome)


def xid(group: Group, fault: Fault, outcome: Outcome) -> None:
    """The group stops, the host stays blocked with the reason; once repaired and resumed, it runs."""
    old, healthy, cursors = _generation(group), group.box.gpus(MEMBER), group.cursors()
    begun = time.monotonic()
    group.box.set_gpus(MEMBER, simulated_gpus.xid(healthy, 0, 79))
    try:
        group.wait("the old generation is gone", lambda: not engines(group.watch.alive), 90)
        outcome.gone = (gone_at(group.watch.seen, old) or begun) - begun
        noticed = group.noticed_at(cursors)
        outcome.detected = None if noticed is None else noticed - begun
        group.wait("the status says why", lambda: _lacks(group, MEMBER).startswith("blocked: fatal Xid: "), 60)
        outcome.oracles["stays blocked for 30 s"] = _never(group, 30)
        outcome.note = f"/status: node1 {_lacks(group, MEMBER)[:120]}"
    finally:
        group.box.set_gpus(MEMBER, healthy)
    resumed = time.monotonic()
    group.ctl(MEMBER, "resume")
    outcome.answering = group.until_ready() - resumed
    _finish(group, outcome)


def start_in_order(group: Group, fault: Fault, outcome: Outcome, *order: str) -> None:
    """Units start one after the other, 10 s apart, or together; the group forms once, soon after the last."""
    _stopped(group)
    group.watch.forget()
    last = 0.0
    for number, hosts in enumerate(order):
        if number:
            outcome.oracles["nothing starts before the last host"] = _never(group, 10)
        last = time.monotonic()
        if "+" in hosts:
            group.both(f"systemctl start --no-block {UNIT}")
        else:
            group.sh(hosts, f"systemctl start --no-block {UNIT}")
    group.wait("a generation", lambda: started_at(group.watch.seen, "", HOSTS, last) is not None, 60)
    outcome.started = (started_at(group.watch.seen, "", HOSTS, last) or last) - last
    outcome.answering = group.until_ready() - last
    begun = lives(group.watch.seen, last)
    outcome.oracles["it forms once"] = "" if len(begun) == 1 else f"{len(begun)} generations began"
    _finish(group, outcome)


def mixed_digests(group: Group, fault: Fault, outcome: Outcome) -> None:
    """A group of two plans never starts, and says which host differs; with one plan again, it does."""
    _stopped(group)
    config = group.sh(MEMBER, f"cat {CONFIG}")
    other = json.dumps({**json.loads(config), "digest": "0123456789abcdef"})
    _write(group, other)
    try:
        group.both(f"systemctl start {UNIT}")
        expected = "node1 carries plan 0123456789ab"
        group.wait("the status names the host", lambda: _lacks(group, MEMBER).startswith(expected), 30)
        outcome.oracles["never starts (30 s)"] = _never(group, 30)
        outcome.note = f"/status: {_lacks(group, MEMBER)}"
    finally:
        _write(group, config)
    begun = time.monotonic()
    outcome.answering = group.until_ready() - begun
    _finish(group, outcome)


def _write(group: Group, text: str) -> None:
    group.box.exec(MEMBER, ["/bin/sh", "-c", f"cat >{CONFIG}.new; mv {CONFIG}.new {CONFIG}"], stdin=text + "\n")


def storm(group: Group, fault: Fault, outcome: Outcome, times: int = 20, every: float = 30.0) -> None:
    """The starts are bounded, the group ends as failed and stays so, and an operator's resume brings it back."""
    begun, killed = time.monotonic(), 0
    for number in range(times):
        group.wait("the next kill", lambda due=begun + number * every: time.monotonic() >= due, every + 5)
        try:
            group.signal(MEMBER, "vllm", signal.SIGKILL)
            killed += 1
        except (AssertionError, ProcessLookupError):
            continue
    # The last backoff may still run; after it the group is failed at the next death, and there is none: so ask now.
    while group.status().get("phase") != "failed" and time.monotonic() - begun < times * every + 600:
        if group.alive(MEMBER, "vllm"):
            time.sleep(2)
            try:
                group.signal(MEMBER, "vllm", signal.SIGKILL)
                killed += 1
            except (AssertionError, ProcessLookupError):
                continue
        time.sleep(1)
    starts, status = len(lives(group.watch.seen, begun)), group.status()
    outcome.oracles["at most 6 starts"] = "" if starts <= 6 else f"{starts} starts"
    outcome.oracles["then failed"] = "" if status.get("phase") == "failed" else f"phase {status.get('phase')}"
    outcome.oracles["and stays so for 30 s"] = _never(group, 30)
    resumed = time.monotonic()
    group.ctl(HEAD, "resume")
    try:
        outcome.answering = group.until_ready() - resumed
    except Late as late:
        outcome.oracles["resume works"] = str(late)
        return
    outcome.note = f"{killed} kills hit a process, {starts} starts, then failed"
    _finish(group, outcome)


def exception_while_starting(group: Group, fault: Fault, outcome: Outcome) -> None:
    """A worker hits an exception before the engine is up; its words end the start, and the next one is whole."""
    before = _generation(group)
    group.both("mkdir -p /etc/standin; echo 60 >/etc/standin/start_delay")
    try:
        group.ctl(HEAD, "restart")
        group.wait("the next generation", lambda: set(generations(group.watch.alive)) not in ({before}, set()), 60)
        group.wait("a worker that starts", lambda: group.alive(MEMBER, "Worker"), 30)
        time.sleep(2)
    finally:
        group.both("rm /etc/standin/start_delay")
    old = _generation(group)
    group.watch.forget()
    begun = time.monotonic()
    group.signal(MEMBER, "Worker", signal.SIGUSR1)
    group.wait("the old generation is gone", lambda: old not in generations(group.watch.alive), 60)
    group.wait("a new one", lambda: started_at(group.watch.seen, old, HOSTS, begun) is not None, 60)
    outcome.gone = (gone_at(group.watch.seen, old) or begun) - begun
    outcome.started = (started_at(group.watch.seen, old, HOSTS, begun) or begun) - begun
    outcome.answering = group.until_ready() - begun
    reason = str(group.status()["failures"][0]["reason"])
    outcome.note = f"/status: {reason}"
    outcome.oracles["the engine's words are the failure"] = "" if "WorkerProc hit an exception" in reason else reason
    _finish(group, outcome)


def elsewhere(group: Group, fault: Fault, outcome: Outcome) -> None:
    """A row that another benchmark measures."""
    raise CannotRun(fault.how)


Scene = Callable[..., None]
SCENES: dict[str, Scene] = {
    each.__name__: each
    for each in (disk_full, clock, xid, start_in_order, mixed_digests, storm, exception_while_starting, elsewhere)
} | kept_weights.SCENES
