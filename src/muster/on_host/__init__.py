"""Programs that run on the hosts' own Python: standard library only, Python 3.9 to 3.13, `main(request) -> answer`.

What the programs share:
    places             every place that muster makes on a host
    path_users         units, group files and processes that name a path
    disk_usage         bytes that paths take
    run_command        run a tool, bounded in time and output
    systemd_units      units as systemd shows them, and their journal
    safe_paths         open, make and remove below directories of other users
    whole_files        files written whole and synced, read within bounds, hashed
    file_facts         a file's digest, mode and owners, and whether it is as planned
    progress_lines     lines of progress
    in_words           bytes and seconds for people
    hardening          how transient units are confined
    mutex              one session at a time
    session_lines      lines of JSON in a session that stays open
    haproxy_socket     HAProxy's own socket
    change_record      the lock and the record of a change of a group
    api_key            the API key's file, in its one form
    bounded_http       HTTP requests, bounded in size, time and redirects
    http_bounds        those bounds: deadlines, guarded answers, suspicious headers
    endpoint_api       the engine's API: names, an answer by rank, tool calls
    pylock             parse uv's pylock.toml
    engine_stamps      notes on installed engines: complete, command line accepted

What a host is and has; these change nothing:
    probe_sources      a source's value or its error, a tool's outcome
    probe_machine      clock, limits, memory, disks, listeners, RDMA ports, from files alone
    probe_gpus         GPUs, fabric and network, from tools
    probe_group        a group's files, secrets, units and engine
    startable          what keeps a group's units from starting, judged from their files
    host_metrics       GPUs, driver and weights as a file for the node exporter, by a timer
    probe_firewall     what filters the network, and would the kernel enforce the plan's filters?
    probe_engine       an installed engine's versions, from its files
    ask_parser         does this vLLM accept a command line?
    parser_script      what the engine's own Python runs for ask_parser
    run_unprivileged   an engine's Python as a user that may do nothing
    ask_guard          a guard's status, failures, and commands to it
    read_journal       what units wrote to the journal, without the guard's polling
    reach_ports        which ports of other hosts answer from here
    measure_pair       round trip and throughput between two hosts
    meet_peers         all hosts at once: which ports answer, do full packets pass
    measure_allreduce  one host's share of an all-reduce
    verify_group       does the group serve what the plan says?

What brings a group up:
    resolve_engine     requirements into a lock with hashes
    edge_places        where an edge's files are
    edge_keys          keys of clients on an edge host: kept, merged, in effect in HAProxy
    edge_load          requests that run or wait at an edge
    move_servers       servers brought to other addresses, in HAProxy's memory and in its file
    drain_servers      servers held out of HAProxy's choice while a group is changed
    install_engine     uv, a virtual environment, the locked packages
    place_services     services of the distribution with files of muster's, checked, written, loaded
    place_files        planned files staged, then renamed together
    host_before        what a host was before muster changed it
    kept_plans         the last verified plans of a group, whole, to be put back
    restore_plan       one of them put back
    run_units          units started, stopped, watched
    hold_change        hold a change's lock, and keep its record, while the control machine is there
    return_change      bring ranks back that a change stopped and nobody came to finish
    prune_releases     engine releases that nothing needs, removed

What takes it away:
    removable          what muster made here, in places and bytes
    remove_muster      removes it: some groups, or everything

Inside the engine:
    require_api_key    vLLM's API asks for the key on every path
    mapped_router      an engine that maps kept weights gives its experts' routers theirs

Measuring tools:
    install_tool       a tool into its own virtual environment
    run_tool           a tool as a unit, and its result

Weights, and other large files, brought to all hosts at once:
    transfer_stage     one host's part in a run
    transfer_source    where the seed's files come from
    transfer_download  files from addresses of http or https
    transfer_hub       huggingface_hub, run inside a Python that has it
    transfer_store     a revision on disk: files, records, what is right
    transfer_chunks    chunks of a file: size, digests
    transfer_files     the open files that chunks are read from and written to
    transfer_pieces    which host has which chunk
    transfer_swarm     chunks requested from peers
    transfer_serve     chunks sent to peers
    transfer_wire      messages between peers, authenticated
    transfer_progress  how far a run is, in words
    transfer_room      does it fit on the disk?
    weights_on_disk    revisions on this host: verify, link, prune
    read_rate          how fast this host reads them from its disk
    kept_rate          what was measured of that last
    loader_rates       how fast each of vLLM's loaders gets them onto the GPUs
    measure_loaders    the engine's own part in that
    kept_loaders       what was measured of that last

The control machine reads some of them as well: they import nothing of muster but each other.
"""
