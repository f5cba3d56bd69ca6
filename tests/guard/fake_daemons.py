"""The daemons of one host that keep weights, for loopback guards: they fail as `vllm preload` does. Stdlib only.

    fake_daemons.py FOLDER NAME HOSTS HEALTH_PORT SOCKETS

They serve once those of all hosts are there, since loading needs them all: /health is 200, and SOCKETS has one. Once
FOLDER/NAME.lost exists a daemon is gone: its launcher lives on, and /health is 503, as seen in vLLM 0.33.0's source.
Every life writes FOLDER/NAME-daemons-PID.json with its generation.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER, NAME, HOSTS, PORT, SOCKETS = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
GENERATION = os.environ["MUSTER_GENERATION"]


class Health(BaseHTTPRequestHandler):
    serves = False

    def do_GET(self) -> None:
        self.send_response(200 if self.serves and not (FOLDER / f"{NAME}.lost").exists() else 503)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def loaders() -> int:
    found = [path.read_text() for path in FOLDER.glob("*-daemons-*.json")]
    return sum(json.loads(text)["generation"] == GENERATION for text in found)


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    draft = FOLDER / f"{NAME}-daemons-{os.getpid()}.new"
    draft.write_text(json.dumps({"generation": GENERATION, "pid": os.getpid(), "at": time.monotonic()}))
    draft.rename(draft.with_suffix(".json"))
    while loaders() < HOSTS:
        time.sleep(0.1)
    Path(SOCKETS).mkdir(parents=True, exist_ok=True)
    (Path(SOCKETS) / f"vllm_weight_cache_{NAME}.sock").touch()
    Health.serves = True
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
