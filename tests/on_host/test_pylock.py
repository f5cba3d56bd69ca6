"""What uv writes of a resolution is read without a TOML parser, whole or not at all."""

from __future__ import annotations

import pytest

from muster.on_host import pylock

HASH = "ab" * 32
HEAD = 'lock-version = "1.0"\ncreated-by = "uv"\nrequires-python = ">=3.12"\n\n'
INDEX = (
    '[[packages]]\nname = "numpy"\nversion = "1.26.4"\nindex = "https://index.example/simple"\n'
    'wheels = [{ url = "https://files.example/numpy-1.26.4-cp312-cp312-manylinux_2_17_x86_64.whl",'
    f' upload-time = 2024-02-05T23:51:50Z, size = 18000, hashes = {{ sha256 = "{HASH}" }} }}]\n\n'
)
LOCAL = (
    '[[packages]]\nname = "torch"\nversion = "2.13.0+cpu"\n'
    f'wheels = [{{ path = "../../wheels/torch-2.13.0%2Bcpu-cp312.whl", hashes = {{ sha256 = "{HASH}" }} }}]\n\n'
)
DIRECT = (
    '[[packages]]\nname = "deep-ep"\n'
    f'archive = {{ url = "https://m.example/deep_ep-1.2-py3-none-any.whl", hashes = {{ sha256 = "{HASH}" }} }}\n\n'
)
SOURCE = (
    '[[packages]]\nname = "old"\nversion = "1"\n'
    f'sdist = {{ url = "https://files.example/old-1.tar.gz", size = 5, hashes = {{ sha256 = "{HASH}" }} }}\n'
)


def test_every_kind_of_file() -> None:
    found = pylock.parse(HEAD + INDEX + LOCAL + DIRECT + SOURCE, "/opt/muster/engines/r.locked")
    assert [(p["name"], p["version"], p["kind"], p["size"]) for p in found] == [
        ("numpy", "1.26.4", "wheel", 18000),
        ("torch", "2.13.0+cpu", "wheel", None),
        ("deep-ep", "1.2", "wheel", None),
        ("old", "1", "sdist", 5),
    ]
    assert found[1]["url"] == "file:///opt/muster/wheels/torch-2.13.0%2Bcpu-cp312.whl"
    assert found[1]["file"] == "torch-2.13.0+cpu-cp312.whl"


def test_lines_for_uv() -> None:
    found = pylock.parse(HEAD + LOCAL + DIRECT, "/opt")
    near = pylock.requirements(found, gathered=True)
    far = pylock.requirements(found, gathered=False)
    assert near == [f"torch==2.13.0+cpu --hash=sha256:{HASH}", f"deep-ep==1.2 --hash=sha256:{HASH}"]
    assert far[1] == f"deep-ep @ https://m.example/deep_ep-1.2-py3-none-any.whl --hash=sha256:{HASH}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no lock-version"),
        (HEAD + '[[packages]]\nname = "x"\nvcs = { type = "git", url = "https://g.example/x" }\n', "x has no file"),
        (HEAD + INDEX.replace(HASH, "short"), "numpy has no file whose SHA-256 is known"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pylock.parse(text, "/opt")


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64", "py3-none-any"),
        ("cp311-cp311-manylinux_2_17_x86_64", "cp39-abi3-manylinux_2_28_x86_64"),
        ("cp39-abi3-manylinux_2_17_x86_64", "cp38-abi3-manylinux_2_28_x86_64"),
        ("cp38-abi3-manylinux_2_17_x86_64", "py3-none-manylinux_2_17_x86_64"),
        ("cp311-cp311-manylinux_2_28_x86_64", "cp311-cp311-manylinux_2_17_x86_64"),
        ("2-cp311-cp311-manylinux_2_28_x86_64", "1-cp311-cp311-manylinux_2_28_x86_64"),
    ],
)
def test_of_several_wheels_that_fit_the_closest_is_taken(better: str, worse: str) -> None:
    def wheel(tags: str) -> str:
        where = f"https://files.example/x-1-{tags}.whl"
        return f'    {{ url = "{where}", size = 1, hashes = {{ sha256 = "{HASH}" }} }},\n'

    for tags in ((better, worse), (worse, better)):
        block = '[[packages]]\nname = "x"\nversion = "1"\nwheels = [\n' + "".join(map(wheel, tags)) + "]\n"
        (found,) = pylock.parse(HEAD + block, "/opt")
        assert found["file"] == f"x-1-{better}.whl"
