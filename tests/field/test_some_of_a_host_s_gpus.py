"""ServiceNow/PipelineRL#85, vllm#28572: `gpus: 4` on a host of eight serves on four of them, or is refused at once."""

from __future__ import annotations

import json

from muster.guard import config, host_judge
from muster.preflight.checks import local
from muster.preflight.outcome import judge_group
from tests.preflight import sample
from tests.sample_plans import hosts, plan

EIGHT = {f"probe_gpus__{name}": answer for name, answer in sample.gpu_answers("NVIDIA H200", 143771, 8).items()}
APPS = "pid, process_name, gpu_uuid, used_gpu_memory [MiB]\n7, python3, {uuid}, 5 MiB\n"


def uuid(index: int) -> str:
    text = sample.gpu_answers("NVIDIA H200", 143771, 8)["gpus"]["value"]["text"]
    return str(text.splitlines()[index + 1].split(",")[2].strip())


def test_every_check_passes_on_the_four_that_the_group_uses() -> None:
    needs = {"h200-0": sample.needs(gpus=4)}
    outcome = judge_group("t", [sample.report(**EIGHT)], needs)
    assert [v for v in outcome.verdicts if v.level != "ok" and v.check.startswith(("gpu.", "parity.", "fabric_"))] == []
    (count,) = [verdict for verdict in outcome.verdicts if verdict.check == "gpu.count"]
    assert count.found == "8, of which the group uses 0, 1, 2, 3"


def test_another_group_on_the_other_four_is_no_stranger() -> None:
    for index, level in ((6, "ok"), (1, "fail")):
        apps = sample.printed(APPS.format(uuid=uuid(index)), cgroups={})
        verdicts = local(sample.report(**EIGHT, probe_gpus__apps=apps), sample.needs(gpus=4))
        assert [verdict.level for verdict in verdicts if verdict.check == "gpu.processes"] == [level]


def test_the_guard_is_told_which_ones_and_shows_them_to_its_children_by_uuid() -> None:
    specs = hosts(2, "H200", 4)
    made = plan("kimi-k2-instruct", 2, "H200", gpus=4, allow_oversubscription=True)
    (path,) = [path for path in made.hosts[specs[0].name].files if path.endswith("guard.json")]
    checks = config.parse(made.hosts[specs[0].name].files[path].text).checks
    assert (checks.gpus, checks.devices) == (4, ())
    assert json.loads(made.hosts[specs[0].name].files[path].text)["checks"]["gpus"] == 4
    eight = [host_judge.Device(index, f"GPU-{index}") for index in range(8)]
    chosen, _ = host_judge.choose(eight, checks.gpus, checks.devices)
    assert host_judge.visible(eight, chosen) == {"CUDA_VISIBLE_DEVICES": "GPU-0,GPU-1,GPU-2,GPU-3"}
