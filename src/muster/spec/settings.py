"""Settings: everything a user can change, with default and unit; the rest of group_data is refused.

Users write flat names: `weights_port = 29610` in group_data, `Settings(weights_port=29610)` in code. Code reads what
belongs together as a group: `settings.weights.port`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from muster.spec import plain_secrets
from muster.spec.recipe import DEFAULT_PROFILE
from muster.spec.safe_text import (
    AbsolutePath,
    Commit,
    Dotted,
    EnvName,
    HeaderName,
    HostName,
    Line,
    LocalPath,
    ModelId,
    Name,
    Network,
    OwnDirectory,
    PathSegment,
    ServedName,
    Url,
    Version,
    Word,
    absolute_path,
)
from muster.spec.sizes import Executor

MONTH = 31 * 24 * 3600

Port = Annotated[int, Field(gt=0, lt=65536)]
Seconds = Annotated[int, Field(gt=0, le=MONTH)]
Count = Annotated[int, Field(gt=0, lt=2**31)]


_SOURCES = ("none", "hub", "modelscope")


class Group(BaseModel):
    """Settings read together; the alias of each is its flat name."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Weights(Group):
    """Who brings the weights to the hosts, and where they are kept."""

    model_config = ConfigDict(alias_generator=lambda name: f"weights_{name}")

    source: Line = "none"
    root: OwnDirectory = "/var/lib/muster/weights"
    seed: Line | None = None
    port: Port = 29610
    token_file: LocalPath | None = None
    patience: Seconds = 60
    interval: Seconds = 10
    loader: Literal["measured", "auto"] = "measured"

    @property
    def kind(self) -> str:
        """Return `none`, `hub`, `modelscope`, `directory` or `control`."""
        if self.source.startswith("control:/"):
            return "control"
        return "directory" if self.source.startswith("/") else self.source

    @property
    def path(self) -> str:
        """Return the directory of the kinds that have one."""
        return self.source.removeprefix("control:")

    @field_validator("source")
    @classmethod
    def _known_source(cls, value: str) -> str:
        if value.startswith("/"):
            return absolute_path(value)
        if value not in _SOURCES and not value.startswith("control:/"):
            raise ValueError("none, hub, modelscope, /a/directory on the hosts, or control:/a/directory")
        return value


class Preflight(Group):
    """How the hosts are checked before a deploy touches them."""

    model_config = ConfigDict(alias_generator=lambda name: f"preflight_{name}")

    waive: list[Line] = []
    pairs: bool = True
    nccl: bool = False
    port: Port = 29650
    rdma: Literal["auto", "required", "off"] = Field(default="auto", alias="rdma")


class Evaluation(Group):
    """What `muster eval` installs, and where its questions come from."""

    requirements: list[Word] = Field(default=[], alias="eval_requirements")
    gsm8k_path: AbsolutePath | None = Field(default=None, alias="gsm8k_path")


class Monitoring(Group):
    """What a Prometheus keeps of the group, and when it says so."""

    model_config = ConfigDict(alias_generator=lambda name: f"monitoring_{name}")

    interval: Seconds = 15
    patience: Seconds = 300
    retention_days: Count = 30
    runbook: Line = "docs/runbook.md"
    https: list[Url] = []
    dcgm_port: Port | None = None
    alertmanager_file: LocalPath | None = None


class Edge(Group):
    """How clients reach the groups: one address with TLS and keys."""

    model_config = ConfigDict(alias_generator=lambda name: f"edge_{name}")

    port: Port = 443
    monitor_port: Port = 8405
    names: list[HostName] = []
    certificate_file: LocalPath | None = None
    certificate_key_file: LocalPath | None = None
    http2: bool = True
    balance: Literal["least", "session", "prefix"] = "least"
    session_header: HeaderName = "X-Session-ID"
    prefix_ranks: bool = False
    prefix_bytes: int = Field(default=1 << 10, ge=16, le=1 << 16)
    max_body: int = Field(default=1 << 20, ge=1 << 12, le=1 << 26)
    max_connections: Count = 4000
    max_requests: Count | None = None
    queue_seconds: Seconds = 30
    silence: Seconds = 600


