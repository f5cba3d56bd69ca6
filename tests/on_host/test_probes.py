"""The host programs of the preflight, run as a host runs them: by a bare Python, from standard input."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from muster.hosts import programs
from muster.on_host import measure_pair, probe_engine, probe_gpus, probe_machine

from ..preflight import sample


def bundled(requests: dict[str, Any], env: dict[str, str] | None = None, seconds: float = 60) -> dict[str, Any]:
    """Run programs through the command that a host runs."""
    done = subprocess.run(
        ["sh", "-c", programs.COMMAND],
        input=programs.bundle(requests),
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return programs.answers(done.stdout.splitlines())


@pytest.fixture
def tools(tmp_path: Path) -> Any:
    """Return a function that puts a tool before all others, and the PATH that finds it."""
    place = tmp_path / "bin"
    place.mkdir()

    def tool(name: str, script: str) -> dict[str, str]:
        path = place / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return {"PATH": f"{place}:{os.environ['PATH']}"}

    return tool


def test_whole_probe_answers_every_source() -> None:
    answers = bundled(sample.needs().requests())
    assert set(answers) == {"probe_gpus", "probe_firewall", "probe_machine", "probe_engine"}
    assert set(answers["probe_gpus"]) == set(probe_gpus.SOURCES)
    assert set(answers["probe_machine"]) == set(probe_machine.SOURCES)
    for program in ("probe_gpus", "probe_machine"):
        assert all(set(answer) in ({"value"}, {"error"}) for answer in answers[program].values())
    assert abs(answers["probe_machine"]["clock"]["value"]["wall"] - time.time()) < 60


def test_missing_tool_says_so_and_costs_nothing_else(tools: Any) -> None:
    env = tools("ip", "echo '[]'")
    answers = bundled({"probe_gpus": {"sources": ["nvlink", "links"]}}, env)["probe_gpus"]
    assert answers["links"]["value"]["text"] == "[]\n"
    if not shutil.which("nvidia-smi"):
        assert answers["nvlink"] == {"error": "nvidia-smi is not installed"}


def test_refused_fields_are_left_out_one_by_one(tools: Any) -> None:
    env = tools(
        "nvidia-smi",
        """case "$1" in
