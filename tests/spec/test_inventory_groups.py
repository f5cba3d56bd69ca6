"""Groups of one inventory that name their recipe: hosts and settings of each are what they would be alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.spec import inventory, inventory_groups, inventory_source
from muster.spec.inventory import Fleet

HOSTS = """\
_data = {"gpu": "H200", "gpus": 8}
def _host(number):
    return (f"gpu-{number}", {"ssh_hostname": f"192.0.2.{number + 1}"})
kimi_a = ([_host(0), _host(1)], dict(_data, port=8100))
kimi_b = ([_host(3), _host(2)], dict(_data, recipe="kimi-k2-instruct", group="kimi-b"))
chat = (["gpu-1"], dict(_data, recipe="gpt-oss-20b", gpus=1, gpu_devices=[7], port=8200))
edge = [("edge-0", {"ssh_hostname": "192.0.2.99"})]
monitor = [("mon-0", {"ssh_hostname": "192.0.2.98"})]
"""
KIMI_A = 'recipe = "kimi-k2-instruct"\ngroup = "kimi-a"\nmax_num_seqs = 64\n'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone-like directory with an inventory of three groups; tests write what differs, then load."""
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("inventories/site.py", HOSTS),
        ("group_data/all.py", "max_num_seqs = 16\nready_timeout = 900\n"),
        ("group_data/kimi_a.py", KIMI_A),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def groups(site: Path, **overrides: object) -> dict[str, Fleet]:
    loaded = inventory_source.load(str(site / "inventories/site.py"), overrides)
    return inventory.groups_of(loaded, name="site.py")


def chosen(site: Path, recipe: str | None = None, **overrides: object) -> Fleet:
    return inventory.from_path(str(site / "inventories/site.py"), overrides, recipe)


def test_each_group_has_its_hosts_and_its_data(site: Path) -> None:
    found = groups(site)
    assert {name: [host.name for host in each.hosts] for name, each in found.items()} == {
        "kimi_a": ["gpu-0", "gpu-1"],
        "kimi_b": ["gpu-3", "gpu-2"],
        "chat": ["gpu-1"],
    }
    ports = {name: each.settings.port for name, each in found.items()}
    assert ports == {"kimi_a": 8100, "kimi_b": 8000, "chat": 8200}
    assert {name: each.settings.max_num_seqs for name, each in found.items()} == {
        "kimi_a": 64,
        "kimi_b": 16,
        "chat": 16,
    }
    assert {each.settings.ready_timeout for each in found.values()} == {900}
    assert found["chat"].hosts[0].devices == ("7",)
    assert found["kimi_a"].hosts[1].devices == (), "what chat says of gpu-1 is chat's"


def test_the_first_host_that_a_group_lists_is_its_head_whatever_other_groups_list_before(site: Path) -> None:
    path = site / "inventories/site.py"
    path.write_text('_rack = 1\nrack = ["gpu-1", "gpu-2", "gpu-0"]\n' + HOSTS)
    found = groups(site)
    assert [host.name for host in found["kimi_a"].hosts] == ["gpu-0", "gpu-1"]
    assert [host.name for host in found["kimi_b"].hosts] == ["gpu-3", "gpu-2"]


def test_a_group_is_what_it_would_be_alone(site: Path) -> None:
    alone = site / "inventories/alone.py"
    alone.write_text(HOSTS[: HOSTS.index("kimi_b =")])
    (single,) = inventory.groups_of(inventory_source.load(str(alone)), name="alone.py").values()
    found = groups(site)["kimi_a"]
    assert (single.hosts, single.settings) == (found.hosts, found.settings)
    assert inventory.from_path(str(alone)).hosts == found.hosts, "the one group that names its recipe is meant"


def test_a_command_names_a_group_by_its_recipe_or_its_name(site: Path) -> None:
    assert chosen(site, "gpt-oss-20b").group == "chat"
    assert chosen(site, "gpt_oss_20b").group == "chat"
    assert chosen(site, group="kimi-b").group == "kimi_b"
    by_inventory_name = chosen(site, "kimi-k2-instruct", group="kimi_a")
    assert (by_inventory_name.group, by_inventory_name.settings.group) == ("kimi_a", "kimi-a")


