"""`nv-fabricmanager` of a sandbox host: tells its version; the service beside it only sleeps."""

import sys

sys.path.insert(0, __file__.rpartition("/")[0])
import gpusim


def main(argv):
    state = gpusim.load()
    gpusim.misbehave(state, "nv-fabricmanager")
    print("Fabric Manager version is : %s" % state["fabric_manager_version"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
