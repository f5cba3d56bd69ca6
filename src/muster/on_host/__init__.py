"""Programs that run on the hosts' own Python: standard library only, Python 3.9 to 3.13, `main(request) -> answer`.

    probe_group, probe_machine, probe_gpus, probe_engine   what is there; they change nothing
    measure_pair, measure_allreduce                        measurements between hosts
    place_files                                            planned files, staged and renamed
    install_engine, resolve_engine, pylock, engine_stamps  the engine's release
    ask_parser                                             whether the installed vLLM takes a command line
    run_units, verify_group, ask_guard                     units, the group's answers, its guard
    install_tool, run_tool                                 measuring tools
    weights_on_disk, transfer_store                        the weights a host has
    transfer_stage, transfer_source, transfer_hub, transfer_swarm, transfer_serve, transfer_pieces, transfer_files,
    transfer_wire, transfer_room, transfer_progress        bringing files to all hosts, from each other
    common, mutex                                          what several of them need

The control machine reads some of them as well: they import nothing of muster but each other.
"""
