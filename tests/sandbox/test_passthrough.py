from __future__ import annotations

from muster.sandbox import passthrough

PIP = "[global]\nindex-url = https://a.example/simple\nfind-links = /wheels\n    /more\ncert = /ca.pem\n"


def test_the_environment_beats_pips_configuration() -> None:
    pip = passthrough.pip_config([PIP])
    assert passthrough.indexes({}, pip) == passthrough.Indexes(
        index_url="https://a.example/simple",
        extra_index_urls=(),
        find_links=("/wheels", "/more"),
        ssl_cert_file="/ca.pem",
        proxy=None,
    )
    env = {"UV_INDEX_URL": "https://b.example/s", "PIP_FIND_LINKS": "/x", "SSL_CERT_FILE": "/y", "https_proxy": "p:1"}
    chosen = passthrough.indexes(env, pip)
    assert (chosen.index_url, chosen.find_links) == ("https://b.example/s", ("/x",))
    assert (chosen.ssl_cert_file, chosen.proxy) == ("/y", "p:1")


def test_pips_extra_indexes_are_left_out_and_uvs_are_kept() -> None:
    pip = passthrough.pip_config(["[global]\nextra-index-url = https://e.example/s\n"])
    assert passthrough.indexes({"PIP_EXTRA_INDEX_URL": "https://e.example/s"}, pip).extra_index_urls == ()
    assert passthrough.indexes({"UV_INDEX": "https://u.example/s"}, {}).extra_index_urls == ("https://u.example/s",)


def test_later_configuration_files_are_stronger_and_broken_ones_skipped() -> None:
    merged = passthrough.pip_config([PIP, "no section\n", "[install]\nindex-url = https://c.example/simple\n"])
    assert merged["index-url"] == "https://c.example/simple"
    assert merged["cert"] == "/ca.pem"


def test_directories_are_shown_to_the_hosts_and_addresses_are_not() -> None:
    env = {"UV_FIND_LINKS": "/wheels,https://w.example/", "PIP_INDEX_URL": "file:///srv/my%20index/simple"}
    assert passthrough.indexes(env, {}).directories == ("/srv/my index", "/wheels")
