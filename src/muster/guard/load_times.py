"""How long an engine's processes took to load their weights, in its own words. Pure.

Only records that begin with the engine's mark are heard (`engine_deaths`): clients cannot forge them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

READ = re.compile(r"Loading weights took (\d{1,7}(?:\.\d{1,9})?) s")
"""model_loader/default_loader.py and sharded_state_loader.py (0.32, 0.33): from the files into the parameters."""
MODEL = re.compile(r"Model loading took \d{1,7}(?:\.\d{1,9})? GiB(?: memory)? and (\d{1,7}(?:\.\d{1,9})?) s")
"""v1/worker/gpu_model_runner.py (0.32), v1/worker/gpu/model_runner.py (0.33): all of it; the CPU build does not say."""


@dataclass
class LoadTimes:
    """Seconds of the slowest process that said so; None while none has."""

    read: float | None = None
    model: float | None = None

    def hear(self, text: str) -> None:
        """One record of the engine's."""
        if match := READ.match(text):
            self.read = max(self.read or 0.0, float(match[1]))
        elif match := MODEL.match(text):
            self.model = max(self.model or 0.0, float(match[1]))
