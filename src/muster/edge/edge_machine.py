"""What an edge host gets: HAProxy of the distribution, its files, its unit. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from muster.edge import haproxy_files
from muster.edge.edge_plan import EdgePlan
from muster.monitoring.machines import Machine
from muster.monitoring.port_firewall import PortFirewall
from muster.on_host import edge_places, places
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

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": 32 << 20, "MALLOC_TRIM_THRESHOLD_": 256 << 20}
"""Variables of HAProxy's process, in bytes. Its buffers hold a whole body, which is more than a thread of it keeps: by
glibc's defaults each goes back to the kernel and is fetched again, 731 page faults a request with HAProxy 2.6.12 and
`edge_max_body` of 1 MiB, for which the first token waits. mallopt(3) has both; the first is at its maximum.
"""
DROP_IN = places.unit(f"{HAPROXY}.service.d/muster.conf")


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
    variables = "".join(f"Environment={name}={value}\n" for name, value in ENVIRONMENT.items())
    return Machine(
        packages=(HAPROXY, "nftables"),
        # In force from a start on, and none is made for it: that would cut what is open.
        early={DROP_IN: File(f"# Written by muster: HAProxy keeps the memory of its buffers.\n[Service]\n{variables}")},
        files={**guarding, **files},
        checks=(("/usr/sbin/haproxy", "-c", "-q", "-f", f"{{tree}}/{haproxy_files.CONFIGURATION}"),),
        units={FIREWALL.unit: tuple(guarding), f"{HAPROXY}.service": tuple(files)},
    )
