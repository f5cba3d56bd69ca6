"""The unit's credentials: the one form that the control machine ships, and nothing that looks like no key."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.guard import credentials


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "guard-key").write_text("k\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return tmp_path


def test_without_an_api_key_the_engine_gets_no_variable(folder: Path) -> None:
    assert credentials.read() == credentials.Credentials("k\n", {})
    assert credentials.read().api_key == ""


def test_the_api_key_is_one_of_the_engine_s_variables(folder: Path) -> None:
    (folder / "api-key").write_text("VLLM_API_KEY=se=same\n")
    (folder / "engine-secrets").write_text("HF_TOKEN=t\nS3_SECRET_ACCESS_KEY=$a#b;\n")
    secrets = credentials.read()
    assert secrets.api_key == "se=same"
    assert secrets.engine == {"VLLM_API_KEY": "se=same", "HF_TOKEN": "t", "S3_SECRET_ACCESS_KEY": "$a#b;"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "sesame\n",
        "VLLM_API_KEY=\n",
        "VLLM_API_KEY=x",
        '# ours\nVLLM_API_KEY="x"\n',
        "VLLM_API_KEY=x y\n",
        "A=x\n",
    ],
)
def test_a_key_in_another_form_keeps_the_guard_from_starting(folder: Path, text: str) -> None:
    (folder / "api-key").write_text(text)
    with pytest.raises(ValueError, match="run the deploy again"):
        credentials.read()


def test_a_unit_without_the_group_s_key_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(OSError, match="guard-key"):
        credentials.read()
