"""What an edge host gets: HAProxy of the distribution, its files, its unit. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from muster.edge import haproxy_files
from muster.edge.edge_plan import EdgePlan
from muster.monitoring.machines import Machine
from muster.on_host import edge_places
from muster.plan.types import File

HAPROXY = "haproxy"


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
    return Machine(
        packages=(HAPROXY,),
        files=files,
        checks=(("/usr/sbin/haproxy", "-c", "-q", "-f", f"{{tree}}/{haproxy_files.CONFIGURATION}"),),
        units={f"{HAPROXY}.service": tuple(files)},
    )
