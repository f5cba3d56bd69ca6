"""A host says what the engine consists of: another answer than the kept one, other addresses and forged lines fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from muster.deploys.shared.engine_addresses import addresses_of, default_index, require_allowed
from muster.deploys.shared.resolution import Resolution
from muster.errors import Refusal
from muster.on_host import pylock
from muster.on_host.whole_files import text_sha256
from muster.plan.release import release_of
from muster.spec import resolutions
from muster.spec.host_data import settings_of
from muster.spec.settings import Settings
from tests import sample_plans

HASH, OTHER = "ab" * 32, "cd" * 32
HEAD = 'lock-version = "1.0"\ncreated-by = "uv"\n\n'
RELEASE = "vllm-0.33.0"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone that has deployed the sandbox has resolutions of its own in the working directory, which come first."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def wheel(name: str, url: str, sha256: str = HASH, size: str = "size = 7, ") -> str:
    return (
        f'[[packages]]\nname = "{name}"\nversion = "1.0"\n'
        f'wheels = [{{ url = "{url}", {size}hashes = {{ sha256 = "{sha256}" }} }}]\n\n'
    )


FILES = urlsplit(default_index()[1]).netloc
"""Where the public index keeps its files."""
VLLM = f"https://{FILES}/packages/vllm-1.0-py3-none-any.whl"
GOOD = HEAD + wheel("vllm", VLLM)


def settings(**more: Any) -> Settings:
    return settings_of({"strategy": "tp-pp", **more}, where="test")


def resolution(homes: tuple[Path, ...], **hosts: bool) -> Resolution:
    """Return a run's resolution; host -> whether it lacks the engine."""
    plan = sample_plans.plan("kimi-k2-instruct", 2, "H200")
    plan = replace(plan, release=replace(plan.release, id=RELEASE, install_args=("--torch-backend", "cu130")))
    decision = SimpleNamespace(hosts={name: SimpleNamespace(install=lacks) for name, lacks in hosts.items()})
    plan = replace(plan, hosts={name: next(iter(plan.hosts.values())) for name in hosts})
    run: Any = SimpleNamespace(plan=plan, decision=decision, settings=settings(), homes=homes)
    return Resolution._prepared(run)


def test_the_first_resolution_is_kept_and_holds_for_every_later_run(tmp_path: Path) -> None:
    first = resolution((tmp_path,), n0=True, n1=True)
    assert (first.keeper, first.seed, first.kept) == ("", "n0", None)
    first.take("n0", GOOD, {})
    kept = tmp_path / "resolutions" / f"{RELEASE}.toml"
    assert first.kept == kept
    assert kept.read_text() == GOOD
    later = resolution((tmp_path,), n0=False, n1=True)
    assert (later.keeper, later.seed, later.text) == ("", "n1", GOOD)


def test_a_host_that_answers_with_another_is_refused_by_name(tmp_path: Path) -> None:
    resolution((tmp_path,), n0=True).take("n0", GOOD, {})
    later = resolution((tmp_path,), n0=True, n1=True)
    evil = GOOD.replace(HASH, OTHER)
    with pytest.raises(Refusal, match=rf"n0: its resolution of {RELEASE} has SHA-256 {text_sha256(evil)[:16]}"):
        later.take("n0", evil, {})
    assert (tmp_path / "resolutions" / f"{RELEASE}.toml").read_text() == GOOD
    assert later.text == GOOD


def test_within_one_first_run_the_seed_cannot_replace_what_the_keeper_said(tmp_path: Path) -> None:
    run = resolution((tmp_path,), n0=False, n1=True)
    assert (run.keeper, run.seed) == ("n0", "n1")
    run.take("n0", GOOD, {})
    with pytest.raises(Refusal, match="n1: its resolution"):
        run.take("n1", GOOD.replace(HASH, OTHER), {})


