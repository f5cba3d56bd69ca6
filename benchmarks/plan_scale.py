"""How long a plan takes, and how much memory, from 16 to 1,000 hosts of 8 GPUs.

    python benchmarks/plan_scale.py

Each size runs in a process of its own, so that peaks do not add up. Target: 1,000 hosts in 2 s and 200 MB, and
growth in proportion to the hosts.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

SIZES = (16, 64, 256, 1000)


def measure(count: int) -> dict[str, float]:
    """Plan `count` hosts once and return seconds of planning and the process's peak memory in MB."""
    from muster.plan.make import build_plan
    from muster.spec import recipe
    from muster.spec.host import HostSpec
    from muster.spec.settings import Settings

    hosts = [
        HostSpec(f"h200-{i}", f"10.{i // 62500}.{i // 250 % 250}.{i % 250 + 1}", "eth1", "H200", 8)
        for i in range(count)
    ]
    loaded = recipe.load("kimi-k2-instruct")
    assert loaded.shape is not None
    # The model has 384 experts, and a rank without any is refused.
    many = loaded.shape.model_copy(update={"n_routed_experts": max(384, 8 * count)})
    loaded = loaded.model_copy(update={"shape": many})
    start = time.perf_counter()
    plan = build_plan(loaded, hosts, Settings(strategy="dp-ep", offline=True, allow_oversubscription=True))
    seconds = time.perf_counter() - start
    assert len(plan.hosts) == count
    return {"hosts": count, "seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Measure every size and print the table."""
    rows = [
        json.loads(
            subprocess.run([sys.executable, __file__, str(n)], capture_output=True, text=True, check=True).stdout
        )
        for n in SIZES
    ]
    print(f"{'hosts':>6} {'seconds':>8} {'ms a host':>10} {'peak MB':>8} {'x hosts':>8} {'x time':>7}")
    for row in rows:
        ms = 1000 * row["seconds"] / row["hosts"]
        print(
            f"{row['hosts']:>6} {row['seconds']:>8.3f} {ms:>10.2f} {row['peak_mb']:>8.0f}"
            f" {row['hosts'] / rows[0]['hosts']:>8.1f} {row['seconds'] / rows[0]['seconds']:>7.1f}"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
