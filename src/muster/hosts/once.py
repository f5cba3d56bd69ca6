"""Work that whichever host asks first does for all hosts of a pyinfra run.

pyinfra runs a deploy once per host, at the same time. Nothing waits for another host: its pool may be smaller than the
group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from gevent.lock import RLock
from pyinfra.api.exceptions import DeployError
from pyinfra.api.state import State

from muster.errors import Refusal
from muster.hosts.run_words import words

Result = TypeVar("Result")


class OncePerRun(Generic[Result]):
    """Results of one kind of work, by run and by key."""

    def __init__(self) -> None:
        self._results: WeakKeyDictionary[State, dict[str, Result | DeployError]] = WeakKeyDictionary()
        self._lock = RLock()

    def get(self, state: State, key: str, make: Callable[[], Result]) -> Result:
        """Return the result of a key, made by the first host that asks.

        Args:
            state: pyinfra's, one per run.
            key: what the result is of: a recipe, a group.
            make: does the work.

        Raises:
            DeployError: `make` refused, with the same words for every host.
        """
        words.say_at_the_end()  # before hosts are asked
        with self._lock:
            results = self._results.setdefault(state, {})
            if key not in results:
                try:
                    results[key] = make()
                except Refusal as refusal:
                    results[key] = DeployError(str(refusal))
                except DeployError as error:
                    results[key] = error
                if isinstance(results[key], DeployError):
                    words.refuse()
            result = results[key]
        if isinstance(result, DeployError):
            raise result
        return result
