"""vLLM flags that the plan alone decides: sizes, ranks, addresses, ports, who answers; in every spelling.

The plan refuses every spelling it knows before a host is asked. The installed parser has the last word: on the host it
reads the planned command with and without the user's and the recipe's words, and what it makes of these flags must be
the same (`on_host.ask_parser`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from muster.errors import Refusal


@dataclass(frozen=True)
class Reserved:
    """One flag of `vllm serve` that the plan decides.

    Args:
        flag: its long form.
        short: short forms; vLLM takes a value with or without a space after them.
        instead: what to change to get another value.
    """

    flag: str
    short: tuple[str, ...] = ()
    instead: str = "the inventory or the strategy: sizes and ranks follow from the hosts"

    @property
    def dest(self) -> str:
        """The name under which vLLM's parser keeps the value."""
        return self.flag[2:].replace("-", "_")


_LAYOUT = "strategy or executor in group_data"
_ANSWERS = "load_balancing of the recipe's strategy: the guard asks where the plan says"
_TLS = "a proxy in front of the endpoint: the guard and other ranks speak plain HTTP to it"

RESERVED = (
    Reserved("--tensor-parallel-size", ("-tp",)),
    Reserved("--pipeline-parallel-size", ("-pp",)),
    Reserved("--prefill-context-parallel-size", ("-pcp",)),
    Reserved("--decode-context-parallel-size", ("-dcp",), "decode_context_parallel_size in group_data"),
    Reserved("--data-parallel-size", ("-dp",)),
    Reserved("--data-parallel-size-local", ("-dpl",)),
    Reserved("--data-parallel-rank", ("-dpn",)),
    Reserved("--data-parallel-start-rank", ("-dpr",)),
    Reserved("--data-parallel-address", ("-dpa",), "fabric_address in the inventory"),
    Reserved("--data-parallel-rpc-port", ("-dpp",), "rpc_port in group_data"),
    Reserved("--data-parallel-backend", ("-dpb",), _LAYOUT),
    Reserved("--data-parallel-hybrid-lb", ("-dph",), _ANSWERS),
    Reserved("--data-parallel-external-lb", ("-dpe",), _ANSWERS),
    Reserved("--data-parallel-multi-port-external-lb", ("-dpm",), _ANSWERS),
    Reserved("--data-parallel-supervisor-port", (), _ANSWERS),
    Reserved("--enable-expert-parallel", ("-ep",), "expert_parallel in group_data"),
    Reserved("--distributed-executor-backend", (), "executor in group_data"),
    Reserved("--nnodes", ("-n",)),
    Reserved("--node-rank", ("-r",)),
    Reserved("--master-addr", (), "fabric_address in the inventory"),
    Reserved("--master-port", (), "master_port in group_data"),
    Reserved("--headless"),
    Reserved("--api-server-count", ("-asc",), "nothing: vLLM makes api_server_count the number of DP ranks"),
    Reserved("--host", (), "client_networks in group_data: it says who reaches the endpoint"),
    Reserved("--port", (), "port in group_data"),
    Reserved("--uds", (), "nothing: the guard and verify ask over TCP"),
    Reserved("--root-path", (), "a proxy in front of the endpoint"),
    Reserved("--ssl-keyfile", (), _TLS),
    Reserved("--ssl-certfile", (), _TLS),
    Reserved("--ssl-ca-certs", (), _TLS),
    Reserved("--ssl-cert-reqs", (), _TLS),
    Reserved("--ssl-ciphers", (), _TLS),
    Reserved("--enable-ssl-refresh", (), _TLS),
    Reserved("--served-model-name", (), "served_model_name in group_data"),
    Reserved("--api-key", (), "api_key_file in group_data: a key in a command line can be read by all"),
    Reserved("--config", (), "extra_args: the plan cannot see what a file on the hosts says"),
    Reserved("--model", (), "model in group_data"),
)
"""Read from the parsers of vLLM 0.32.0 and 0.33.0."""

DESTS = tuple(reserved.dest for reserved in RESERVED)


def check(words: Sequence[str], *, where: str) -> None:
    """Refuse words of a command line that set what the plan decides.

    Args:
        words: as the user or the recipe gives them.
        where: which setting or file they come from, for messages.

    Raises:
        Refusal: naming the word, the flag it sets, and what to change instead.
    """
    for word in words:
        reserved = reserved_by(word)
        if reserved:
            name = word.partition("=")[0]  # the value may be a secret
            named = name if name == reserved.flag else f"{name}, which is {reserved.flag}"
            raise Refusal(
                f"{where} holds {named}",
                needed="only flags that the plan does not decide by itself",
                fix=f"change {reserved.instead}",
            )


def reserved_by(word: str) -> Reserved | None:
    """Return the reserved flag that a word sets, in any spelling that vLLM's parser takes; None for all other words.

    The parser takes `_` for `-`, `--flag=value`, an unambiguous beginning of a name, `--no-flag`, and short forms with
    the value joined to them.
    """
    if not word.startswith("-") or word.lstrip("-.")[:1].isdigit() or word in ("-", "--"):
        return None
    name = word.partition("=")[0]
    if word.startswith("--"):
        name = name.replace("_", "-").partition(".")[0]
        positive = "--" + name[5:] if name.startswith("--no-") else name
        for reserved in RESERVED:
            if positive == reserved.flag:
                return reserved
        beginnings = [d for d in RESERVED if len(positive) > 4 and d.flag.startswith(positive)]
        return beginnings[0] if beginnings and not _other_flag(positive) else None
    shorts = [(short, d) for d in RESERVED for short in d.short if name == short or _joined(name, short)]
    return max(shorts, key=lambda pair: len(pair[0]))[1] if shorts else None


def _other_flag(name: str) -> bool:
    """Whether a beginning of a reserved flag's name is a flag of its own."""
    return name in {"--data", "--mode", "--enable"}


def _joined(name: str, short: str) -> bool:
    """Whether a word is a short form with its number joined to it: `-tp8`."""
    return name.startswith(short) and name[len(short) :].isdigit()


def flags(names: Iterable[str], *, where: str) -> None:
    """Refuse names of flags, without dashes in front, that the plan decides; for recipes.

    Raises:
        Refusal: as `check`.
    """
    check([f"--{name}" for name in names], where=where)
