"""What differs between two kept plans, said once."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from muster.plan.plan_diff import by_flag, differences

FILE = {"text": "a\nb\nc\n", "mode": "644", "owner": "root", "group": "root"}
UNIT = "muster-g.service"


def kept(*argv: str, **more: Any) -> dict[str, Any]:
    process = {"unit": UNIT, "argv": ["vllm", "serve", *argv]}
    usual = {"settings": {}, "secrets": {}, "hosts": ["a", "b"], "files": {"/etc/x": FILE}}
    return {"verify": {"processes": [process]}, **usual, **more}


def both(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"a": plan, "b": plan}


def test_equal_plans_differ_in_nothing() -> None:
    assert differences(both(kept("m")), both(kept("m"))) == []


def test_settings_and_flags_are_said_once_for_all_hosts() -> None:
    old = both(kept("m", "--max-num-seqs", "16", "--enforce-eager", settings={"max_num_seqs": 16}))
    new = both(kept("m", "--max-num-seqs", "17", settings={"max_num_seqs": 17, "offline": True}))
    assert differences(old, new) == [
        "--- settings",
        "+++ settings",
        "-max_num_seqs = 16",
        "+max_num_seqs = 17",
        "+offline = true",
        f"--- a: {UNIT}: vllm",
        f"+++ a: {UNIT}: vllm",
        "@@ -1,3 +1,2 @@",
        " vllm serve m",
        "---max-num-seqs 16",
        "---enforce-eager",
        "+--max-num-seqs 17",
    ]


def test_what_differs_on_one_host_alone_is_said_for_it() -> None:
    old = both(kept("m"))
    new = {"a": kept("m"), "b": kept("m", files={"/etc/x": {**FILE, "text": "a\nB\nc\n"}})}
    assert differences(old, new) == ["--- b: /etc/x", "+++ b: /etc/x", "@@ -1,3 +1,3 @@", " a", "-b", "+B", " c"]
    new = {"a": kept("m"), "b": kept("m", files={"/etc/x": {**FILE, "mode": "600"}})}
    assert differences(old, new)[2:] == ["-644 root:root", "+600 root:root"]


def test_secrets_are_told_by_their_digests_and_the_guard_by_its_directory() -> None:
    files = {"/opt/m/guard/0123456789ab/main.py": FILE}
    old = both(kept("m", secrets={"/etc/muster/g/guard-key": "5" * 64}, files=files))
    new = both(
        kept("m", secrets={"/etc/muster/g/guard-key": "6" * 64}, files={"/opt/m/guard/ba9876543210/main.py": FILE})
    )
    text = "\n".join(differences(old, new))
    assert f"-SHA-256 {'5' * 16}…\n+SHA-256 {'6' * 16}…" in text
    assert "-0123456789ab\n+ba9876543210" in text
    assert "main.py" not in text


def test_a_flag_keeps_its_values() -> None:
    assert by_flag(["vllm", "serve", "m", "--a", "1", "2", "--b"]) == ["vllm serve m", "--a 1 2", "--b"]
    assert by_flag([]) == []


WORDS = st.lists(st.sampled_from(("--a", "--b", "1", "2")), max_size=6)


@given(WORDS, WORDS)
def test_plans_differ_exactly_where_their_words_do(one: list[str], other: list[str]) -> None:
    assert (differences(both(kept(*one)), both(kept(*other))) == []) == (one == other)
