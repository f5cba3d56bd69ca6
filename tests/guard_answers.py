"""What a guard on a sandbox host says of its group, asked as a deploy asks: by its own command line, as root."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from muster.sandbox import Sandbox


def ask(box: Sandbox, host: str, group: str, *words: str) -> dict[str, Any]:
    """Return the answer to one `ctl` command; {"error": ...} when there is none."""
    unit, config = f"muster-{group}.service", f"/etc/muster/{group}/guard.json"
    program = f"$(grep -o '/opt/muster/guard/[0-9a-f]*' /etc/systemd/system/{unit} | head -n 1)"
    command = f"cd /; /usr/bin/python3 -I {program} ctl --config {config} {' '.join(words)}"
    try:
        answer: dict[str, Any] = json.loads(box.exec(host, ["/bin/sh", "-c", command], check=False, timeout=120).stdout)
    except ValueError:
        return {"error": "no answer"}
    return answer


def group_status(box: Sandbox, head: str, group: str) -> dict[str, Any]:
    """Return the group as its head sees it; empty while no guard answers there."""
    status: dict[str, Any] = ask(box, head, group, "status").get("group") or {}
    return status


def ready(box: Sandbox) -> bool:
    """Return whether the guard of the first host, the head, answers 200 at `/ready` right now."""
    try:
        with urllib.request.urlopen(f"http://{box.hosts[0].address}:29600/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
