"""`nv-fabricmanager` of a sandbox host: prints its version; its service only sleeps."""

from __future__ import annotations

import sys

from . import gpusim


def main() -> int:
    state = gpusim.load()
    gpusim.misbehave(state, "nv-fabricmanager")
    print(f"Fabric Manager version is : {state['fabric_manager_version']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