class Settings(BaseModel):
    """The settings of one group. `group_data/all.py` explains each; the two are kept equal by a test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Weights = Weights()
    preflight: Preflight = Preflight()
    evaluation: Evaluation = Evaluation()
    monitoring: Monitoring = Monitoring()
    edge: Edge = Edge()

    # What is served
    recipe: Line | None = None
    group: Name | None = None
    former_group: Name | None = None
    variant: Line | None = None
    strategy: Line | None = None
    profile: Line = DEFAULT_PROFILE
    executor: Executor | None = None
    model: ModelId | None = None
    served_model_name: ServedName | None = None
    revision: Commit | None = None
    trust_remote_code: bool = True
    allow_unpinned_code: bool = False
    model_shape: dict[Line, float] | None = None

    # How it is served
    max_model_len: Count | None = None
    max_num_batched_tokens: Count | None = None
    max_num_seqs: Count | None = None
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    decode_context_parallel_size: Count | None = None
    expert_parallel: bool = True
    tool_calling: bool | None = None
    reasoning: bool | None = None
    features: dict[Line, bool] = {}
    extra_args: list[Word] = []
    drop_args: list[Word] = []
    extra_env: dict[EnvName, Word] = {}
    not_secret: list[Line] = []
    allow_oversubscription: bool = False
    allow_known_fault: bool = False

    # Ports
    port: Port = 8000
    rpc_port: Port = 29550
    master_port: Port = 29501
    ray_port: Port = 6379
    control_port: Port = 29600
    keep_weights_port: Annotated[int, Field(gt=0, lt=65533)] = 29620
    client_networks: list[Network] = []
    monitor_networks: list[Network] = []

    # The engine
    vllm_version: Version = "0.33.0"
    ray_version: Version = "2.60.0"
    python_version: PathSegment | AbsolutePath = "3.12"
    engine_path: AbsolutePath | None = None
    engine_requirements: list[Word] = []
    overrides: list[Word] = []
    index_url: Word | None = None
    extra_index_urls: list[Word] = []
    find_links: list[Word] = []
    index_file_hosts: list[Word] = []
    torch_backend: PathSegment | None = "auto"
    engine_fanout: bool = True
    vllm_index_url: Word = "https://wheels.vllm.ai/{version}/{build}"
    uv_cache_dir: AbsolutePath | None = None
    ssl_cert_file: AbsolutePath | None = None
    proxy: Url | None = None
    deep_ep: Word | None = None
    deep_gemm: Word | None = None
    root: OwnDirectory = "/opt/muster"

    # Weights and downloads
    hf_home: OwnDirectory = "/var/lib/muster/hf"
    hf_endpoint: Url | None = None
    offline: bool = False
    bundle: LocalPath | None = None

    # Keeping it up
    supervisor: Literal["guard", "systemd"] = "guard"
    ready_timeout: Seconds = 3600
    drain_seconds: int = Field(default=30, ge=0, le=MONTH)
    keep_failed: bool = False
    keep_weights: bool = False
    keep_page_cache: bool = True
    stall_timeout: Seconds = 120
    canary_idle: Seconds = 30
    warm_standby: bool = True
    api_key_file: LocalPath | None = None
    secret_env_file: LocalPath | None = None

    # The sandbox and other odd places
    min_driver: Dotted | None = None

    def __init__(self, **flat: Any) -> None:
        super().__init__(**flat)

    @model_validator(mode="before")
    @classmethod
    def _grouped(cls, flat: Any) -> Any:
        """Move flat names into their groups."""
        if not isinstance(flat, Mapping):
            return flat
        data: dict[str, Any] = {}
        for name, value in flat.items():
            group = _GROUP_OF.get(name)
            if group is None:
                data[name] = value
            else:
                data.setdefault(group, {})[name] = value
        return data

    def flat(self) -> dict[str, Any]:
        """Return every setting under its flat name."""
        dumped = self.model_dump(by_alias=True)
        return {key: value for key, value in dumped.items() if key not in GROUPS} | {
            name: value for group in GROUPS for name, value in dumped[group].items()
        }

    def having(self, **flat: Any) -> Settings:
        """Return these settings with some replaced, by flat name, validated as if they had been written so."""
        return Settings(**{**self.flat(), **flat})

    @model_validator(mode="after")
    def _without_secrets(self) -> Settings:
        plain_secrets.check_settings(self.flat(), waived=self.not_secret)
        return self


GROUPS: dict[str, type[Group]] = {
    "weights": Weights,
    "preflight": Preflight,
    "evaluation": Evaluation,
    "monitoring": Monitoring,
    "edge": Edge,
}
_GROUP_OF = {str(field.alias): name for name, group in GROUPS.items() for field in group.model_fields.values()}
NAMES: tuple[str, ...] = (*(name for name in Settings.model_fields if name not in GROUPS), *_GROUP_OF)
"""Every setting under the flat name that users write."""
