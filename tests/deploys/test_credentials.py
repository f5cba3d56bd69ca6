"""Where keys are on real hosts, and where they are not: credentials of the unit, and the engine's environment alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploys.conftest import GROUP, GUARD_UNIT, HOSTS, GuardedTestbed

pytestmark = pytest.mark.sandbox

API_KEY = "sk-open-sesame-0123456789"
DB_PASSWD = "se$same#;&0123"
READABLE_BY_ALL = (
    "find /etc/muster /etc/systemd/system /var/lib/muster /run/muster /opt/muster/guard -type f -perm -o=r"
    " ! -name '*.pyc'"
)


def test_no_key_leaves_its_credential(guarded: GuardedTestbed, tmp_path: Path) -> None:
    (tmp_path / "api.env").write_text(f"# ours\nexport VLLM_API_KEY='{API_KEY}'\n")
    (tmp_path / "more.env").write_text(f"DB_PASSWD={DB_PASSWD}\n")
    files = {"api_key_file": str(tmp_path / "api.env"), "secret_env_file": str(tmp_path / "more.env")}
    ran = guarded.deploy(**files)
    assert guarded.status["ready"], "the guard's own canaries carry the key"
    assert not guarded.answers(), "a request without the key is refused"
    for host in HOSTS:
        key = guarded.sh(host, f"cat /etc/muster/{GROUP}/guard-key")
        assert re.fullmatch("[0-9a-f]{64}", key)
        for name in ("guard-key", "secrets.env", "engine-secrets.env"):
            assert guarded.sh(host, f"stat -c '%a %U' /etc/muster/{GROUP}/{name}") == "600 root"
        unit = guarded.sh(host, f"cat /etc/systemd/system/{GUARD_UNIT}")
        assert f"StandardInput=file:/etc/muster/{GROUP}/guard-key" in unit
        assert f"LoadCredential=api-key:/etc/muster/{GROUP}/secrets.env" in unit
        main = guarded.sh(host, f"systemctl show -P MainPID {GUARD_UNIT}")
        engine = guarded.sh(host, "pgrep -f '^/opt/standin/bin/python' | head -1")
        seen = {
            "systemctl show": guarded.sh(host, f"systemctl show {GUARD_UNIT}"),
            "command lines": guarded.sh(host, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"),
            "journal": guarded.sh(host, f"journalctl -q -o cat -u {GUARD_UNIT}"),
            "files that all may read": guarded.sh(host, f"{READABLE_BY_ALL} -exec cat {{}} +"),
            "the guard's environment": guarded.sh(host, f"tr '\\0' '\\n' </proc/{main}/environ"),
            "the run's output": ran.text,
        }
        for where, text in seen.items():
            assert text, where
            assert key not in text, where
            assert API_KEY not in text, where
            assert DB_PASSWD not in text, where
        environ = guarded.sh(host, f"tr '\\0' '\\n' </proc/{engine}/environ").splitlines()
        assert {f"VLLM_API_KEY={API_KEY}", f"DB_PASSWD={DB_PASSWD}"} <= {*environ}
        assert not any(key in line or line.startswith("CREDENTIALS_DIRECTORY") for line in environ)
        rating = guarded.sh(host, f"systemd-analyze security --no-pager {GUARD_UNIT} | tail -1")
        found = re.search(r"exposure level for \S+: ([\d.]+)", rating)
        assert found, rating
        assert float(found[1]) <= 2.0
    (tmp_path / "api.env").write_text("VLLM_API_KEY=\n")
    refused = guarded.refused(**files)
    assert "holds an empty key" in refused.text
    assert guarded.status["ready"], "the group that runs was not touched"
