"""Ask a running group: does it serve the model under its name, does every rank answer, as planned?"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

from muster.on_host import api_key, systemd_units
from muster.on_host.bounded_http import Answer, Client
from muster.on_host.http_bounds import HttpError

Json = dict[str, Any]

_AT_ONCE = 32
_LARGEST_ANSWER = 4 << 20
_TOOL = {
    "type": "function",
    "function": {"name": "clock", "description": "Tell the time.", "parameters": {"type": "object", "properties": {}}},
}


def main(request: Json) -> Json:
    """Return {problems: [text], ranks: [DP rank that answered], served: [name]}.

    Args:
        request: `units` [{unit, digest, argv}] that must run here, `argv` of the main process where that is a guard;
            `processes` [{unit, argv, env, guarded}] in them. Where this host has an endpoint also `url` (the API's base
            URL), `model` (served name), `ranks` (number of DP ranks that answer there), `first_rank` (the first of
            them; the endpoint counts from 0), `tool_calling` (whether planned), `seconds` (per answer) and
            `api_key_file` (this host's environment file with VLLM_API_KEY, or None).
    """
    problems = [problem for unit in request["units"] for problem in not_as_planned(unit)]
    problems += [problem for process in request["processes"] for problem in not_running(process)]
    if not request.get("url"):
        return {"problems": problems, "ranks": [], "served": []}
    api = Api(request["url"], request["seconds"], request.get("api_key_file"))
    if api.credentials and (got := api.without_key()):
        problems.append(f"{request['url']}{got}, not HTTP 401")
    served = api.models()
    if request["model"] not in served:
        problems.append("{}/v1/models names {}, not '{}'".format(request["url"], served or "nothing", request["model"]))
        return {"problems": problems, "ranks": [], "served": served}
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        errors = list(pool.map(lambda number: api.completion(request["model"], number), range(request["ranks"])))
    answers = dict(enumerate(errors, request["first_rank"]))
    problems += [f"DP rank {rank} did not answer a completion: {error}" for rank, error in answers.items() if error]
    refused = api.tool_call(request["model"])
    if request["tool_calling"] and refused:
        problems.append(f"tool calling is planned, but a chat request with tool_choice=auto got {refused}")
    if not request["tool_calling"] and not refused:
        problems.append("tool calling is off in the plan, but a chat request with tool_choice=auto was taken")
    return {"problems": problems, "ranks": [rank for rank, error in answers.items() if not error], "served": served}


def not_as_planned(unit: Json) -> Iterator[str]:
    """Yield the problems of one planned unit: it does not run, systemd is behind its file, or it runs another plan."""
    name = unit["unit"]
    state = systemd_units.states([name]).get(name, {})
    if state.get("active") != "active":
        yield "{} is {}, not active".format(name, state.get("active", "missing"))
        return
    if state["reload"]:
        yield f"systemd holds an older {name} than its file: the next start would run something else"
    if state["digest"] != unit["digest"]:
        yield "{} runs plan {}, not {}".format(name, state["digest"] or "unknown", unit["digest"])
    argv = command_line(state["main_pid"])
    if unit["argv"] and argv != unit["argv"]:
        yield "{} is `{}`, not the planned `{}`".format(name, " ".join(argv or []), " ".join(unit["argv"]))


def not_running(process: Json) -> Iterator[str]:
    """Yield the problems of one planned process: it has another command line or environment, or is not there."""
    state = systemd_units.states([process["unit"]]).get(process["unit"], {})
    if state.get("active") != "active":
        return  # its unit has said so
    lines = command_lines(state["main_pid"])
    arguments = process["argv"][1:]
    # The command line of a script begins with its interpreter: compare what follows the program's name.
    if process["guarded"]:
        lines.pop(state["main_pid"], None)  # the guard's own ends in that of its child
    running = [pid for pid, line in lines.items() if line[-len(arguments) :] == arguments]
    if not running:
        others = list(lines.values())
        yield "{} runs `{}`, not the planned `{}`".format(
            process["unit"], " ".join(others[0]) if others else "nothing", " ".join(process["argv"])
        )
        return
    env = systemd_units.environment(running[0])
    differing = sorted(name for name, value in process["env"].items() if env.get(name) != value)
    if env and differing:
        yield "{} runs {} with other values than planned of {}".format(
            process["unit"], process["argv"][0], ", ".join(differing)
        )


def command_lines(pid: int) -> dict[int, list[str]]:
    """Return the command lines of a unit's main process and its children by process, the main process first."""
    lines, waiting = {}, [pid]
    while waiting:
        current = waiting.pop(0)
        line = command_line(current)
        if line is None:
            continue
        lines[current] = line
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{current}/task"):
                with open(f"/proc/{current}/task/{task}/children") as handle:
                    waiting += [int(child) for child in handle.read().split()]
    return lines


def command_line(pid: int) -> list[str] | None:
    """Return the command line of a process, or None where it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as handle:
            return [part.decode("utf-8", "replace") for part in handle.read().split(b"\0")[:-1]]
    except OSError:
        return None


class Api:
    """The OpenAI-compatible API, asked on its own host, without a proxy."""

    def __init__(self, url: str, seconds: float, key_file: str | None) -> None:
        self.url, self.seconds = url, seconds
        self.client = Client(redirects=0)
        self.headers = {"Content-Type": "application/json"}
        self.credentials = "Bearer " + api_key.read(key_file) if key_file else None

    def ask(self, path: str, body: Json | None = None, headers: Json | None = None) -> tuple[Json, str]:
        """Return (answer, error): the JSON object of a 200, or the status with the start of the body."""
        data = json.dumps(body).encode() if body is not None else None
        try:
            reply = self._send(path, data, {**self.headers, **(headers or {})}, self.credentials)
            answer = json.loads(reply.body)
        except HttpError as error:
            return {}, str(error) if error.status else f"{error} (asked for at most {self.seconds} s)"
        except (ValueError, RecursionError):
            answer = None
        return (answer, "") if isinstance(answer, dict) else ({}, "an answer that is no JSON object")

    def without_key(self) -> str:
        """Return "" when requests without the key are refused, as they must be, else which one got what.

        vLLM itself guards /v1 alone; /metrics is among the paths that `require_api_key` guards.
        """
        for path in ("/v1/models", "/metrics"):
            try:
                return f"{path} without the API key got HTTP {self._send(path, None, {}, None).status}"
            except HttpError as error:
                if error.status != 401:
                    return f"{path} without the API key got {error}"
        return ""

    def _send(self, path: str, body: bytes | None, headers: Json, credentials: str | None) -> Answer:
        return self.client.get(
            self.url + path,
            limit=_LARGEST_ANSWER,
            seconds=self.seconds,
            headers=headers,
            credentials=credentials,
            method="GET" if body is None else "POST",
            body=body,
        )

    def models(self) -> list[str]:
        """Return the served model names."""
        rows = self.ask("/v1/models")[0].get("data")
        return [str(row.get("id")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def completion(self, model: str, rank: int) -> str:
        """Return "" when a DP rank answers one token, else the error."""
        body = {"model": model, "prompt": "1 2 3", "max_tokens": 1, "temperature": 0}
        answer, error = self.ask("/v1/completions", body, {"X-data-parallel-rank": str(rank)})
        return error if error or answer.get("choices") else "an answer without choices"

    def tool_call(self, model: str) -> str:
        """Return "" when a request with tool_choice=auto is accepted, else the error."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "What time is it?"}],
            "tools": [_TOOL],
            "tool_choice": "auto",
            "max_tokens": 1,
        }
        return self.ask("/v1/chat/completions", body)[1]
