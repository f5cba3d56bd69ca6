"""How the page looks, and what a browser may do with it: one stylesheet inside the page, and nothing else. Pure."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;
--paper:#ffffff;--panel:#f2f4f7;--ink:#1a1d21;--quiet:#4d555f;--line:#c3c9d1;
--good:#0a6338;--wait:#734800;--bad:#a8001d;--link:#08509c}
@media (prefers-color-scheme:dark){:root{
--paper:#14171a;--panel:#20252b;--ink:#e8eaed;--quiet:#b0b8c2;--line:#4a525c;
--good:#62d698;--wait:#f2bd5f;--bad:#ff8f86;--link:#8fbcff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:72rem;background:var(--paper);color:var(--ink);
font:1rem/1.45 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.35rem;margin:0}
h2{font-size:1.05rem;margin:1.75rem 0 .5rem}
p{margin:.4rem 0}
ul,ol,dl{margin:0;padding:0;list-style:none}
a{color:var(--link)}
a:focus-visible{outline:3px solid var(--link);outline-offset:2px}
code{font-family:ui-monospace,monospace;font-size:.9em}
.phase{font-size:1.6rem}
.good{color:var(--good)}.wait{color:var(--wait)}.bad{color:var(--bad)}.quiet{color:var(--quiet)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.75rem 1rem}
dt{color:var(--quiet);font-size:.85rem}
dd{margin:0;font-weight:600;font-variant-numeric:tabular-nums}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(20rem,100%),1fr));gap:.5rem}
.cards li{background:var(--panel);border-left:4px solid var(--line);padding:.5rem .75rem}
.cards .troubled{border-left-color:var(--bad)}
table{border-collapse:collapse;width:100%;max-width:40rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.25rem .5rem;border-bottom:1px solid var(--line);vertical-align:top}
th:first-child,td:first-child{text-align:left;padding-left:0}
thead th{color:var(--quiet);font-size:.85rem;font-weight:400}
footer{margin-top:2rem;padding-top:.75rem;border-top:1px solid var(--line);color:var(--quiet)}
"""

_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of the page: this stylesheet; no script, image, frame, form or connection."""
