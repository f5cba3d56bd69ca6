"""Every setting of muster, with its default and its unit.

Change one here for all clusters, in group_data/<inventory name>.py for one cluster, or for one run with
`--data name=value`. A name that is not here is refused, so that a typing error cannot pass for a setting; your own
data may start with `x_` or `_`. What an inventory says of a host is not a setting: gpu, gpus, gpu_devices (which
of the host's GPUs, by index or UUID; the first ones when not given), fabric_address, fabric_interface, and pyinfra's
own ssh_* keys.
"""

# --- What is served -----------------------------------------------------------------------------------------------

# Recipe of a group of the inventory, where that has several (docs/fleet.md): in the group's own data, never for all.
# None: the one that the command names.
recipe = None

# Name of the group: units are called muster-<group>-*. None: the recipe's name.
group = None

# Another group on these hosts that this one replaces: what it was called before (docs/life.md). A deploy stops it, and
# takes it away once this group serves. Where it is not there nothing happens; the setting may stay. None: none.
former_group = None

# One of the recipe's variants: another checkpoint of the model, such as fp8. None: the recipe's own.
variant = None

# tp | tp-dcp | tp-pp | dp-ep, or another that the recipe has. None: the recipe's default for the GPUs, which fits them.
strategy = None

# serving (what serves people, and was seen to run) | published (the authors' command to the letter).
profile = "serving"

# What carries an engine across hosts: "ray", or "mp" (vLLM's own --nnodes with headless followers, no Ray installed).
# None: the recipe's, which is Ray for tp-pp and mp for strategies with sizes of their own.
executor = None

# Model id at the hub or a directory on the hosts. None: the recipe's.
model = None

# Name in the API. None: the recipe's, or the model id.
served_model_name = None

# 40-hex commit of the model, its code and its tokenizer. None: the pin's (`muster pin`), or the recipe's.
revision = None

# Let the model run its own Python code (--trust-remote-code), as both Kimi-K2 recipes do.
trust_remote_code = True

# Serve a model that runs its own code at no commit. The hub's account could then change what runs on every host.
allow_unpinned_code = False

# Size of another model, as in a recipe's `shape`; only for the memory table. None: the recipe's.
model_shape = None

# --- How it is served ---------------------------------------------------------------------------------------------

# Longest request, in tokens, prompt and answer together. 65536 is good for most uses and leaves more cache for
# further requests. None: the recipe's or the model's own, shortened where it does not fit, as the plan then reports.
max_model_len = None

# Tokens of one batch. 32768 suits long prompts; 16384 or 8192 take less memory for activations and answer sooner.
# None: the recipe's.
max_num_batched_tokens = None

# Requests of one batch. None: the recipe's.
max_num_seqs = None

# Share of GPU memory the engine takes, 0 to 1. 0.95 gives the largest cache and the least room for surprises.
# None: the recipe's or vLLM's own (0.92).
gpu_memory_utilization = None

# Ranks the KV cache is divided over; a divisor of TP. More tokens fit and throughput rises; check answers with an
# evaluation when you turn it on. 1 turns it off. None: the strategy's (TP for tp-pp and tp-dcp).
decode_context_parallel_size = None

# Spread the experts over all ranks where the strategy does (dp-ep). False for dense models.
expert_parallel = True

# Tool calls and separate reasoning. None: as the strategy's recipe has it.
tool_calling = None
reasoning = None

# Other features of the recipe, by name: {"spec_decoding": True} turns one on, False off.
features = {}

# Further arguments of `vllm serve`, such as ["--enable-prefix-caching"]; they replace the recipe's flag of that name.
extra_args = []

# Names of recipe flags to leave out, such as ["quantization"].
drop_args = []

# Further environment of the engine. No secrets: everybody on the hosts can read it; they go into secret_env_file.
# NCCL_IB_HCA, NCCL_IB_GID_INDEX, NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME may differ by host, given in the inventory.
extra_env = {}

# Names of variables, flags and settings that muster takes for secrets and that are none, such as ["--sort-key"].
not_secret = []

# Deploy although the memory table shows that it does not fit.
allow_oversubscription = False
# Plan a flag combination that was seen to kill engines on GPUs (plan/known_faults.py has the table); otherwise its
# cure is planned, and what cannot be cured is refused.
allow_known_fault = False

# --- Ports (TCP) --------------------------------------------------------------------------------------------------

# The endpoint, on the head.
port = 8000

# Handshake of data parallel ranks, on the head.
rpc_port = 29550

# Rendezvous of the mp executor, on the head.
master_port = 29501

# Ray's own store, on the head. Its other ports are fixed: 6380 to 6385 and 10002 to 19999.
ray_port = 6379

# The guard, on the head: /ready, /status, /metrics.
control_port = 29600

# With keep_weights: the guard of the daemons that keep them, on the head, as control_port. The next two are their
# rendezvous and a draft model's, on the head; the third is where each host's say that they serve, on loopback.
keep_weights_port = 29620

