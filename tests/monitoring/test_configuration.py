"""The files for a Prometheus: what is scraped, with which labels, and what Prometheus and Alertmanager say of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from muster.cli import main
from muster.errors import Refusal
from muster.monitoring import configuration
from muster.monitoring.monitor_access import require_access, require_edge_access
from muster.monitoring.rules import ALERTS
from muster.monitoring.targets import targets_of
from muster.monitoring.watched import Watched
from muster.spec.settings import Settings
from tests.sample_plans import plan

from . import prometheus_tools

INVENTORY = Path(__file__).parents[2] / "inventories" / "h200-16.py"
GROUP = "kimi-k2-instruct"
EDGES = {"edge-0": "198.51.100.30"}


def scraped(settings: Settings, **more: object) -> dict[str, list[tuple[str, dict[str, str]]]]:
    found = targets_of(plan(GROUP, 2, "H200", **more), settings)
    return {kind: [(each.at, dict(each.labels)) for each in targets] for kind, targets in found.items()}


def test_guard_engine_and_hosts_are_scraped_as_planned() -> None:
    head = {"group": GROUP, "host": "h200-0"}
    assert scraped(Settings(monitoring_dcgm_port=9400)) == {
        "guard": [("198.51.100.1:29600", head)],
        "engine": [("198.51.100.1:8000", {**head, "rank": "0"})],
        "node": [
            ("198.51.100.1:9100", {**head, "rank": "0"}),
            ("198.51.100.2:9100", {"group": GROUP, "host": "h200-1", "rank": "1"}),
        ],
        "dcgm": [
            ("198.51.100.1:9400", {**head, "rank": "0"}),
            ("198.51.100.2:9400", {"group": GROUP, "host": "h200-1", "rank": "1"}),
        ],
    }


def test_ports_are_the_plans() -> None:
    found = scraped(Settings(port=8100, control_port=29700), port=8100, control_port=29700)
    assert found["guard"][0][0] == "198.51.100.1:29700"
    assert found["engine"][0][0] == "198.51.100.1:8100"


def test_plain_units_have_no_guard_to_scrape() -> None:
    assert set(scraped(Settings(), supervisor="systemd")) == {"engine", "node"}


def test_the_guard_of_kept_weights_speaks_for_a_group_of_its_own() -> None:
    kept: dict[str, object] = {"keep_weights": True, "strategy": "dp-ep", "offline": True, "model": "/srv/m"}
    targets = targets_of(plan(GROUP, 2, "H200", **kept), Settings())["guard"]
    assert [(each.host, each.port, dict(each.labels)["group"]) for each in targets] == [
        ("h200-0", 29600, GROUP),
        ("h200-0", 29620, f"{GROUP}-weights"),
    ]


def test_every_host_that_answers_is_scraped() -> None:
    hybrid = plan("tests/recipes/qwen3-235b.yaml", 2, "H200", strategy="each-answers")
    assert [each.host for each in targets_of(hybrid, Settings())["engine"]] == ["h200-0", "h200-1"]


def test_a_key_makes_a_job_of_its_own_for_each_group() -> None:
    text = configuration.prometheus(Settings().monitoring, ["b", "a"])
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    assert jobs["muster-engine-a"]["authorization"] == {"credentials_file": "muster/keys/a"}
    assert jobs["muster-engine-a"]["file_sd_configs"] == [{"files": ["muster/targets/a.keyed.json"]}]
    assert "muster-engine-b" in jobs
    assert "authorization" not in jobs["muster-engine"]


def write(directory: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"api_key_file": "/k"}, {"supervisor": "systemd"}], ids=["open", "key", "plain"])
def test_prometheus_and_alertmanager_take_the_files(tmp_path: Path, more: dict[str, object]) -> None:
    settings = Settings(monitoring_https=["https://api.example"], monitoring_dcgm_port=9400, **more)
    made = plan(GROUP, 2, "H200", **more)
    write(
        tmp_path,
        {**configuration.files(Watched([(made, settings)]), edges=EDGES), configuration.key_path(GROUP): "key"},
    )
    said = prometheus_tools.run("promtool", "check", "config", "prometheus.yml", cwd=tmp_path)
    assert f"SUCCESS: {len(ALERTS)} rules found" in said
    assert "SUCCESS" in prometheus_tools.run("amtool", "check-config", "alertmanager.yml", cwd=tmp_path)


def test_the_command_writes_them_and_keeps_other_groups(tmp_path: Path) -> None:
    def wrote(*data: str) -> str:
        words = ["monitoring", str(INVENTORY), GROUP, "--out", str(tmp_path / "out")]
        ran = CliRunner().invoke(main, [*words, *(word for pair in data for word in ("--data", pair))])
        assert ran.exit_code == 0, ran.output
        return ran.output

    assert "put it, alone, into" in wrote("group=other", "api_key_file=/somewhere")
    wrote()
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names >= {
        "prometheus.yml",
        "alertmanager.yml",
        "muster/rules.yml",
        "grafana/muster/fleet.json",
        "grafana/provisioning/dashboards/muster.yaml",
        f"muster/targets/{GROUP}.engine.json",
        "muster/targets/other.keyed.json",
    }
    assert "muster-engine-other" in (tmp_path / "out" / "prometheus.yml").read_text()
    guard = json.loads((tmp_path / "out" / f"muster/targets/{GROUP}.guard.json").read_text())
    assert guard[0]["labels"]["group"] == GROUP


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "monitor_networks"),
        ({"monitor_networks": ["203.0.113.0/24"]}, "client_networks"),
        ({"monitor_networks": ["203.0.113.0/24"], "client_networks": ["203.0.113.9"]}, ""),
    ],
)
def test_a_monitor_that_the_hosts_keep_out_is_refused(settings: dict[str, list[str]], says: str) -> None:
    made = plan(GROUP, 2, "H200", **settings)
    if not says:
        require_access(made, Settings(**settings), {"mon": "203.0.113.9"})
        return
    with pytest.raises(Refusal, match=f"in no network of {says}"):
        require_access(made, Settings(**settings), {"mon": "203.0.113.9"})


def test_a_host_of_the_group_may_be_the_monitor() -> None:
    require_access(plan(GROUP, 2, "H200"), Settings(), {"mon": "198.51.100.2"})


def test_an_edge_is_scraped_and_its_certificate_read() -> None:
    settings = Settings(edge_port=8443, edge_monitor_port=8406)
    files = configuration.files(Watched([(plan(GROUP, 2, "H200"), settings)]), edges=EDGES)
    (metrics,) = json.loads(files["muster/targets/edge-0.edge.json"])
    assert metrics == {"targets": ["198.51.100.30:8406"], "labels": {"host": "edge-0"}}
    (read,) = json.loads(files["muster/targets/edge-0.certificate.json"])
    assert read["targets"] == ["198.51.100.30:8443"]
    modules = yaml.safe_load(files[configuration.BLACKBOX])["modules"]
    assert read["labels"]["__param_module"] in modules
    assert modules.keys() == {"http_2xx", "edge_certificate"}


def test_the_command_names_the_inventorys_edges(tmp_path: Path) -> None:
    inventory = tmp_path / "mine.py"
    inventory.write_text(
        'gpu = ([("g0", {"fabric_address": "198.51.100.1"})], {"gpu": "H200", "gpus": 8})\n'
        'edge = [("edge-0", {"fabric_address": "198.51.100.30"})]\n'
    )
    words = ["monitoring", str(inventory), "kimi-k2-thinking", "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(main, words)
    assert ran.exit_code == 0, ran.output
    assert "198.51.100.30:8405" in (tmp_path / "out" / "muster/targets/edge-0.edge.json").read_text()


def test_a_monitor_that_an_edge_keeps_out_is_refused() -> None:
    require_edge_access([Settings(), Settings(monitor_networks=["198.51.100.0/24"])], {"mon": "198.51.100.2"})
    with pytest.raises(Refusal, match="the edge drops"):
        require_edge_access([Settings(monitor_networks=["203.0.113.0/24"])], {"mon": "198.51.100.2"})
