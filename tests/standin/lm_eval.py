"""A stand-in for lm_eval that asks the endpoint it is given, and finds right what a file on the host says.

/etc/standin/right is the share of right answers; with anything else in it the tool ends with 1.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

WHEEL = "lm_eval-1-py3-none-any.whl"
_PROGRAM = """\
import argparse, json, math, os, pathlib, sys, urllib.request
from concurrent.futures import ThreadPoolExecutor

def main():
    parser = argparse.ArgumentParser()
    for name in ("model", "tasks", "num_fewshot", "model_args", "output_path", "include_path", "limit"):
        parser.add_argument("--" + name)
    args = parser.parse_args()
    model = dict(pair.split("=", 1) for pair in args.model_args.split(","))
    count = int(float(args.limit))
    headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}

    def ask(number):
        body = {"model": model["model"], "prompt": "question %d" % number, "max_tokens": 1}
        request = urllib.request.Request(model["base_url"], json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["choices"][0]["text"]

    with ThreadPoolExecutor(int(model["num_concurrent"])) as pool:
        assert all(pool.map(ask, range(count)))
    right = round(float(open("/etc/standin/right").read()) * count)
    value = right / count
    scores = {}
    for name in ("strict-match", "flexible-extract"):
        scores["exact_match," + name] = value
        scores["exact_match_stderr," + name] = math.sqrt(value * (1 - value) / (count - 1))
    answer = {"results": {args.tasks: scores}, "n-samples": {args.tasks: {"original": 1319, "effective": count}}}
    out = pathlib.Path(args.output_path, "model")
    out.mkdir(parents=True)
    (out / "results_1.json").write_text(json.dumps(answer))
    return 0
"""


def wheel(directory: Path) -> None:
    """Make its wheel in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    info = "lm_eval-1.dist-info"
    with zipfile.ZipFile(directory / WHEEL, "w") as archive:
        archive.writestr("lm_eval.py", _PROGRAM)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: lm-eval\nVersion: 1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nlm_eval = lm_eval:main\n")
        archive.writestr(f"{info}/RECORD", "")