@pytest.mark.parametrize(
    "url",
    [
        f"http://{FILES}/packages/vllm-1.0-py3-none-any.whl",
        "https://evil.example/vllm-1.0-py3-none-any.whl",
        f"https://{FILES}:8443/vllm-1.0-py3-none-any.whl",
        f"https://{FILES}@evil.example/vllm-1.0-py3-none-any.whl",
        f"https://user@{FILES}/vllm-1.0-py3-none-any.whl",
        f"https://{FILES}.evil.example/vllm-1.0-py3-none-any.whl",
        "file:///tmp/vllm-1.0-py3-none-any.whl",
        "file://evil.example/tmp/vllm-1.0-py3-none-any.whl",
        f"ftp://{FILES}/vllm-1.0-py3-none-any.whl",
    ],
)
def test_files_from_elsewhere_are_refused_and_nothing_is_kept(tmp_path: Path, url: str) -> None:
    run = resolution((tmp_path,), n0=True)
    with pytest.raises(Refusal, match="n0 resolves the engine to files from elsewhere: vllm at"):
        run.take("n0", HEAD + wheel("vllm", url), {})
    assert not (tmp_path / "resolutions").exists()
    with pytest.raises(Refusal, match="n0 did not resolve the release"):
        run.installation("n0").make()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, VLLM),
        ({}, "https://download.pytorch.org/whl/cu130/torch-1.0-py3-none-any.whl"),
        ({}, "https://download-r2.pytorch.org/whl/cu130/torch-1.0-py3-none-any.whl"),
        ({"index_url": "https://mirror.example/simple"}, "https://mirror.example/files/vllm-1.0-py3-none-any.whl"),
        ({"index_url": "http://mirror.example:8080/simple"}, "http://mirror.example:8080/x/vllm-1.0-py3-none-any.whl"),
        ({"extra_index_urls": ["https://more.example/s"]}, "https://more.example/vllm-1.0-py3-none-any.whl"),
        ({"find_links": ["/srv/wheels"]}, "file:///srv/wheels/vllm-1.0%2Bcu-py3-none-any.whl"),
        ({"index_file_hosts": ["cdn.example"]}, "https://cdn.example/vllm-1.0-py3-none-any.whl"),
        ({"engine_requirements": ["vllm @ https://own.example/vllm-1.0-py3-none-any.whl"]},
         "https://own.example/vllm-1.0-py3-none-any.whl"),
    ],
)  # fmt: skip
def test_configured_addresses_pass(given: Mapping[str, Any], url: str) -> None:
    chosen = settings(**given)
    addresses = addresses_of(release_of(chosen, ray=False), chosen.index_file_hosts)
    require_allowed([{"name": "vllm", "url": url}], addresses, "n0")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"index_url": "https://mirror.example/simple"}, VLLM),
        ({"find_links": ["/srv/wheels"]}, "file:///srv/wheels/../../tmp/vllm-1.0-py3-none-any.whl"),
        ({"find_links": ["/srv/wheels"]}, "file:///srv/wheels2/vllm-1.0-py3-none-any.whl"),
        ({"find_links": ["/srv/wheels"]}, "file:///srv/wheels/%2e%2e/vllm-1.0-py3-none-any.whl"),
        ({"engine_requirements": ["vllm @ https://own.example/vllm-1.0-py3-none-any.whl"]},
         "https://own.example/torch-1.0-py3-none-any.whl"),
    ],
)  # fmt: skip
def test_a_mirror_replaces_the_public_index(given: Mapping[str, Any], url: str) -> None:
    chosen = settings(**given)
    addresses = addresses_of(release_of(chosen, ray=False), chosen.index_file_hosts)
    with pytest.raises(Refusal, match="from elsewhere"):
        require_allowed([{"name": "vllm", "url": url}], addresses, "n0")


@pytest.mark.parametrize(
    "block",
    [
        wheel('vllm\n--index-url https://evil.example', VLLM),
        wheel("vllm --no-deps", VLLM),
        wheel("../vllm", VLLM),
        wheel("vllm", f"https://{FILES}/.."),
        wheel("vllm", f"https://{FILES}/x/%2e%2e"),
        wheel("vllm", f"https://{FILES}/a b --index-url=x/vllm-1.0-py3-none-any.whl"),
        wheel("vllm", f"https://{FILES}/"),
        wheel("vllm", VLLM).replace('version = "1.0"', 'version = "1.0\n--pre"'),
        wheel("vllm", VLLM).replace('name = "vllm"\n', ""),
        wheel("vllm", f"https://{FILES}/x.whl").replace('version = "1.0"\n', ""),
        wheel("vllm", VLLM, size="size = " + "9" * 5000 + ", "),
    ],
)  # fmt: skip
def test_no_line_of_a_resolution_becomes_an_option_or_a_path(tmp_path: Path, block: str) -> None:
    run = resolution((tmp_path,), n0=True)
    if "9999" in block:
        assert pylock.parse(HEAD + block, "/opt")[0]["size"] is None
        with pytest.raises(Refusal, match="no size of"):
            run.take("n0", HEAD + block, {})
        return
    with pytest.raises(Refusal, match=r"n0: the resolution of vllm-0\.33\.0 cannot be read"):
        run.take("n0", HEAD + block, {})
    assert not (tmp_path / "resolutions").exists()


def test_a_kept_file_that_was_changed_by_hand_must_still_name_configured_indexes(tmp_path: Path) -> None:
    (tmp_path / "resolutions").mkdir()
    evil = HEAD + wheel("vllm", "https://evil.example/vllm-1.0-py3-none-any.whl")
    (tmp_path / "resolutions" / f"{RELEASE}.toml").write_text(evil)
    with pytest.raises(Refusal, match=rf"resolutions/{RELEASE}\.toml resolves the engine to files from elsewhere"):
        resolution((tmp_path,), n0=True)


@pytest.mark.parametrize(("layout", "kept"), [("inventories", "resolutions"), ("cluster", "cluster/resolutions")])
def test_it_is_kept_beside_the_inventory(tmp_path: Path, layout: str, kept: str) -> None:
    (tmp_path / layout).mkdir()
    homes = (tmp_path / "elsewhere", tmp_path, tmp_path / layout)
    assert resolutions.write(RELEASE, GOOD, homes) == tmp_path / kept / f"{RELEASE}.toml"
    assert resolutions.path_in_use(RELEASE, homes) == tmp_path / kept / f"{RELEASE}.toml"
    (tmp_path / "elsewhere" / "resolutions").mkdir()
    assert resolutions.write("another", GOOD, homes) == Path("resolutions/another.toml")


def test_where_it_cannot_be_kept_nothing_is_installed(tmp_path: Path) -> None:
    (tmp_path / "resolutions").write_text("a file in the way")
    with pytest.raises(Refusal, match="cannot be written"):
        resolution((tmp_path,), n0=True).take("n0", GOOD, {})
