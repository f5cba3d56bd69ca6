"""Keys of one run: every pair of hosts shares one, so that each knows whom it talks to and strangers get nothing."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence


def pair_keys(hosts: Sequence[str], secret: bytes) -> dict[str, dict[str, str]]:
    """Return host -> peer -> key (hexadecimal), equal on both sides of a pair.

    Args:
        hosts: names.
        secret: at least 32 random bytes, made for this run and kept by nobody.
    """

    def key(one: str, other: str) -> str:
        return hmac.new(secret, json.dumps(sorted((one, other))).encode(), hashlib.sha256).hexdigest()

    return {me: {peer: key(me, peer) for peer in hosts if peer != me} for me in hosts}