# Networks whose clients may reach the API, such as ["10.20.0.0/16"]. Empty: nobody but the group's hosts.
client_networks = []

# Networks whose load balancers and Prometheus may reach the guard's /ready, /status and /metrics on control_port.
monitor_networks = []

# --- The engine ---------------------------------------------------------------------------------------------------

# Exact versions. Ray is installed only where the strategy needs it; 2.52.0 is the first that asks for a token.
vllm_version = "0.33.0"
ray_version = "2.60.0"

# Python of the virtual environment, as uv takes it: a version, or a path on the hosts.
python_version = "3.12"

# A virtual environment of your own on every host; it is checked and used, never changed. None: muster installs one.
engine_path = None

# Further or other requirements, such as ["vllm @ https://mirror.example/vllm.whl"].
engine_requirements = []

# Lines for uv's --override.
overrides = []

# Package index, further indexes, directories or pages with wheels. None and []: uv's own default.
index_url = None
extra_index_urls = []
find_links = []

# Further hosts on which these indexes keep their files, such as ["files.mirror.example"]. resolutions/ beside the
# inventory keeps name, address and SHA-256 of every file of an engine; an address elsewhere is refused.
index_file_hosts = []

# CUDA build of vLLM and torch: "auto" is the newest that the oldest driver of the group runs ("cu130" from driver 580
# on, "cu129" from 525 on); plans made without asking the hosts assume the first. "cu130", "cu129" or "cpu" fix it. None
# leaves the choice to the index.
torch_backend = "auto"

# One host fetches the engine's packages and the others get them from each other, on weights_port. False: every host
# asks the index, for the same files.
engine_fanout = True

# Where vLLM's own index has the builds that the package index lacks; {version} and {build} are filled in.
vllm_index_url = "https://wheels.vllm.ai/{version}/{build}"

# uv's cache on the hosts. None: uv's default.
uv_cache_dir = None

# Bundle of certificate authorities on the hosts, for downloads behind a proxy of your own. None: the system's.
ssl_cert_file = None

# HTTP(S) proxy for downloads on the hosts, such as "http://10.0.0.9:3128". None: none.
proxy = None

# Requirements for the optional expert kernels, for dp-ep: a wheel's address or path. DeepEP also turns on its
# all-to-all; across hosts it needs NVSHMEM and two driver options (docs/settings.md). vLLM carries DeepGEMM itself.
deep_ep = None
deep_gemm = None

# Where engines lie on the hosts.
root = "/opt/muster"

# --- Weights and downloads ----------------------------------------------------------------------------------------

# The hub's cache on the hosts: about 1,029 GB for Kimi-K2-Instruct, 594 GB for Kimi-K2-Thinking. A path where nothing
# is, or a directory that belongs to the user muster: nobody else's is taken.
hf_home = "/var/lib/muster/hf"

# A mirror of the hub. None: the hub itself.
hf_endpoint = None

# True once the weights are on the hosts: nothing is fetched, and the units reach only peers and clients.
offline = False

# Who brings the weights to the hosts before the ranks start: "none" (the engine downloads them itself), "hub",
# "modelscope", "/a/directory" that the seed reads, or "control:/a/directory" on the control machine. Others than "none"
# need a pin (`muster pin`); one host fetches, the rest get it from each other. See docs/weights.md.
weights_source = "none"

# Where the revisions lie on the hosts; it and the directories above it are root's, and nobody else may write to them.
weights_root = "/var/lib/muster/weights"

# Host that fetches. None: the head, or who has most of it already.
weights_seed = None

# TCP port on the fabric address, open only while staging.
weights_port = 29610

# File on the control machine with the hub's token, which goes to https (or this machine) only. None: none.
weights_token_file = None

# Seconds after which a silent peer counts as gone, and seconds between lines of progress.
weights_patience = 60
weights_interval = 10

# What reads the weights when the engine starts: "measured" (hosts measure vLLM's loaders once, and each start takes the
# one whose slowest host is fastest) or "auto" (vLLM's own). A --load-format of yours decides before either.
weights_loader = "measured"

# Directory on the control machine made by `muster bundle`: hosts that reach nothing install from it. None: none.
bundle = None

# --- Keeping it up ------------------------------------------------------------------------------------------------

# What runs the ranks: "guard" (the group stops and starts as one) or "systemd" (plain units, for comparison).
supervisor = "guard"

# Seconds from the first start until the endpoint must answer. Loading a terabyte takes long.
ready_timeout = 3600

# Seconds that requests in flight get to finish when the group is stopped on purpose. /ready says 503 meanwhile, and an
# idle group does not wait. Plain units leave it to vLLM's --shutdown-timeout (0.20 or newer).
drain_seconds = 30

# A change that fails after it has stopped the group goes back by itself to the plan that was verified last. True leaves
# the failed plan in place, for a look.
keep_failed = False

