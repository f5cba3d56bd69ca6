"""From recipe, hosts and settings to the whole plan of a group: pure, no pyinfra, no network, no clock.

prepare             recipe file, pin, bundle and staged weights -> what the plan is made from
fleet               several groups: one plan for each, and nothing of a host in two of them
make                all of it -> Plan: the one place where a deploy's decisions meet
topology            hosts -> nodes, and which hosts form no group
layout              a strategy's sizes on these hosts: ranks, engines, GPUs
strategies          the strategy: as set, or the recipe's for these GPUs and so many hosts
answered_kind       what a model answers, held against its flags
cache_size          bytes of cache: of a token, and of a request besides
gpu_memory          what one GPU must hold, in bytes and words
merged_environment  variables besides the plan's own: recipe, strategy, features, settings
merged_flags        the flags a group asks for: recipe, strategy, features, and over them the settings
draft_model         the draft of speculative decoding: its pin, its directory, its memory
own_files           where a recipe's own files are on hosts
reserved_flags      the flags that neither recipe nor user may set, in every spelling: sizes, ranks, ports
flags_in_argv       which flags the words of extra_args set, as vLLM's parser reads them
vllm_versions       which flags each version of vLLM takes: what came, went or was renamed
command_lines       `vllm serve` and `ray start`, put together from all of these
visible_paths       paths that the unit would hide from the engine
model_limits        what the model itself refuses: context, heads, experts, quantised blocks
engine_limits       context, batch and requests at once that flags set, as numbers
capacity            what a plan serves, in one line
known_faults        flag combinations that were seen to kill engines, and their cures
remote_code         whether a command line runs a model's own code
cuda_variants       which CUDA variant of the engine a driver runs
release             the engine: requirements, indexes, the directory named after them
weights_source      where the weights come from, their bytes, and how fast the way must be
load_ranks          how the ranks of a host share a load, and which skip the experts of others
loaders             which of vLLM's loaders may read the weights, and what was measured of them
cold_load           how long a host takes to read its weights from a cold disk
weights_path        where the weights lie on a host
host_plans          what each host gets: processes, secrets, files, units, ports
engine_environment  variables of an engine's processes
engine_imports      what a process imports that stands by for the next generation
group               names and sizes that all files of a group share
unit_files          units, environment files, and what a host needs besides
preload_argv        `vllm preload` from `vllm serve`, and an engine that maps what it keeps
kept_weights        which groups keep weights on their GPUs, and what each host gets for it
guard_files         the guard's program, unit and guard.json
firewall            who may open connections to which ports of a host
conflicts           values that contradict each other: ports, variables, a Ray without tokens
render              templates -> text
start_order         the order of bring-up
key_parity          whether all hosts have one guard key
plan_digest         the digest of everything that runs
manifest            what a group says of itself on each host
endpoint            a port that a host answers at
types               Plan, HostPlan, Process, File, Step, Secret, WeightsSource: what all of the above make
plan_history        the verified plans that hosts keep: which one a rollback takes, how long a start took
plan_diff           what differs between two of them
way_back            which of them a change that fails goes back to, and what is said of it
change              a change as a transaction: phases, the record on hosts, what a newcomer does
restart_decision    plan x what the hosts have -> what each host has to do, and whether the group restarts
"""