*fabric.state*) echo 'Field "fabric.state" is not a valid field to query.'; exit 2;;
*clocks_event_reasons*) echo 'Field "clocks_event_reasons.active" is not a valid field to query.'; exit 2;;
*) echo "$1";;
esac""",
    )
    answer = bundled({"probe_gpus": {"sources": ["gpus"]}}, env)["probe_gpus"]["gpus"]["value"]
    assert answer["refused"] == ["fabric.state", "clocks_event_reasons.active"]
    asked = answer["text"].strip().partition("=")[2].split(",")
    assert "fabric.status" in asked
    assert asked[-1] == "clocks_throttle_reasons.active"
    assert "fabric.state" not in asked


def test_tool_that_refuses_everything_ends(tools: Any) -> None:
    env = tools("nvidia-smi", 'f=${1#*=}; echo "Field \\"${f%%,*}\\" is not a valid field to query."; exit 2')
    answer = bundled({"probe_gpus": {"sources": ["gpus"]}}, env)["probe_gpus"]["gpus"]["value"]
    assert (
        set(answer["refused"]) == {*probe_gpus.GPU_FIELDS, "clocks_throttle_reasons.active"} - {""} or answer["rc"] == 2
    )


def test_gigantic_output_is_cut_and_the_tool_killed(tools: Any) -> None:
    env = tools("nvidia-smi", "exec yes 0123456789012345678901234567890123456789")
    answer = bundled({"probe_gpus": {"sources": ["topology"]}}, env)["probe_gpus"]["topology"]["value"]
    assert answer["truncated"]
    assert len(answer["text"]) == probe_gpus.LIMIT


def test_hung_tool_is_left_behind(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    env = tools("nvidia-smi", "sleep 600")
    monkeypatch.setenv("PATH", env["PATH"])
    before = time.monotonic()
    with pytest.raises(TimeoutError, match=r"nvidia-smi did not answer in 0\.3 s"):
        probe_gpus.run(["nvidia-smi"], seconds=0.3)
    assert time.monotonic() - before < 30, "it waits for the deadline, not for the tool"


def test_source_that_hangs_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(probe_gpus.SOURCES, "nvlink", lambda: time.sleep(600) or {})
    monkeypatch.setitem(probe_gpus.SOURCES, "names", lambda: {"hostname": "h"})
    answers = probe_gpus.main({"sources": ["nvlink", "names"], "seconds": 0.3})
    assert answers == {"nvlink": {"error": "no answer in time"}, "names": {"value": {"hostname": "h"}}}


def test_kernel_log_is_thinned_to_xids(tools: Any) -> None:
    env = tools("journalctl", "exit 1")
    xid = "[    5.1] NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus."
    tools("dmesg", f"seq 1 400000; echo '{xid}'; seq 1 10")
    answer = bundled({"probe_gpus": {"sources": ["driver_log"]}}, env)["probe_gpus"]["driver_log"]["value"]
    assert (answer["rc"], answer["text"]) == (0, xid)


def test_kernel_log_that_nobody_may_read_is_said(tools: Any) -> None:
    env = tools("journalctl", "exit 1")
    tools("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    answer = bundled({"probe_gpus": {"sources": ["driver_log"]}}, env)["probe_gpus"]["driver_log"]["value"]
    assert answer["rc"] == 1


def test_rdma_ports_are_read_from_sys(tmp_path: Path) -> None:
    port = tmp_path / "class/infiniband/mlx5_0/ports/1"
    for name, text in {
        "state": "4: ACTIVE\n",
        "phys_state": "5: LinkUp\n",
        "link_layer": "Ethernet\n",
        "rate": "400 Gb/sec (4X NDR)\n",
        "gids/0": "0000:0000:0000:0000:0000:0000:0000:0000\n",
        "gids/3": "0000:0000:0000:0000:0000:ffff:c633:640b\n",
        "gid_attrs/types/3": "RoCE v2\n",
        "gid_attrs/ndevs/3": "eth1\n",
    }.items():
        (port / name).parent.mkdir(parents=True, exist_ok=True)
        (port / name).write_text(text)
    answers = sample.answers()
    answers["probe_machine"] |= probe_machine.main({"sys": str(tmp_path)})
    report = sample.report(probe_machine=answers["probe_machine"])
    assert isinstance(report.rdma, tuple)
    (found,) = report.rdma
    assert (found.device, found.port, found.state, found.physical) == ("mlx5_0", "1", "ACTIVE", "LinkUp")
    assert [(gid.index, gid.kind, gid.netdev) for gid in found.gids] == [(3, "RoCE v2", "eth1")]


def test_paths_are_those_of_the_nearest_parent(tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "weights").write_bytes(b"x" * 100_000)
    wanted = str(tmp_path / "not" / "yet" / "there")
    (found,) = probe_machine.paths({"paths": {wanted: str(tmp_path / "held")}}).values()
    assert found["there"] == str(tmp_path)
    assert found["free"] <= found["total"]
    assert found["held"] >= 100_000
    assert found["options"]


def test_who_holds_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (found,) = probe_machine.listening({"ports": [port, 1]})["ports"]
    assert (found["port"], found["pid"]) == (port, os.getpid())
    assert found["process"]


def release(root: Path) -> Path:
    """Make the files that an installed engine is told by."""
    packages = root / "lib/python3.12/site-packages"
    for name in ("vllm-0.33.0.dist-info", "torch-2.13.0+cu130.dist-info", "nvidia_nccl_cu13-2.28.9.dist-info",
                 "ray-2.60.0.dist-info", "torchvision-0.1.dist-info"):  # fmt: skip
        (packages / name).mkdir(parents=True)
    (packages / "torch").mkdir()
    (packages / "torch/version.py").write_text(
        "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip = None\n"
    )
    (root / "pyvenv.cfg").write_text("home = /x\nversion_info = 3.12.8\n")
    return root


def test_installed_engine_is_read_without_importing_it(tmp_path: Path) -> None:
    found = probe_engine.main({"path": str(release(tmp_path))})["release"]
    assert found["versions"] == {"vllm": "0.33.0", "torch": "2.13.0+cu130", "nccl": "2.28.9", "ray": "2.60.0"}
    assert (found["cuda"], found["python"]) == ("13.0", "3.12.8")
    assert probe_engine.main({"path": str(tmp_path / "none")})["release"] is None


@pytest.mark.usefixtures("as_myself")
def test_import_is_tried_with_the_release_s_python(tmp_path: Path) -> None:
    python = release(tmp_path) / "bin/python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho 'ImportError: libcudart.so.13: cannot open' >&2\nexit 1\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    found = probe_engine.main({"path": str(tmp_path), "import": 5})["imported"]
    assert found == {"error": "ImportError: libcudart.so.13: cannot open"}
    python.write_text('#!/bin/sh\necho noise\necho \'{"vllm": "0.33.0"}\'\n')
    assert probe_engine.main({"path": str(tmp_path), "import": 5})["imported"] == {"value": {"vllm": "0.33.0"}}


def test_files_digest_and_revision(tmp_path: Path) -> None:
    unit = tmp_path / "muster-g.service"
    unit.write_text("[Service]\nEnvironment=MUSTER_GROUP=g MUSTER_DIGEST=0123456789abcdef\n")
    refs = tmp_path / "hub/models--o--m/refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("c" * 40)
    gone = str(tmp_path / "gone")
    found = probe_engine.main(
        {"files": [str(unit), gone], "model": {"cache": str(tmp_path / "hub"), "repository": "o/m"}}
    )
    assert found["files"][gone] is None
    assert len(found["files"][str(unit)]) == 64
    assert (found["digest"], found["revision"]) == ("0123456789abcdef", "c" * 40)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_two_ends_measure() -> None:
    common = {"port": free_port(), "token": "f" * 32, "seconds": 0.1, "wait": 10.0}
    answers: dict[str, Any] = {}
    serving = {**common, "role": "serve", "address": "127.0.0.1"}
    server = threading.Thread(target=lambda: answers.update(serve=measure_pair.main(serving)))
    server.start()
    found = measure_pair.main({**common, "role": "call", "address": "127.0.0.1", "peer": "127.0.0.1", "packet": 1500})
    server.join(20)
    assert found["bits"] > 1e6
    assert 0 < found["round_trip"] < 1
    assert answers["serve"]["bytes"] > 0
    assert found["ping"].get("missing") or found["ping"]["arrived"]


def test_stranger_is_no_caller() -> None:
    common = {"port": free_port(), "token": "f" * 32, "seconds": 0.05, "wait": 10.0}
    answers: dict[str, Any] = {}
    serving = {**common, "role": "serve", "address": "127.0.0.1"}
    server = threading.Thread(target=lambda: answers.update(serve=measure_pair.main(serving)))
    server.start()
    stranger = measure_pair.connect({**common, "address": "127.0.0.1", "peer": "127.0.0.1"})
    stranger.sendall(b"GET / HTTP/1.0\r\n\r\n" + b"x" * 64)
    stranger.close()
    found = measure_pair.main({**common, "role": "call", "address": "127.0.0.1", "peer": "127.0.0.1", "packet": 0})
    server.join(20)
    assert "bits" in found
    assert answers["serve"]["bytes"] > 0


def test_a_transfer_that_stalls_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_pair, "STALL", 0.2)
    common = {"port": free_port(), "token": "f" * 32, "seconds": 0.1, "wait": 10.0}
    # Takes the round trips and then nothing more, as a way does that loses full packets.
    monkeypatch.setattr(measure_pair, "take", lambda connection, seconds: (time.sleep(2), {"bytes": 0})[1])
    answers: dict[str, Any] = {}
    serving = {**common, "role": "serve", "address": "127.0.0.1"}
    server = threading.Thread(target=lambda: answers.update(serve=measure_pair.main(serving)))
    server.start()
    found = measure_pair.main({**common, "role": "call", "address": "127.0.0.1", "peer": "127.0.0.1", "packet": 0})
    server.join(20)
    assert found["stalled"]
    assert found["round_trip"] > 0
    assert "bits" not in found


def test_nobody_there_is_said_in_words() -> None:
    found = measure_pair.main(
        {"role": "call", "address": "127.0.0.1", "peer": "127.0.0.1", "port": free_port(), "token": "t", "packet": 0,
         "seconds": 0.1, "wait": 0.2}
    )  # fmt: skip
    assert "refused" in found["error"]


def test_a_unit_runs_an_engine_when_more_than_its_guard_is_there(tmp_path: Path) -> None:
    def unit(name: str, *argv: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(["/bin/sleep", "60"] if not argv else list(argv))
        place = tmp_path / "fs/cgroup/system.slice" / name
        (place / "inner").mkdir(parents=True)
        (place / "cgroup.procs").write_text("")
        (place / "inner/cgroup.procs").write_text(f"{child.pid}\n")
        return child

    guard = tmp_path / "opt/guard" / "0123456789ab"
    guard.mkdir(parents=True)
    (guard / "__main__.py").write_text("import time; time.sleep(60)\n")
    children = [
        unit("muster-served.service"),
        unit("muster-held.service", sys.executable, "-I", str(guard), "--config", "x", "--", "vllm", "serve"),
        unit("other.service"),
    ]
    try:
        time.sleep(0.5)  # until each has its own command line
        assert probe_machine.units({"sys": str(tmp_path)}) == {"running": ["muster-served.service"]}
    finally:
        for child in children:
            child.kill()
            child.wait()
