"""A secret fails closed: a file that is not one key stops the deploy, and every reader gets the same key."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.guard import credentials
from muster.guard.endpoint_kinds import KINDS
from muster.hosts.secret_store import open_store
from muster.on_host import api_key, verify_group
from muster.plan.make import build_plan
from muster.spec import recipe, secret_files
from muster.spec.host_data import same_on_all, settings_of
from tests import sample_observations, sample_plans


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no key"),
        ("\n\n", "holds no key"),
        ("# VLLM_API_KEY=sesame\n", "holds no key"),
        ("VLLM_API_KEY=\n", "an empty key"),
        ('VLLM_API_KEY=""\n', "an empty key"),
        ("VLLM_API_KEY='  '\n", "readers take differently"),
        ('VLLM_API_KEY="correct horse"\n', "readers take differently"),
        ("VLLM_API_KEY=correct horse\n", "readers take differently"),
        ("VLLM_API_KEY=sesame # mine\n", "readers take differently"),
        ("VLLM_API_KEY='se\"same'\n", "readers take differently"),
        ("VLLM_API_KEY=se\\same\n", "readers take differently"),
        ("VLLM_API_KEY=sésame\n", "readers take differently"),
        ("VLLM_API_KEY=one\nVLLM_API_KEY=two\n", "holds 2 lines"),
        ("one\ntwo\n", "holds 2 lines"),
        ("OPENAI_API_KEY=sesame\n", "sets another variable"),
    ],
)
def test_a_file_that_is_not_one_key_is_refused_before_anything_stops(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "api.env"
    file.write_text(text)
    plan = sample_plans.plain("kimi-k2-thinking", 1, "H200", api_key_file=str(file))
    with pytest.raises(Refusal, match=says) as refusal:
        open_store(plan, sample_observations.as_planned(plan))
    assert "sesame" not in str(refusal.value)
    assert "horse" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "VLLM_API_KEY=sesame",
        "VLLM_API_KEY=sesame\n",
        "VLLM_API_KEY=sesame\r\n",
        "# ours\n\nVLLM_API_KEY = 'sesame'\n",
        'export VLLM_API_KEY="sesame"\n',
        "sesame\n",
        "  sesame  \n",
    ],
)
def test_every_way_to_write_a_key_is_shipped_in_one_form(tmp_path: Path, text: str) -> None:
    file = tmp_path / "api.env"
    file.write_text(text)
    plan = sample_plans.plain("kimi-k2-thinking", 1, "H200", api_key_file=str(file))
    assert open_store(plan, sample_observations.as_planned(plan)).texts == {plan.api_key_path: "VLLM_API_KEY=sesame\n"}


@pytest.mark.parametrize("broken", [b"\xff\xfe", b"a" * 100_000, None])
def test_a_file_that_is_no_text_or_endless_is_refused(tmp_path: Path, broken: bytes | None) -> None:
    if broken is None:
        file = Path("/dev/zero")
    else:
        file = tmp_path / "api.env"
        file.write_bytes(broken)
    with pytest.raises(Refusal):
        secret_files.api_key(secret_files.read(str(file)), where="api.env")


@given(st.text(max_size=60))
def test_what_is_shipped_reads_back_as_the_same_key_on_the_host(tmp_path_factory: Any, text: str) -> None:
    try:
        shipped = secret_files.api_key(text, where="f")
    except Refusal:
        return
    file = tmp_path_factory.mktemp("host") / "secrets.env"
    file.write_text(shipped)
    assert shipped == f"VLLM_API_KEY={api_key.read(str(file))}\n"


@pytest.mark.parametrize("text", ["", "VLLM_API_KEY=\n", "#\nVLLM_API_KEY=x\n", "VLLM_API_KEY=x", 'VLLM_API_KEY="x"\n'])
def test_a_host_s_program_takes_no_other_form_for_no_key(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secrets.env"
    file.write_text(text)
    with pytest.raises(ValueError, match="deploy again"):
        api_key.read(str(file))
    with pytest.raises(OSError, match="cannot be read"):
        api_key.read(str(tmp_path / "none"))


@pytest.mark.parametrize("kept", ["", "abc", "\n", "g" * 64 + "\n"])
def test_a_random_secret_that_a_cut_run_left_half_written_is_made_again(state: Path, kept: str) -> None:
    plan = sample_plans.plan("kimi-k2-thinking", 1, "H200")
    place = state / "muster" / plan.group / "guard-key"
    place.parent.mkdir(parents=True)
    place.write_text(kept)
    store = open_store(plan, sample_observations.fresh(plan))
    assert len(store.texts[plan.secrets[0].path].strip()) == 64


class Endpoint(http.server.BaseHTTPRequestHandler):
    """An API that asks for a key, or one that lets everybody in."""

    def _answer(self) -> None:
        server: Any = self.server
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        welcome = not server.closed or self.headers.get("Authorization") == "Bearer sesame"
        body = b'{"data": [{"id": "m"}], "choices": [{"text": "9"}]}' if welcome else b"{}"
        self.send_response(200 if welcome else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.closed = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("closed", [True, False])
def test_verify_sees_401_without_the_key_and_200_with_it(endpoint: Any, tmp_path: Path, closed: bool) -> None:
    endpoint.closed = closed
    file = tmp_path / "secrets.env"
    file.write_text("VLLM_API_KEY=sesame\n")
    request = {
        "units": [],
        "processes": [],
        "url": f"http://127.0.0.1:{endpoint.server_address[1]}",
        "model": "m",
        "ranks": 1,
        "first_rank": 0,
        "question": KINDS["completions"].question("m"),
        "tool_calling": True,
        "seconds": 10,
        "api_key_file": str(file),
    }
    problems = verify_group.main(request)["problems"]
    assert problems == [] if closed else "without the API key got HTTP 200" in problems[0]


TOKEN = "hf_" + "a1B2" * 8

OPEN = [
    ({"extra_args": ["--api-key", "sesame"]}, "--api-key"),
    ({"extra_args": ["--api_key=sesame"]}, "--api-key"),
    ({"extra_args": ["--api-k", "sesame"]}, "--api-k"),
    ({"extra_args": ["--hf-token", "sesame"]}, "--hf-token"),
    ({"extra_args": ["--speculative-config", '{"model": "m", "hf_token": "sesame"}']}, "JSON"),
    ({"extra_args": ['--model-loader-extra-config={"s3": [{"secretKey": "sesame"}]}']}, "JSON"),
    ({"extra_args": ["--speculative-config.hf_token", "sesame"]}, "hf-token"),
    ({"extra_env": {"HF_TOKEN": "sesame"}}, "HF_TOKEN"),
    ({"extra_env": {"hf_token": "sesame"}}, "hf_token"),
    ({"extra_env": {"VLLM_API_KEY": "sesame"}}, "VLLM_API_KEY"),
    ({"extra_env": {"DB_PASSWD": "sesame"}}, "DB_PASSWD"),
    ({"extra_env": {"PGPASSWORD": "sesame"}}, "PGPASSWORD"),
    ({"extra_env": {"AWS_ACCESS_KEY_ID": "sesame"}}, "AWS_ACCESS_KEY_ID"),
    ({"extra_env": {"HTTPS_PROXY": "http://me:sesame@10.0.0.9:3128"}}, "HTTPS_PROXY"),
    ({"extra_env": {"ALL_PROXY": "me:sesame@10.0.0.9:3128"}}, "ALL_PROXY"),
    ({"extra_env": {"HARMLESS": TOKEN}}, "a Hugging Face token"),
    ({"index_url": "https://sesame@index.example/simple"}, "index_url"),
    ({"extra_index_urls": ["https://x.example", "https://__token__:sesame@index.example/simple"]}, "extra_index_urls"),
    ({"find_links": ["https://x.example/w?X-Amz-Signature=sesame"]}, "a signed address"),
    ({"vllm_index_url": "https://sesame@wheels.example/{version}/{build}"}, "vllm_index_url"),
    ({"hf_endpoint": "https://sesame@hub.example"}, "hf_endpoint"),
    ({"proxy": "http://me:sesame@10.0.0.9:3128"}, "proxy"),
    ({"engine_requirements": ["vllm @ https://sesame@mirror.example/vllm.whl"]}, "engine_requirements"),
    ({"overrides": ["torch @ https://me:sesame@mirror.example/torch.whl"]}, "overrides"),
    ({"deep_ep": "https://sesame@mirror.example/deep_ep.whl"}, "deep_ep"),
    ({"deep_gemm": "https://mirror.example/deep_gemm.whl?token=sesame"}, "deep_gemm"),
    ({"eval_requirements": ["lm-eval @ git+https://sesame@git.example/lm-eval"]}, "eval_requirements"),
]


@pytest.mark.parametrize(("data", "says"), OPEN)
def test_no_setting_carries_a_secret_to_where_everybody_reads_it(data: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says) as refusal:
        settings_of(data)
    assert "sesame" not in str(refusal.value)
    assert TOKEN not in str(refusal.value)


@pytest.mark.parametrize(
    "data",
    [
        {"extra_env": {"NCCL_IB_PKEY": "0x8001", "NCCL_IB_GID_INDEX": "3"}},
        {"extra_env": {"TOKENIZERS_PARALLELISM": "false", "VLLM_MAX_TOKENS_PER_EXPERT_FUSED_MOE_CHUNK": "16384"}},
        {"extra_env": {"HF_TOKEN_PATH": "/etc/hub/token", "GOOGLE_APPLICATION_CREDENTIALS": "/etc/gcp.json"}},
        {"extra_env": {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}},
        {"extra_args": ["--long-prefill-token-threshold", "1024", "--return-tokens-as-token-ids", "--hf-token"]},
        {"extra_args": ["--hf-overrides", '{"eos_token": "</s>", "pad_token_id": 1}']},
        {"extra_args": ["--limit-mm-per-prompt", '{"image": 2}']},
        {"engine_requirements": ["x @ git+ssh://git@git.example/x.git"]},
        {"extra_args": ["--sort-key", "priority"], "not_secret": ["--sort-key"]},
        {"index_url": "https://team@index.example/simple", "not_secret": ["index_url"]},
    ],
)
def test_what_only_resembles_a_secret_passes_or_is_waived_by_name(data: dict[str, Any]) -> None:
    settings_of(data)


@pytest.mark.parametrize("path", ["", "  ", "\n"])
@pytest.mark.parametrize("name", ["api_key_file", "secret_env_file", "weights_token_file", "bundle"])
def test_an_empty_path_does_not_pass_for_no_key(name: str, path: str) -> None:
    with pytest.raises(Refusal, match=name):
        settings_of({name: path})


@pytest.mark.parametrize("name", ["HF_TOKEN", "VLLM_API_KEY"])
def test_what_vllm_itself_reads_as_a_secret_has_no_waiver(name: str) -> None:
    with pytest.raises(Refusal, match=name):
        settings_of({"extra_env": {name: "sesame"}, "not_secret": [name]})


@pytest.mark.parametrize(
    "data",
    [
        {"extra_env": {"HF_TOKEN": ["sesame"]}},
        {"extra_env": {"HF_TOKEN": "sesame\nX=1"}},
        {"proxy": "me:sesame@host"},
        {"hf_endpoint": "ftp://me:sesame@host"},
    ],
)
def test_a_value_that_is_refused_for_its_form_is_not_shown_where_it_may_be_a_secret(data: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refusal:
        settings_of(data)
    assert "sesame" not in str(refusal.value)


def test_a_secret_that_differs_between_hosts_is_not_shown() -> None:
    data = {"h0": {"extra_env": {"HF_TOKEN": "sesame"}}, "h1": {"extra_env": {"HF_TOKEN": "sesame2"}}}
    with pytest.raises(Refusal, match="extra_env") as refusal:
        same_on_all(data, where="inventory")
    assert "sesame" not in str(refusal.value)


def test_a_recipe_carries_no_secret_in_its_flags() -> None:
    raw = recipe.load("kimi-k2-thinking").model_dump()
    raw["flags"] = {"hf-token": "sesame"}
    with pytest.raises(Refusal, match="recipe kimi-k2-thinking holds --hf-token") as refusal:
        build_plan(recipe.parse(raw, where="r.yaml"), sample_plans.hosts(1, "H200"), settings_of({}))
    assert "sesame" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "sets no variable"),
        ("HF_TOKEN\n", "setting 1 is no NAME=value"),
        ("HF_TOKEN=\n", "HF_TOKEN without a value"),
        ("HF_TOKEN=a b\n", "HF_TOKEN to a value that"),
        ("A=1\nA=2\n", "A twice"),
        ("A-B=1\n", "setting 1 is no NAME=value"),
        ("VLLM_API_KEY=x\n", "change api_key_file"),
        ("RAY_AUTH_MODE=disabled\n", "RAY_AUTH_MODE"),
    ],
)
def test_a_file_with_further_secrets_is_refused_as_a_whole(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "engine.env"
    file.write_text(text)
    plan = sample_plans.plan("kimi-k2-thinking", 1, "H200", secret_env_file=str(file))
    with pytest.raises(Refusal, match=says):
        open_store(plan, sample_observations.fresh(plan))


@pytest.mark.parametrize("supervisor", ["guard", "systemd"])
def test_further_secrets_reach_the_engine_and_no_readable_file(
    tmp_path: Path, supervisor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "engine.env"
    file.write_text("# the hub's\nexport HF_TOKEN='" + TOKEN + "'\nDB_PASSWD=se$same#;&\n")
    plan = sample_plans.plan("kimi-k2-thinking", 1, "H200", secret_env_file=str(file), supervisor=supervisor)
    (secret,) = (secret for secret in plan.secrets if secret.kind == "environment")
    store = open_store(plan, sample_observations.fresh(plan))
    assert store.texts[secret.path] == f"DB_PASSWD=se$same#;&\nHF_TOKEN={TOKEN}\n"
    assert (secret.mode, secret.owner) == ("600", "root")
    assert TOKEN not in repr(plan)
    (unit,) = (
        file.text for path, file in plan.head.files.items() if path.endswith(".service") and "firewall" not in path
    )
    if supervisor == "systemd":
        assert f"EnvironmentFile={secret.path}\n" in unit
        return
    assert f"LoadCredential=engine-secrets:{secret.path}\n" in unit
    (tmp_path / "guard-key").write_text("k")
    (tmp_path / "engine-secrets").write_text(store.texts[secret.path])
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert credentials.read().engine == {"DB_PASSWD": "se$same#;&", "HF_TOKEN": TOKEN}


@given(st.text(max_size=60))
def test_the_guard_reads_the_same_key_as_the_host_s_programs(tmp_path_factory: Any, text: str) -> None:
    folder = tmp_path_factory.mktemp("credentials")
    (folder / "guard-key").write_text("k")
    (folder / "api-key").write_text(text, encoding="utf-8", errors="surrogatepass")

    def attempt(read: Any) -> str:
        try:
            return str(read())
        except ValueError:
            return ""

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CREDENTIALS_DIRECTORY", str(folder))
        guards = attempt(lambda: credentials.read().engine.get(credentials.API_KEY, ""))
    assert guards == attempt(lambda: api_key.read(str(folder / "api-key")))


@pytest.mark.sandbox
def test_systemd_takes_every_value_that_is_shipped_literally(sandbox: Any) -> None:
    box = sandbox("secrets", 1)
    characters = [chr(code) for code in range(0x21, 0x7F) if api_key.KEY.fullmatch(chr(code))]
    assert len(characters) == 94 - 4, "all but two quotes, the backslash and the backtick"
    values = ["".join(characters), "".join(reversed(characters))]
    values += [shape.replace("_", one) for one in characters for shape in ("_", "_a", "a_a", "a_", "__", "a=_")]
    wanted = {f"V{number}": value for number, value in enumerate(values)}
    shipped = secret_files.environment("".join(f"{name}={value}\n" for name, value in wanted.items()), where="f")
    box.exec("node0", ["/bin/sh", "-c", "umask 077; cat >/root/all.env"], stdin=shipped)
    run = ["/usr/bin/systemd-run", "--quiet", "--pipe", "--wait", "-p", "EnvironmentFile=/root/all.env", "/usr/bin/env"]
    lines = box.exec("node0", run).stdout.splitlines()
    assert wanted.items() <= dict(line.split("=", 1) for line in lines).items()
