"""Faults that the matrix leaves out or cannot show to Prometheus, and how they are done on a watched group.

Each function does one and returns its undoing. Not here: weights that have changed, for none are staged on these hosts,
and metrics that are ten minutes old; promtool alone judges those alerts.
"""

from __future__ import annotations

from collections.abc import Callable

from muster.sandbox import simulated_gpus
from tests.deploys.conftest import HOSTS

from .monitored import Monitored

HEAD, MEMBER = HOSTS
EXPORTER = "prometheus-node-exporter"
AHEAD = f"""\
import http.server, re, subprocess, time, urllib.request
text = urllib.request.urlopen("http://127.0.0.1:9100/metrics").read().decode()
subprocess.run(["systemctl", "stop", "{EXPORTER}"], check=True)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ahead = f"node_time_seconds {{time.time() + 3600}}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(re.sub("(?m)^node_time_seconds .*$", ahead, text).encode())
    def log_message(self, *words):
        pass
http.server.HTTPServer(("", 9100), Answer).serve_forever()
"""

HIDDEN = """\
table ip muster-tests {{
  chain in {{
    type filter hook input priority -10; policy accept;
    ip saddr {monitor} tcp dport 8000 drop
  }}
}}
"""

Undo = Callable[[], object]


def clock_ahead(there: Monitored) -> Undo:
    """A node exporter whose clock is an hour ahead: hosts of one machine share its clock."""
    run = "cat >/run/ahead.py; systemd-run --quiet --unit=an-hour-ahead python3 /run/ahead.py"
    there.box.exec(MEMBER, ["/bin/sh", "-c", run], stdin=AHEAD)
    return lambda: there.sh(MEMBER, f"systemctl stop an-hour-ahead; systemctl start {EXPORTER}")


def gpu_gone(there: Monitored) -> Undo:
    """A GPU is gone from the bus, and the engine with it."""
    healthy = there.box.gpus(MEMBER)
    there.box.set_gpus(MEMBER, simulated_gpus.missing(healthy, 0))
    there.sh(MEMBER, "pkill -KILL -f '^VLLM::EngineCore'")
    return lambda: there.box.set_gpus(MEMBER, healthy)


def driver_upgraded(there: Monitored) -> Undo:
    """Another driver on the disk than the one that is loaded, as an unattended upgrade leaves it."""
    healthy = there.box.gpus(MEMBER)
    said = "Failed to initialize NVML: Driver/library version mismatch\n"
    there.box.set_gpus(MEMBER, simulated_gpus.command(healthy, "nvidia-smi", exit=18, stdout=said))
    return lambda: there.box.set_gpus(MEMBER, healthy)


def exporter_stopped(there: Monitored) -> Undo:
    there.sh(MEMBER, f"systemctl stop {EXPORTER}")
    return lambda: there.sh(MEMBER, f"systemctl start {EXPORTER}")


def engine_hidden(there: Monitored) -> Undo:
    """The head's engine answers everybody but Prometheus."""
    rules = HIDDEN.format(monitor=there.box.hosts[2].address)
    there.box.in_network(HEAD, ["nft", "-f", "-"], stdin=rules)
    return lambda: there.box.in_network(HEAD, ["nft", "delete", "table", "ip", "muster-tests"])
