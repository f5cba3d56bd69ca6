"""Names of failure bundles."""

from __future__ import annotations

from pathlib import Path

from muster.guard import failure_bundle, stack_dumps


def test_bundle_names_sort_by_age() -> None:
    assert failure_bundle.file_name("abc")[:2] == "20"
    assert failure_bundle.file_name("")[-5:] == "-none"


def test_stacks_of_earlier_generations_are_gone_and_what_lies_there_instead_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "stacks"
    assert stack_dumps.read(str(folder)) == {}
    folder.mkdir()
    (folder / "VLLM_STACK_DUMP_for_worker_0_7.log").write_text("old")
    stack_dumps.clear(str(folder))
    (folder / "VLLM_STACK_DUMP_for_worker_1_8.log").write_text("Thread 0x1: in all_reduce")
    (folder / "link").symlink_to("/etc/shadow")
    (folder / "huge").write_bytes(b"x" * (stack_dumps.SIZE + 1))
    kept = stack_dumps.read(str(folder))
    assert kept.pop("VLLM_STACK_DUMP_for_worker_1_8.log") == "Thread 0x1: in all_reduce"
    assert sorted(kept) == ["huge", "link"]
    assert all(text.startswith("not read: ") for text in kept.values())
