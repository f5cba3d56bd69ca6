"""Files with the user's secrets, read once on the control machine; what hosts get has one form.

That form is one `NAME=value` a line, nothing quoted: systemd, the guard and the host programs read it alike.
"""

from __future__ import annotations

from pathlib import Path

from muster.errors import Refusal
from muster.on_host.api_key import KEY, NAME
from muster.spec import reserved_variables, safe_text

LONGEST = 1 << 16
_CHARACTERS = "visible ASCII without blanks, quotes and backslashes"


def read(source: str) -> str:
    """Return the text of a user's file on this machine.

    Raises:
        Refusal: it cannot be read, is no text, or is too long for what it should hold.
    """
    try:
        with Path(source).expanduser().open("rb") as file:
            data = file.read(LONGEST + 1)
        text = data.decode("utf-8")
    except (OSError, RuntimeError) as error:  # RuntimeError: a `~` without a home
        why = getattr(error, "strerror", None) or str(error)
        raise Refusal(f"{source}: {why}", needed="the file with the secret, on this machine", fix="create it") from None
    except ValueError:
        raise Refusal(f"{source} is no text", needed="a file with the secret", fix="write it as UTF-8") from None
    if len(data) > LONGEST:
        raise Refusal(f"{source} is longer than {LONGEST:,} bytes", needed="a file with nothing but the secret")
    return text


def api_key(text: str, *, where: str) -> str:
    """Return the API key's file as hosts get it.

    Args:
        text: of the user's file: `VLLM_API_KEY=<key>`, or the key alone. Blank lines, comments, `export` and quotes
            around the key are left out.
        where: its name, for messages; the key itself is never in one.

    Raises:
        Refusal: no key, several, an empty one, or one that not every reader would take literally.
    """
    needed = f"one line {NAME}=<key>, or the key alone: {_CHARACTERS}"
    lines = _lines(text)
    if len(lines) != 1:
        state = "holds no key" if not lines else f"holds {len(lines)} lines that are no comments"
        raise Refusal(f"{where} {state}", needed=needed, fix=f"write the key into {where}, or unset api_key_file")
    name, equals, value = lines[0].partition("=")
    if equals and name.strip() != NAME and name.isidentifier() and name.isupper() and value:
        raise Refusal(f"{where} sets another variable", needed=needed, fix=f"call it {NAME}")
    key = _unquoted(value if equals and name.strip() == NAME else lines[0])
    if not KEY.fullmatch(key):
        raise Refusal(
            f"{where} holds an empty key" if not key else f"{where} holds a key that readers take differently",
            needed=needed,
            fix="make another, such as with `openssl rand -hex 32`",
        )
    return f"{NAME}={key}\n"


def bare_api_key(source: str | None) -> str:
    """Return the API key of a user's file, alone; empty without a file.

    Raises:
        Refusal: as `read` and `api_key`.
    """
    return api_key(read(source), where=source).strip().partition("=")[2] if source else ""


def environment(text: str, *, where: str) -> str:
    """Return the file of the engine's secret variables as hosts get it, sorted by name.

    Args:
        text: of the user's file: `NAME=value` lines; blank lines and comments, `export` and quotes are left out.
        where: its name, for messages; no value is ever in one.

    Raises:
        Refusal: no variable, one twice, no such name, or a value that not every reader would take literally.
    """
    values: dict[str, str] = {}
    for number, line in enumerate(_lines(text), 1):
        name, equals, value = line.partition("=")
        name, value = name.strip(), _unquoted(value)
        try:
            safe_text.env_name(name if equals else "")
        except ValueError as error:  # the line is not shown: it may be the secret alone
            raise Refusal(f"{where}: setting {number} is no NAME=value", needed=str(error), fix="correct it") from None
        if (instead := reserved_variables.instead_of(name)) is not None:
            raise Refusal(f"{where} sets {name}", needed="variables that the plan leaves open", fix=f"change {instead}")
        if name in values:
            raise Refusal(f"{where} sets {name} twice", needed="each variable once", fix=f"remove one from {where}")
        if not KEY.fullmatch(value):
            state = "without a value" if not value else "to a value that readers take differently"
            raise Refusal(f"{where} sets {name} {state}", needed=_CHARACTERS, fix=f"correct {name} in {where}")
        values[name] = value
    if not values:
        raise Refusal(
            f"{where} sets no variable", needed="NAME=value lines", fix="write them, or unset secret_env_file"
        )
    return "".join(f"{name}={values[name]}\n" for name in sorted(values))


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.split("\n"))
    return [line.removeprefix("export ").strip() for line in lines if line and not line.startswith(("#", ";"))]


def _unquoted(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
