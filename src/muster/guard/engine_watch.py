"""Polls the engine: `/health` until it is up, then `/metrics` and canaries, judged by the pure `liveness`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from . import http, liveness
from .config import Config, Endpoint
from .liveness import AllAnswered, Canary, CanaryBack, LivenessEvent, Scraped, Stall, Tick, Up

HEALTH_INTERVAL = 1.0
TICK = 1.0


class EngineWatch:
    """Watches one generation's engine from the head. Start `run` once the group runs; cancel it to stop."""

    def __init__(
        self, config: Config, api_key: str, on_ready: Callable[[], None], on_stall: Callable[[str], None]
    ) -> None:
        self._config = config
        self._settings = config.settings
        self._on_ready = on_ready
        self._on_stall = on_stall
        self._headers = bearer(api_key)
        self._canaries: set[asyncio.Task[None]] = set()
        self.state = liveness.start(config.settings, config.group.dp_ranks, pinned=config.pinned)
        self._problems: dict[tuple[str, int], str] = {}

    @property
    def problem(self) -> str:
        """Why `/metrics` cannot be read, or empty."""
        return next((problem for problem in self._problems.values() if problem), "")

    async def run(self) -> None:
        """Until cancelled."""
        endpoints = self._config.endpoints
        if not endpoints:
            self._on_ready()
            return
        try:
            await asyncio.gather(*(self._up(endpoint) for endpoint in endpoints))
            self._feed(Up())
            await asyncio.gather(self._tick(), *(self._scrape(endpoint) for endpoint in endpoints))
        finally:
            for task in self._canaries:
                task.cancel()

    async def _up(self, endpoint: Endpoint) -> None:
        while not await self._healthy(endpoint):
            await asyncio.sleep(HEALTH_INTERVAL)

    async def _healthy(self, endpoint: Endpoint) -> bool:
        try:
            status, _ = await http.ask(endpoint.address, "/health", 10.0)
        except (OSError, http.HttpError, asyncio.TimeoutError):
            return False
        return status == 200

    async def _scrape(self, endpoint: Endpoint) -> None:
        while True:
            try:
                status, body = await http.ask(
                    endpoint.address, "/metrics", self._settings.metrics_timeout, self._headers
                )
                self._problems[endpoint.address] = "" if status == 200 else f"/metrics answers {status}"
                if status == 200:
                    samples = liveness.parse(body.decode("utf-8", "replace"))
                    # A host may speak for its own ranks alone.
                    self._feed(Scraped({rank: each for rank, each in samples.items() if rank in endpoint.ranks}))
            except (OSError, http.HttpError, asyncio.TimeoutError) as error:
                self._problems[endpoint.address] = f"/metrics: {error or type(error).__name__}"
            await asyncio.sleep(self._settings.metrics_interval)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._feed(Tick())

    def _feed(self, event: LivenessEvent) -> None:
        self.state, actions = liveness.step(self.state, event, time.monotonic())
        for action in actions:
            if isinstance(action, Canary):
                task = asyncio.get_running_loop().create_task(self._canary(action.rank))
                self._canaries.add(task)
                task.add_done_callback(self._canaries.discard)
            elif isinstance(action, AllAnswered):
                self._on_ready()
            elif isinstance(action, Stall):
                self._on_stall(action.reason)

    async def _canary(self, rank: int) -> None:
        endpoint = next(each for each in self._config.endpoints if rank in each.ranks)
        kind = self._config.kind
        body = kind.body(self._config.served_model_name)
        headers = {**self._headers, **kind.headers(endpoint.number(rank))}
        timeout = self._settings.canary_timeout
        try:
            status, _ = await http.ask(endpoint.address, kind.path, timeout, headers, body)
            verdict, detail = judge(status), f"HTTP {status}"
        except asyncio.TimeoutError:
            verdict, detail = "failed", f"no answer in {timeout:g} s"
        except (OSError, http.HttpError) as error:
            verdict, detail = "failed", str(error) or type(error).__name__
        self._feed(CanaryBack(rank, verdict, "" if verdict == "answered" else detail))


def bearer(api_key: str) -> dict[str, str]:
    """The header that a group with an API key asks for on every path but /health."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def judge(status: int) -> str:
    """What a canary's status says about the engine. 4xx and 503 are about the request or the load."""
    if status == 200:
        return "answered"
    return "refused" if status < 500 or status == 503 else "failed"


DRAIN_INTERVAL = 0.5
QUIET = 2
"""Scrapes in a row without a request: a single one may miss a request that has not taken its first step."""


async def drained(config: Config, api_key: str) -> None:
    """Return once the engine has no request in flight, or no longer serves.

    vLLM's own drain does not do: with several API servers (data parallel), 0.32 cuts their connection to the engine at
    TERM whatever --shutdown-timeout says, and then waits that long for idle engines.
    """
    await asyncio.gather(*(_drained(config, endpoint, api_key) for endpoint in config.endpoints))


async def _drained(config: Config, endpoint: Endpoint, api_key: str) -> None:
    quiet, timeout = 0, config.settings.metrics_timeout
    while quiet < QUIET:
        await asyncio.sleep(DRAIN_INTERVAL)
        try:
            status, body = await http.ask(endpoint.address, "/metrics", timeout, bearer(api_key))
        except ConnectionRefusedError:
            return
        except (OSError, http.HttpError, asyncio.TimeoutError):
            quiet = 0
            continue
        samples = liveness.parse(body.decode("utf-8", "replace")).values() if status == 200 else ()
        quiet = quiet + 1 if samples and not any(each.in_flight for each in samples) else 0
