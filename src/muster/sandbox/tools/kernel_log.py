"""`dmesg` and `journalctl -k` of a sandbox host: what the simulated driver logged, never the machine's own log."""

import json
import socket
import sys
import time

sys.path.insert(0, __file__.rpartition("/")[0])
import gpusim


def _boot():
    with open("/proc/uptime") as source:
        return time.time() - float(source.read().split()[0])


def main(argv):
    name, flags = argv[0], argv[1:]
    state = gpusim.load()
    gpusim.misbehave(state, name)
    started = _boot()
    words = dict(zip(flags, flags[1:]))
    style = words.get("-o") or words.get("--output") or ""
    style = next((flag.split("=", 1)[1] for flag in flags if flag.startswith("--output=")), style)
    for at, message in gpusim.kernel_lines(state):
        if name == "dmesg" and any(flag in ("-T", "--ctime") for flag in flags):
            print("[%s] %s" % (time.ctime(started + at), message))
        elif name == "dmesg":
            print("[%12.6f] %s" % (at, message))
        elif style == "cat":
            print(message)
        elif style == "json":
            stamp = str(int((started + at) * 1e6))
            print(json.dumps({"MESSAGE": message, "_TRANSPORT": "kernel", "__REALTIME_TIMESTAMP": stamp}))
        else:
            stamp = time.strftime("%b %d %H:%M:%S", time.localtime(started + at))
            print("%s %s kernel: %s" % (stamp, socket.gethostname(), message))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