@pytest.mark.parametrize(
    ("recipe", "given", "says"),
    [
        (None, {}, r"several groups: kimi-a \(kimi-k2-instruct\), kimi-b .*, gpt-oss-20b \(gpt-oss-20b\)"),
        ("kimi-k2-instruct", {}, r"several groups of that recipe: kimi-a .*, kimi-b .*"),
        ("kimi-k3", {}, "none serves kimi-k3"),
        (None, {"group": "kimi-c"}, "did you mean 'kimi-b'|did you mean 'kimi-a'"),
    ],
)
def test_what_is_meant_must_be_clear(site: Path, recipe: str | None, given: dict[str, object], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        chosen(site, recipe, **given)


def test_an_inventory_whose_groups_name_no_recipe_is_one_group(site: Path) -> None:
    (site / "inventories/one.py").write_text('a = [("gpu-0", {"ssh_hostname": "192.0.2.1", "gpu": "H200", "gpus": 8})]')
    loaded = inventory_source.load(str(site / "inventories/one.py"))
    assert inventory.from_pyinfra(loaded, name="one.py").group == ""
    with pytest.raises(Refusal, match="no group names its recipe"):
        inventory.groups_of(loaded, name="one.py")


def test_data_named_after_the_inventory_that_beat_a_group_are_refused(site: Path) -> None:
    (site / "group_data/site.py").write_text("max_num_seqs = 32\n")
    with pytest.raises(Refusal, match=r"'max_num_seqs' is 64 for kimi_a and 32 for all of site\.py") as refused:
        groups(site)
    assert "move it from group_data/site.py to all.py" in str(refused.value)


def test_data_named_after_the_inventory_are_every_groups(site: Path) -> None:
    (site / "group_data/site.py").write_text("max_model_len = 65536\n")
    assert {each.settings.max_model_len for each in groups(site).values()} == {65536}


def test_hosts_that_leave_a_group_are_not_in_its_plan(site: Path) -> None:
    path = site / "inventories/site.py"
    path.write_text(HOSTS + 'leaving = ["gpu-2"]\n')
    assert [host.name for host in groups(site)["kimi_b"].hosts] == ["gpu-3"]


def test_the_files_of_a_group_are_those_that_its_hosts_have_data_from(site: Path) -> None:
    found = groups(site)
    assert [path.name for path in found["kimi_a"].files] == ["all.py", "kimi_a.py"]
    assert [path.name for path in found["chat"].files] == ["all.py"]


def test_names_are_those_of_the_plans(site: Path) -> None:
    loaded = inventory_source.load(str(site / "inventories/site.py"))
    assert inventory_groups.name_of(loaded, "kimi_a") == "kimi-a"
    assert inventory_groups.name_of(loaded, "chat") == "gpt-oss-20b"


def scope(site: Path, recipe: str | None = None, **given: object) -> inventory.Scope:
    return inventory.scope_of(inventory_source.load(str(site / "inventories/site.py"), given), recipe)


def test_a_run_touches_the_hosts_of_the_group_that_is_meant_alone(site: Path) -> None:
    found = scope(site, group="kimi-a")
    assert (found.group, found.name, sorted(found.hosts)) == ("kimi_a", "kimi-a", ["gpu-0", "gpu-1"])
    assert scope(site, "gpt-oss-20b").name == "gpt-oss-20b"
    with pytest.raises(Refusal, match=r"site\.py has several groups: kimi-a .*, kimi-b") as refusal:
        scope(site)
    assert "--group kimi-a" in str(refusal.value)
    several = inventory_source.load(str(site / "inventories/site.py"), {"group": "kimi-a"})
    assert {host.name for host in inventory.of_run(several).hosts} == found.hosts


def test_hosts_that_leave_a_group_may_be_touched_and_belong_to_no_plan(site: Path) -> None:
    (site / "inventories/site.py").write_text(HOSTS + 'leaving = ["gpu-2"]\n')
    found = scope(site, group="kimi-b")
    assert (sorted(found.members), sorted(found.hosts)) == (["gpu-2", "gpu-3"], ["gpu-3"])


def test_a_single_group_is_the_whole_inventory_and_the_hosts_say_its_name(site: Path) -> None:
    (site / "inventories/one.py").write_text(
        'a = [("gpu-0", {"ssh_hostname": "192.0.2.1", "gpu": "H200", "gpus": 8})]\nedge = [("edge-0", {})]'
    )
    found = inventory.scope_of(inventory_source.load(str(site / "inventories/one.py")))
    assert (found.group, found.name) == ("", "")
    assert (sorted(found.members), sorted(found.hosts)) == (["edge-0", "gpu-0"], ["gpu-0"])


def test_an_inventory_without_an_edge_has_none_to_bring_up(site: Path) -> None:
    path = site / "inventories/site.py"
    path.write_text(HOSTS.replace("edge = ", "unused = "))
    with pytest.raises(Refusal, match="no group `edge`"):
        inventory.edge_hosts(inventory_source.load(str(path)))
