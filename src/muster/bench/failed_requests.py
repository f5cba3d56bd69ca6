"""Why requests of `vllm bench serve` failed: a program beside the tool counts the reasons and drops the bulk.

The tool writes reasons only with `--save-detailed`, together with every token's latency and every answer: a hundred
megabytes for a long run. The program runs in the engine's Python, where the tool runs.
"""

from __future__ import annotations

from collections.abc import Sequence

FILE = "count_errors.py"
"""Name of the program in the tool's directory."""
MOST = 5
"""Different reasons that are kept."""

PROGRAM = f'''\
"""Run the tool, then keep of its details only why requests failed, and how often."""

import collections
import json
import subprocess
import sys

BULK = ("input_lens", "output_lens", "start_times", "ttfts", "itls", "latencies", "queue_times", "generated_texts")
path, command = sys.argv[1], sys.argv[2:]
status = subprocess.call(command)
try:
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
except (OSError, ValueError):
    sys.exit(status)
errors = [str(error).strip() for error in result.get("errors") or () if error]
counted = collections.Counter(error.splitlines()[-1][:300] for error in errors if error)
result["errors"] = counted.most_common({MOST})
for name in BULK:
    result.pop(name, None)
with open(path, "w", encoding="utf-8") as file:
    json.dump(result, file)
sys.exit(status)
'''


def argv(result: str, tool: Sequence[str]) -> list[str]:
    """Return the command that runs a tool and counts the reasons in its result.

    Args:
        result: path of the file that the tool writes with `--save-detailed`.
        tool: its command, with an absolute program.
    """
    return ["python", FILE, result, *tool]
