"""What an edge host gets: HAProxy of the distribution, its files, its unit. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from muster.edge import haproxy_files
from muster.edge.edge_plan import EdgePlan
from muster.monitoring.machines import Machine
from muster.monitoring.port_firewall import PortFirewall
from muster.on_host import edge_places
from muster.plan.types import File

HAPROXY = "haproxy"
FIREWALL = PortFirewall(
    "muster-edge-firewall.service",
    "muster_edge",
    f"{edge_places.TREE}/{edge_places.OWN}/firewall.nft",
    f"{HAPROXY}.service",
    # HAProxy itself refuses others too: clients go on without it.
    required=False,
)


def edge_machine(plan: EdgePlan, certificate: str, engine_keys: Mapping[str, str]) -> Machine:
    """Return what an edge host gets.

    Args:
        plan: of the edge.
        certificate: PEM with chain and private key.
        engine_keys: model -> the key of its engines.
    """
    files = {f"{edge_places.TREE}/{path}": File(text) for path, text in haproxy_files.files(plan).items()}
    secrets = {
        haproxy_files.CERTIFICATE: certificate,
        haproxy_files.ENGINE_KEYS: haproxy_files.engine_keys_map(engine_keys),
    }
    files |= {f"{edge_places.TREE}/{path}": File(text, mode="600") for path, text in secrets.items()}
    guarding = FIREWALL.files(plan.settings.monitor_port, plan.monitor_networks)
    return Machine(
        packages=(HAPROXY, "nftables"),
        files={**guarding, **files},
        checks=(("/usr/sbin/haproxy", "-c", "-q", "-f", f"{{tree}}/{haproxy_files.CONFIGURATION}"),),
        units={FIREWALL.unit: tuple(guarding), f"{HAPROXY}.service": tuple(files)},
    )
