"""Settings of the sandbox: vLLM's CPU build serving a tiny model, so that the production deploys run on any machine.

What differs between machines (package indexes, certificates, a proxy) is read from this machine's own settings.
"""

from muster.sandbox import serving_settings as _settings
from muster.sandbox import tiny_model as _model
from muster.sandbox import vllm_wheel as _wheel
from muster.sandbox.as_inventory import chosen_name as _chosen_name

_engine = _settings.engine(_chosen_name())

# A Llama of two layers without weights. One data parallel rank a host; it has no experts to spread.
model = _model.PATH
model_shape = _model.SHAPE
strategy = "dp-ep"
expert_parallel = False
trust_remote_code = False
max_model_len = 512
extra_args = ["--enforce-eager", "--load-format", "dummy", "--dtype", "bfloat16"]

# Every rank computes on this machine's few cores: one thread each, and one GiB of cache.
extra_env = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}

# The CPU build under vLLM's own name (src/muster/sandbox/vllm_wheel.py).
vllm_version = _wheel.VERSION
engine_requirements = [f"torch=={_wheel.TORCH}+cpu"]
overrides = list(_wheel.OVERRIDES)
python_version = _engine.python_version
torch_backend = _engine.torch_backend
index_url = _engine.index_url
extra_index_urls = list(_engine.extra_index_urls)
find_links = list(_engine.find_links)
ssl_cert_file = _engine.ssl_cert_file
proxy = _engine.proxy

# On this machine, mounted into every host: N hosts download once.
uv_cache_dir = _engine.uv_cache_dir
engine_fanout = False

# This machine asks the endpoint (`muster sandbox ask`) and the guard's /ready.
_open = _settings.open_to_this_machine(_chosen_name())
client_networks = _open["client_networks"]
monitor_networks = _open["monitor_networks"]

offline = True
ready_timeout = 1800

# One bridge on one machine: no RDMA to look for.
rdma = "off"
