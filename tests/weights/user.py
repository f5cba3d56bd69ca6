"""pyinfra and muster as a user runs them."""

import sys
from typing import Any

from muster import settings

if "weights_source" not in settings.Settings.model_fields:

    class _Settings(settings.Settings):
        weights_source: str = "none"
        weights_root: str = "/var/lib/muster/weights"
        weights_seed: str | None = None
        weights_port: int = 29610
        weights_token_file: str | None = None
        weights_patience: int = 60
        weights_interval: int = 10
        bundle: str | None = None

    settings.Settings = _Settings  # type: ignore[misc]


def main() -> Any:
    if sys.argv[1] == "pyinfra":
        from pyinfra_cli.main import main as pyinfra

        sys.argv = sys.argv[1:]
        return pyinfra()
    from muster.cli import COMMANDS
    from muster.cli import main as muster

    COMMANDS.setdefault("pin", "muster.commands.pin:pin")
    COMMANDS.setdefault("weights", "muster.commands.weights:weights")
    COMMANDS.setdefault("bundle", "muster.commands.bundle:bundle")
    sys.argv = sys.argv[1:]
    return muster()


if __name__ == "__main__":
    main()
