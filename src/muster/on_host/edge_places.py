"""Where the edge's files are on its hosts: HAProxy's own directory, and muster's below it."""

TREE = "/etc/haproxy"
CONFIGURATION, OWN = "haproxy.cfg", "muster"
"""HAProxy's own file, and the directory below TREE of what is no file of the distribution's; root's."""
MODELS, ENGINE_KEYS, CERTIFICATE, PAGE, REFUSE = (
    "models.map",
    "engine-keys.map",
    "edge.pem",
    "fleet.html",
    "refuse.lua",
)
KEYS, KEYS_BEFORE, KEY_MAP, KEY_LOCK = "keys.json", "keys.good.json", "keys.map", "keys.lock"
"""Records of clients' keys, the copy that is read where they are torn, what HAProxy reads of them, and its lock."""
MOVE_LOCK = "addresses.lock"
"""Of whoever brings servers to other addresses."""
SOCKET = "/run/haproxy/admin.sock"
"""HAProxy's own, at which keys change while it runs; root's alone."""
