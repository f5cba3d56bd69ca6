"""From bare-metal GPU hosts to a serving vLLM cluster, on pyinfra.

Data flows one way, and imports go the same way: a room imports from rooms above it in this list, never from one below.

    errors, resources   refusals; where recipes and templates are found
    guard               on each host: keeps the group alive                                standard library only
    on_host             programs that travel to a host for one SSH session                 standard library only
    spec                what the user gives, as types: recipe, settings, inventory, pins   pure but for the inventory
    plan                recipe x hosts x settings -> the whole plan of a group             pure
    monitoring          targets, alerts and dashboards of a group, from its plan                    pure
    edge                HAProxy before groups: configuration and maps, from their plans                  pure
    hosts               the control machine's way to hosts: run a program, ask them all    pyinfra
    sandbox             real systemd hosts on this machine, for a first look and for tests
    preflight           what is wrong with a host, known before anything touches it
    weights             pinned weights, verified, from host to host
    status              what a running group says of itself
    deploys             the stages of a deploy, in the order they run                      pyinfra
    bench               benchmarks and evaluations, their ledger and report
    commands            the subcommands of `muster`, one module each
    cli                 the `muster` command

Everything up to `edge` is pure: no pyinfra, no network, no clock. `muster plan` prints it with no host in reach.
docs/architecture.md shows what runs where, and follows one setting and one secret through these rooms.

A file name that occurs twice is one noun in two layers:

    status          commands: the subcommand; guard: what a guard answers
    events          commands: the subcommand; guard: what a guard tells its journal
    install_engine  deploys: the stage; on_host: the program that it runs on each host
    place_files     deploys: the stage; on_host: the program that it runs on each host
    own_files       spec: files that a recipe brings; plan: where they are on hosts
    recipe          commands: a new one from a model's config.json; spec: what one holds
    remove          commands: the subcommand; deploys: the stages
    edge            commands: the subcommand; deploys: HAProxy brought to edge hosts
    monitoring      commands: the subcommand; deploys: Prometheus and exporters brought to machines
    kept_weights    guard: who serves and who maps them; plan: which groups keep them, and by what
    gpu_memory      plan: what a GPU must hold; preflight.checks: whether it fits the GPUs that are there
"""

__version__ = "0.1.0"