# Keep the weights on the GPUs while the engine starts anew: a crash then costs no load (vLLM 0.33; docs/weights.md).
keep_weights = False

# Whether each guard keeps the files of the weights in the page cache while the engine serves, where memory allows, so
# that the next start does not wait for the disk. For models that are a directory on the hosts (docs/weights.md).
keep_page_cache = True

# Seconds that an engine with work in flight may go without a token until the guard calls it hung.
stall_timeout = 120

# Seconds an idle rank may go without proof of life until the guard asks it for three tokens.
canary_idle = 30

# Whether each host keeps a process that has done the next engine's imports (1 GB of memory, no GPU): after a failure
# the engine answers 20 s and more earlier. vLLM 0.33 or newer, with the guard, not with Ray.
warm_standby = True

# File on the control machine with `VLLM_API_KEY=...`; goes to the hosts over SSH, readable by root only. None: open
# to everybody that client_networks lets in. With a key every path asks for it but /health: a Prometheus that reads the
# engine's own /metrics must carry it (`authorization` in its scrape configuration).
api_key_file = None

# File on the control machine with further secrets of the engine, one NAME=value a line (HF_TOKEN=...). It goes to the
# hosts as api_key_file does; only root, and the engine's processes in their environment, get it. None: none.
secret_env_file = None

# --- Preflight (docs/preflight.md has the checks) ------------------------------------------------------------------

# Names of checks that stop nothing; every report shows them.
preflight_waive = []

# Measure the fabric between each two hosts, and run an all-reduce with the installed engine's own torch.
preflight_pairs = True
preflight_nccl = False

# TCP port that pairs and the all-reduce meet on, on the fabric addresses.
preflight_port = 29650

# "auto" reports what is there, "required" fails without RDMA, "off" does not look.
rdma = "auto"

# --- Monitoring (docs/monitoring.md) --------------------------------------------------------------------------------

# Seconds between two scrapes of a target.
monitoring_interval = 15

# Seconds that a fault lasts until its alert fires. Alerts that wait longer or shorter keep their proportion to it.
monitoring_patience = 300

# Days that Prometheus keeps what it scraped.
monitoring_retention_days = 30

# Where alerts' links lead: an address or path of docs/runbook.md; each alert adds its section.
monitoring_runbook = "docs/runbook.md"

# https:// addresses whose certificates are watched, such as the proxy's before the group. []: none.
monitoring_https = []

# TCP port of NVIDIA's DCGM exporter, where your GPU hosts run one. None: what muster's own timer reads of nvidia-smi.
monitoring_dcgm_port = None

# Your alertmanager.yml on the control machine: who is told, and how. None: an example that tells nobody.
monitoring_alertmanager_file = None

# --- The edge (docs/edge.md) ----------------------------------------------------------------------------------------

# TCP port at which clients reach the edge, with TLS.
edge_port = 443

# TCP port at which monitor_networks of the groups, and nobody else, read the edge's metrics (/metrics) and the fleet's
# page (/).
edge_monitor_port = 8405

# DNS names that clients call it by; its certificate must be for each. []: no edge can be deployed.
edge_names = []

# PEM files on the control machine: the certificate with its chain, and its private key, which goes to the edge hosts
# over SSH, readable by root only.
edge_certificate_file = None
edge_certificate_key_file = None

# Offer HTTP/2 besides HTTP/1.1. Needs an HAProxy with Lua, as Debian, Ubuntu and Red Hat build it.
edge_http2 = True

# Which of a model's endpoints gets a request: "least" (the one with the fewest), "session" (always the same one for a
# value of edge_session_header, so that its prefix is in the cache; without the header any) or "prefix" (always the
# same one for what the prompt begins with, the first edge_prefix_bytes of it; docs/edge.md).
edge_balance = "least"
edge_session_header = "X-Session-ID"
edge_prefix_bytes = 1024

# With "prefix": it names the DP rank too, each of which has a cache of its own, where that rank has not many more
# in flight than others. False: vLLM chooses the rank by load alone.
edge_prefix_ranks = False

# Bytes of the largest request body. The edge holds a body whole while it reads the model's name.
edge_max_body = 1048576

# Connections of clients at once; requests on more are answered 429.
edge_max_connections = 4000

# Requests at once per endpoint; of a model as many again wait, each at most edge_queue_seconds, and more are answered
# 429. None: what the engine runs at once by its plan, max_num_seqs (vLLM's default is 1,024) on each DP rank.
edge_max_requests = None
edge_queue_seconds = 30

# Seconds that a client or an engine may be silent within a request.
edge_silence = 600

# --- Measuring it -------------------------------------------------------------------------------------------------

# What `muster eval` installs on the head, beside the engine. []: lm-eval[api]==0.4.13.
eval_requirements = []

# Directory on the head with GSM8K, readable by everybody, for hosts that reach no hub. None: lm_eval fetches it.
gsm8k_path = None

# Oldest GPU driver accepted, such as "580". None: what the vLLM build needs.
min_driver = None
