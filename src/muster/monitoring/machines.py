"""What each machine of a monitored group gets: packages of the distribution, files, units. Pure.

GPU metrics come from nvidia-smi through the node exporter's textfile collector. Debian and Ubuntu have no exporter for
GPUs; NVIDIA's DCGM exporter needs a repository and a daemon of its own, and others are binaries that ask nvidia-smi
just the same. This one works without the internet, and also sees the driver on the disk and the weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from muster.monitoring import configuration
from muster.monitoring.port_firewall import PortFirewall
from muster.monitoring.targets import NODE_PORT
from muster.monitoring.watched import Watched
from muster.on_host import places
from muster.on_host.hardening import DEVICES
from muster.plan.render import render
from muster.plan.types import File
from muster.spec.settings import Settings

NODE_EXPORTER, PROMETHEUS, ALERTMANAGER, BLACKBOX = (
    "prometheus-node-exporter",
    "prometheus",
    "prometheus-alertmanager",
    "prometheus-blackbox-exporter",
)
TREE = "/etc/prometheus"
FIREWALL, TIMER = "muster-metrics-firewall.service", "muster-host-metrics.timer"
METRICS_FILE = f"{places.METRICS}/muster.prom"
_MARK = "# Written by muster; a change here is undone by the next run of deploys/monitoring.py.\n"


@dataclass(frozen=True)
class Machine:
    """What one machine gets.

    Args:
        packages: of the distribution.
        early: files that are in place before the packages start their services.
        files: files that need the packages, the users that they make or their tools.
        checks: commands that must accept the files below TREE (`{tree}`) before any is written.
        units: unit -> the files after whose change it is loaded again.
    """

    packages: tuple[str, ...] = ()
    early: Mapping[str, File] = field(default_factory=dict)
    files: Mapping[str, File] = field(default_factory=dict)
    checks: tuple[tuple[str, ...], ...] = ()
    units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def before_packages(self) -> Machine:
        """What must be there before a package starts its service: files and the firewall."""
        units = {unit: paths for unit, paths in self.units.items() if unit == FIREWALL}
        return Machine(early=self.early, units=units)

    def __or__(self, other: Machine) -> Machine:
        """Return a machine that is both."""
        return Machine(
            (*self.packages, *other.packages),
            {**self.early, **other.early},
            {**self.files, **other.files},
            (*self.checks, *other.checks),
            {**self.units, **other.units},
        )


def gpu_host(settings: Settings, monitors: Collection[str], program: str) -> Machine:
    """Return what a host of a group gets.

    Args:
        settings: of the group; of one of them where the host is in several.
        monitors: addresses from which it is scraped; its exporter answers nobody else.
        program: text of the program that its timer runs.
    """
    directory = f"{settings.root}/{places.MONITORING}"
    script = f"{directory}/host_metrics.py"
    firewall = PortFirewall(
        FIREWALL, "muster_metrics", f"{directory}/firewall.nft", f"{NODE_EXPORTER}.service", required=True
    )
    guarding = firewall.files(NODE_PORT, monitors)
    arguments = (
        f"--web.listen-address=:{NODE_PORT} --collector.textfile.directory={places.METRICS}"
        f" --collector.systemd --collector.systemd.unit-include=muster-.*"
    )
    early = {
        **guarding,
        script: File(program),
        places.unit(places.MEASURE): File(render("host_metrics.service.j2", {"program": script, "devices": DEVICES})),
        places.unit(TIMER): File(render("host_metrics.timer.j2", {"seconds": settings.monitoring.interval})),
        _defaults(NODE_EXPORTER): _arguments(arguments),
    }
    return Machine(
        packages=(NODE_EXPORTER,),
        early=early,
        units={
            FIREWALL: tuple(guarding),
            TIMER: (places.unit(TIMER),),
            f"{NODE_EXPORTER}.service": (_defaults(NODE_EXPORTER),),
        },
    )


def monitor(
    watched: Watched,
    *,
    keyed: Collection[str] = (),
    api_keys: Mapping[str, str] = {},
    alertmanager: str = "",
    edges: Mapping[str, str] = {},
) -> Machine:
    """Return what the machine of Prometheus gets.

    Args:
        watched: the groups.
        keyed: other groups on this Prometheus whose engines ask for an API key.
        api_keys: group -> its key, of those that have one.
        alertmanager: the user's alertmanager.yml; empty takes the example.
        edges: name -> address of the edges before the groups.
    """
    files = {f"{TREE}/{path}": File(text) for path, text in configuration.files(watched, keyed, edges).items()}
    routes = f"{TREE}/{configuration.ALERTMANAGER}"
    # It may hold the secrets of receivers.
    files[routes] = File(alertmanager or files[routes].text, mode="640", group="prometheus")
    modules = f"{TREE}/{configuration.BLACKBOX}"
    for group, key in api_keys.items():
        files[f"{TREE}/{configuration.key_path(group)}"] = File(key, mode="640", group="prometheus")
    programs: Sequence[str] = (PROMETHEUS, ALERTMANAGER, *([BLACKBOX] if watched.monitoring.https or edges else []))
    arguments = configuration.arguments(watched.monitoring)
    read = {
        PROMETHEUS: (f"{TREE}/{configuration.PROMETHEUS}", f"{TREE}/{configuration.RULES}"),
        ALERTMANAGER: (routes,),
        BLACKBOX: (modules,),
    }
    return Machine(
        packages=tuple(programs),
        early={
            **{_defaults(name): _arguments(arguments[name]) for name in programs},
            modules: files.pop(modules),
        },
        files=files,
        checks=(
            ("promtool", "check", "config", f"{{tree}}/{configuration.PROMETHEUS}"),
            ("amtool", "check-config", f"{{tree}}/{configuration.ALERTMANAGER}"),
        ),
        units={f"{name}.service": (_defaults(name), *read[name]) for name in programs},
    )


def _defaults(package: str) -> str:
    return f"/etc/default/{package}"


def _arguments(words: str) -> File:
    return File(f'{_MARK}ARGS="{words}"\n')
