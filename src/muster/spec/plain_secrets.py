"""Is a value that reaches hosts in readable files or command lines a secret? One judge for settings and recipes.

Names are judged by whole words (`DB_PASSWD` is one, `NCCL_IB_PKEY` is not) and by what vLLM itself reads as a secret;
values by addresses with a user, signed addresses, and the shapes of well-known tokens. A false alarm is waived by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from muster.errors import Refusal, literal, shown
from muster.spec.safe_text import LONGEST

KNOWN = frozenset(
    {"VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN"}
    | {"OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "S3_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"}
    | {"WANDB_API_KEY", "DD_API_KEY"}
)
"""Variables that vLLM, Ray and what they import read a secret from; no waiver makes one of them public."""
KNOWN_FLAGS = ("--api-key", "--hf-token")
"""Flags of `vllm serve` that take a secret; its parser takes a beginning of the name as well."""

_ALWAYS = frozenset(
    {"secret", "secrets", "password", "passwd", "passphrase", "pwd", "apikey", "credential", "credentials"}
    | {"bearer", "authorization", "cookie", "privatekey", "accesskey", "authtoken", "accesstoken"}
)
_ENDINGS = ("password", "passwd", "apikey", "authtoken")  # PGPASSWORD
_BEFORE_KEY = frozenset(
    {"access", "account", "admin", "api", "auth", "client", "encryption", "license", "master", "private", "service"}
    | {"shared", "signing", "ssh", "subscription"}
)
_BEFORE_TOKEN = frozenset({"access", "api", "auth", "bearer", "hf", "hub", "id", "refresh", "security", "session"})
# The words of a tokenizer, which chat templates and model overrides name.
_TEXT_TOKENS = frozenset(
    {"audio", "bos", "cls", "decoder", "draft", "end", "eos", "first", "image", "last", "mask", "next", "output", "pad"}
    | {"per", "prompt", "sep", "special", "start", "stop", "think", "tool", "unk", "video"}
)
_PLACE = frozenset({"file", "path", "dir", "directory"})  # HF_TOKEN_PATH says where a secret is
_SWITCH = re.compile(r"(?i)true|false|yes|no|on|off|auto|none|\d{1,3}|")
_USER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/\s?#\"']*)@")
_BARE_USER = re.compile(r"[^/\s:@]+:[^/\s@]+@\S+")
_QUERY = frozenset(
    {"sig", "signature", "x-amz-signature", "x-amz-credential", "x-amz-security-token", "x-goog-signature"}
)
_SHAPES = (
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{20,}")),
    ("an API key", re.compile(r"\bsk-[A-Za-z0-9_-]{20,}")),
    ("a GitHub token", re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})")),
    ("a GitLab token", re.compile(r"\bglpat-[\w-]{20,}")),
    ("an AWS key", re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a JSON web token", re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")),
    ("a bearer token", re.compile(r"(?i)\bbearer\s+[\w.~+/=-]{8,}")),
)
_DEEPEST = 20


def check_settings(flat: Mapping[str, Any], *, waived: Collection[str]) -> None:
    """Refuse settings that carry a secret to where everybody on a host can read it.

    Args:
        flat: every setting, by the name users write.
        waived: names of settings, variables or flags that look like one and are none.

    Raises:
        Refusal: naming the setting, and the variable or flag; never the value.
    """
    for name, value in flat.items():
        if name == "extra_env":
            for variable, text in value.items():
                _refuse("extra_env", variable, _in_variable(variable, text), waived, known=variable in KNOWN)
        elif name == "extra_args":
            check_words(value, where=name, waived=waived)
        else:
            for text in _texts(value):
                _refuse(name, name, in_text(text), waived)


def check_words(words: Sequence[str], *, where: str, waived: Collection[str]) -> None:
    """Refuse words of a command line that carry a secret.

    Args:
        words: flags and values, as one would type them.
        where: setting or file they come from.
        waived: names of flags that look like one and are none.

    Raises:
        Refusal: naming the flag; never the value.
    """
    flag = where
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            flag = name.replace("_", "-")
            following = words[at + 1] if at + 1 < len(words) and not words[at + 1].startswith("--") else ""
            why = _in_flag(flag, value if equals else following)
            _refuse(where, flag, why, waived, known=_known_flag(flag))
        _refuse(where, flag, in_text(word), waived)


def check_flags(flags: Mapping[str, Any], *, where: str, waived: Collection[str]) -> None:
    """Refuse flags of a recipe, without leading dashes, that carry a secret; as `check_words`."""
    for name, value in flags.items():
        if isinstance(value, str):
            check_words([f"--{name}={value}"], where=where, waived=waived)


def in_text(text: str) -> str:
    """Return why a text is a secret whatever it is called, or nothing."""
    text = text[:LONGEST]
    for match in _USER.finditer(text) if "://" in text and "@" in text else ():
        user, _, password = match.group(1).partition(":")
        if password or user not in ("git", ""):
            return "an address with a user or password"
    for address in re.findall(r"https?://[^\s\"']+", text):
        try:
            query = [name for name, _ in parse_qsl(urlsplit(address).query)]
        except ValueError:
            continue
        if any(name.lower() in _QUERY or named_secret(name) for name in query):
            return "a signed address"
    for what, shape in _SHAPES:
        if shape.search(text):
            return what
    return _in_json(text)


def literal_of(name: str, value: object) -> str:
    """Return a value as a message may show it: as Python writes it, unless it is a secret by name or shape."""
    secret = named_secret(name) or any(in_text(text) or _BARE_USER.match(text[:LONGEST]) for text in _texts(value))
    nested = isinstance(value, Mapping) and any(_in_variable(str(key), str(text)) for key, text in value.items())
    return "a value that may be a secret" if secret or nested else literal(value)


def named_secret(name: str) -> bool:
    """Whether a name says, by whole words, that its value is a secret."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
    if not words or words[-1] in _PLACE:
        return False
    if any(word in _ALWAYS or word.endswith(_ENDINGS) for word in words):
        return True
    before = {"key": _BEFORE_KEY, "token": _BEFORE_TOKEN}
    if any(one in before.get(two, ()) for one, two in pairwise(words)):
        return True
    if words[-1] == "key":
        return len(words) > 1
    return words[-1] == "token" and not (len(words) > 1 and words[-2] in _TEXT_TOKENS)


