"""What the catalogue's installations come to in a recipe."""

from __future__ import annotations

import pytest

from muster.spec.catalogue_packages import read
from muster.spec.safe_text import package_name


@pytest.mark.parametrize(
    ("command", "packages"),
    [
        ('uv pip install -U "transformers>=5.8.0"', ["transformers>=5.8.0"]),
        ("pip install a b==1.0", ["a", "b==1.0"]),
        ('uv pip install -U "vllm[audio]" --torch-backend auto', ["vllm[audio]"]),
        ('uv pip install "x[a,b]>=1,<2"', ["x[a,b]>=1,<2"]),
        ("uv pip install vllm==0.11.2", None),
        ("uv pip install a --index-url https://mirror.example", None),
        ("uv pip install a --extra-index-url=https://mirror.example", None),
        ("uv pip install a @ https://mirror.example/a.whl", None),
        ("uv pip install https://mirror.example/a.whl", None),
        ("uv pip install ./a.whl", None),
        ("uv pip install -r requirements.txt", None),
        ("uv pip install -e .", None),
        ("uv pip install a --pre", None),
        ("uv pip install a && curl example.com", None),
        ("uv pip install a; reboot", None),
        ("uv pip install 'a", None),
        ('uv pip install "a\n--index-url https://mirror.example"', None),
        ("apt-get install ffmpeg", None),
        ("export A=1", None),
        ("", None),
    ],
)
def test_only_plain_packages_of_the_engine_s_index_are_carried(command: str, packages: list[str] | None) -> None:
    assert read(command) == packages


def test_packages_are_compared_as_an_index_does() -> None:
    names = ["Mistral_Common>=1", "mistral-common[audio]", "mistral.common==2", "mistral-common @ file:///a.whl"]
    assert {package_name(each) for each in names} == {"mistral-common"}
