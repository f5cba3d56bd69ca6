"""The settings that concern weights, read out of a group's settings."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from muster.errors import Refusal
from muster.spec.settings import Settings

SOURCES = ("none", "hub", "modelscope")


@dataclass(frozen=True)
class Options:
    """What a user can say about weights.

    Args:
        source: `none` (muster stages nothing), `hub`, `modelscope`, `/path` (a directory that the seed can read, such
            as a shared file system) or `control:/path` (a directory on the control machine).
        root: directory on the hosts that holds all revisions of all models.
        seed: name of the host that fetches; None is the head, or whoever has most already.
        port: TCP, on the fabric address, open only while staging.
        token_file: file on the control machine with the hub's token; None: none.
        patience: seconds after which a silent peer counts as gone.
        interval: seconds between lines of progress.
        endpoint, proxy, ssl_cert_file: as the engine's downloads use them.
    """

    source: str = "none"
    root: str = "/var/lib/muster/weights"
    seed: str | None = None
    port: int = 29610
    token_file: str | None = None
    patience: int = 60
    interval: int = 10
    endpoint: str | None = None
    proxy: str | None = None
    ssl_cert_file: str | None = None

    @property
    def kind(self) -> str:
        """Return `none`, `hub`, `modelscope`, `directory` or `control`."""
        if self.source.startswith("control:/"):
            return "control"
        return "directory" if self.source.startswith("/") else self.source

    @property
    def path(self) -> str:
        """Return the directory of the kinds that have one."""
        return self.source.removeprefix("control:")


def of(settings: Settings) -> Options:
    """Return what the settings say about weights; a setting that this version lacks has its default.

    Raises:
        Refusal: a source that does not exist, or an endpoint that carries a password.
    """
    given = {
        name: getattr(settings, f"weights_{name}")
        for name in ("source", "root", "seed", "port", "token_file", "patience", "interval")
        if hasattr(settings, f"weights_{name}")
    }
    options = Options(
        **given, endpoint=settings.hf_endpoint, proxy=settings.proxy, ssl_cert_file=settings.ssl_cert_file
    )
    if options.kind not in (*SOURCES, "directory", "control"):
        raise Refusal(
            f"weights_source is '{options.source}'",
            needed="none, hub, modelscope, /a/directory on the hosts, or control:/a/directory",
            fix="set weights_source in group_data",
        )
    if options.endpoint and urlsplit(options.endpoint).password:
        raise Refusal(
            "hf_endpoint carries a password",
            needed="an address without one: it stands in readable files",
            fix="give a token in weights_token_file",
        )
    return options
