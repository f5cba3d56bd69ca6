"""What a terminal or a browser would act on, taken out of text that hosts and engines wrote. Pure.

Logs, error messages and names come from machines that may be in other hands. A terminal obeys escape sequences in them:
they set its title, fill the clipboard, hide or forge lines.
"""

from __future__ import annotations

import re

# What follows an introducer is a command up to its terminator; payloads hold no control characters.
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])(?:[^\x00-\x1f\x7f-\x9f]{0,4096}(?:\x07|\x1b\\|\x9c))?"
_CSI = r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,16}[@-~]?"
_OTHER = r"\x1b[ -/]{0,16}[0-~]?"
_SEQUENCE = re.compile(f"{_STRING}|{_CSI}|{_OTHER}")
# Further controls, what moves text to another place in its line, and halves of characters, which cannot be printed.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """A text that a terminal only shows; lines and tabs stay, other control characters become U+FFFD."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub("\ufffd", _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", " "))


def one_line(text: str, limit: int = 500) -> str:
    """A text as one line of at most `limit` characters."""
    line = " ".join(printable(text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
