"""Recipes of one's own on a sandbox with the real engine."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from muster.sandbox import tiny_model
from tests import guard_answers
from tests.engine.conftest import REPOSITORY, Real
from tests.engine.test_real_vllm import RECOVERY

NAME = "tiny"
RECIPE: dict[str, Any] = {
    "name": NAME,
    "title": "Tiny",
    "model": "org/tiny",
    "min_vllm": "0.32.0",
    "context": tiny_model.MAX_LENGTH,
    "strategies": {"tp": {"about": "One host.", "hosts": 1}},
    "defaults": {"any": "tp"},
}


class Own(Real):
    """Hosts that serve recipes of one's own, one after the other."""

    def place(self, name: str, text: str) -> str:
        """Write a file beside the recipe and its inventory, and return its path."""
        path = self.state / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def recipe(self, **more: Any) -> str:
        """Write a recipe and its inventory, and return the recipe's path."""
        # Settings of the group `sandbox` go by the name of the inventory.
        self.place("sandbox.py", (REPOSITORY / "inventories" / "sandbox.py").read_text())
        return self.place("tiny.yaml", json.dumps({**RECIPE, **more}))

    def muster(self, command: str, recipe: str, *words: str, strategy: str = "tp") -> str:
        """Run a subcommand of muster on the recipe, and return what it printed."""
        inventory = str(self.state / "sandbox.py")
        done = self.run("muster", command, inventory, recipe, "--data", f"strategy={strategy}", *words, timeout=1500)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def post(self, path: str, **body: Any) -> Any:
        """Return the head's answer to a request."""
        with urllib.request.urlopen(self.request(path, body), timeout=120) as answer:
            return json.load(answer)

    def status(self) -> dict[str, Any]:
        return guard_answers.group_status(self.box, self.box.hosts[0].name, NAME)

    def kill_and_return(self, host: str) -> None:
        """Kill an engine's core on a host, a worker where there is none; the group comes back as a new generation."""
        before = self.status()["generation"]
        cores = ("^VLLM::EngineCore", "^VLLM::Worker")
        kill = " || ".join(f"pkill -KILL -o -f '{title}'" for title in cores)
        self.box.exec(host, ["/bin/sh", "-c", kill])
        self.wait("a new generation", lambda: self.status().get("generation") not in (None, before), RECOVERY)
        self.wait("the endpoint answers the guard", self.ready, RECOVERY)