def _in_variable(name: str, value: str) -> str:
    elsewhere = _SWITCH.fullmatch(value) or value.startswith("/")  # a switch, or the path of a file that holds it
    if name.upper() in KNOWN or (named_secret(name) and not elsewhere):
        return "the name of a secret"
    if name.upper().endswith(("_PROXY", "_URL", "_URI")) and _BARE_USER.fullmatch(value):
        return "an address with a user or password"
    return in_text(value)


def _in_flag(name: str, value: str) -> str:
    secret = _known_flag(name) or named_secret(name.lstrip("-"))
    return "the name of a secret" if secret and not _SWITCH.fullmatch(value) else ""


def _known_flag(name: str) -> bool:
    return len(name) > 4 and any(known.startswith(name) for known in KNOWN_FLAGS)


def _in_json(text: str) -> str:
    if not text.lstrip("-abcdefghijklmnopqrstuvwxyz_=").startswith(("{", "[")):
        return ""
    try:
        value = json.loads(text[min(at for at in (text.find("{"), text.find("[")) if at >= 0) :])
    except (ValueError, RecursionError):
        return ""
    waiting, seen = [(value, 0)], 0
    while waiting:
        current, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > 10_000:
            return "JSON too deep or long to judge"
        if isinstance(current, Mapping):
            for name, inner in current.items():
                if isinstance(inner, str) and named_secret(name) and not _SWITCH.fullmatch(inner):
                    return "JSON with the name of a secret"
                waiting.append((inner, depth + 1))
        elif isinstance(current, list):
            waiting += [(inner, depth + 1) for inner in current]
    return ""


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        return [text for text in value if isinstance(text, str)]
    return []


def _refuse(where: str, name: str, why: str, waived: Collection[str], *, known: bool = False) -> None:
    if not why or (name in waived and not known):
        return
    what = f"{where} holds {shown(name)}: {why}" if name != where else f"{where} holds {why}"
    waiver = "" if known else f"; if it is none, add '{shown(name)}' to not_secret"
    raise Refusal(
        what,
        needed="no secret there: everybody on the hosts can read the files and command lines that carry it",
        fix=f"{_instead(where, name)}{waiver}",
    )


def _instead(where: str, name: str) -> str:
    if "key" in name.lower() and "api" in name.lower():
        return "set api_key_file for the API's own key, secret_env_file for others'"
    if where in ("hf_endpoint", "model"):
        return "give the hub's token in weights_token_file or secret_env_file"
    if where in ("extra_env", "extra_args") or where.startswith("recipe"):
        return "put it into the file that secret_env_file names, which only root and the engine read"
    return "put the credentials into a netrc file on the hosts"
