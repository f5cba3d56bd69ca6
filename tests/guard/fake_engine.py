"""A child for loopback guards, which fails as the engine was seen to fail. Stdlib only.

    fake_engine.py FOLDER NAME [PORT RANKS] [--load-format LOADER]

Writes FOLDER/NAME-<pid>.json with its generation and loader, and leaves an orphan in a session of its own, as an
EngineCore that outlives its parent. With PORT it serves the endpoint for RANKS ranks; `FOLDER/hang` lists the ranks
whose requests hang from then on, while `/health` stays 200, which it is not while `FOLDER/loading` exists. Once
`FOLDER/NAME.dead` exists it logs that a worker is dead, as vLLM does, and lives on. Where `FOLDER/says-loaded`
exists it logs that its weights are loaded.
"""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LOADER = sys.argv.pop() if sys.argv[-2:-1] == ["--load-format"] else ""
if LOADER:
    sys.argv.pop()
FOLDER, NAME = Path(sys.argv[1]), sys.argv[2]


class Endpoint(BaseHTTPRequestHandler):
    tokens: dict = {}

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer("", 503 if (FOLDER / "loading").exists() else 200)
        lines = []
        for rank, tokens in self.tokens.items():
            label = f'{{engine="{rank}",model_name="m"}}'
            lines += [f"vllm:generation_tokens_total{label} {tokens}", f"vllm:num_requests_running{label} 0.0"]
        self.answer("\n".join(lines) + "\n")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != "Bearer " + os.environ["VLLM_API_KEY"] or body["model"] != "m":
            self.answer("", 401)
            return
        rank = int(self.headers["X-data-parallel-rank"])
        hang = FOLDER / "hang"
        while hang.exists() and str(rank) in hang.read_text().split():
            time.sleep(0.1)
        self.tokens[rank] += 1
        self.answer("{}")

    def answer(self, text: str, status: int = 200) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: object) -> None:
        pass


def main() -> None:
    if len(sys.argv) == 3 or sys.argv[3] != "orphan":
        subprocess.Popen([sys.executable, __file__, str(FOLDER), NAME, "orphan"], start_new_session=True)
    record = {
        "generation": os.environ["MUSTER_GENERATION"],
        "pid": os.getpid(),
        "at": time.monotonic(),
        "loader": LOADER,
    }
    kind = "orphan" if sys.argv[3:4] == ["orphan"] else "child"
    draft = FOLDER / f"{NAME}-{kind}-{os.getpid()}.new"
    draft.write_text(json.dumps(record))
    draft.rename(draft.with_suffix(".json"))
    print(f"{NAME} {kind} started", flush=True)
    if len(sys.argv) == 5:
        Endpoint.tokens = dict.fromkeys(range(int(sys.argv[4])), 0)
        server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3])), Endpoint)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    said = os.environ.get("VLLM_LOGGING_PREFIX", "") + f"(EngineCore pid={os.getpid()})"
    if kind == "child" and (FOLDER / "says-loaded").exists():
        print(f"{said} INFO 11-26 10:44:43 [default_loader.py:430] Loading weights took 0.10 seconds", flush=True)
    dead = FOLDER / f"{NAME}.dead"
    while True:
        if kind == "child" and dead.exists():
            dead.unlink()
            record = "ERROR 11-26 10:44:43 [multiproc_executor.py:380] Worker proc VllmWorker-1 died unexpectedly"
            print(f"{said} {record}", flush=True)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
