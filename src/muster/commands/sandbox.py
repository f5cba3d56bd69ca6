"""`muster sandbox`: real systemd hosts on this machine, up and down."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import datetime, timezone

import click
from rich.console import Console
from rich.table import Table

from muster.errors import Refusal
from muster.guard.endpoint_kinds import KINDS
from muster.sandbox import ask, edge_certificate, state_file
from muster.sandbox.as_inventory import chosen_name
from muster.sandbox.box import Sandbox
from muster.sandbox.state_file import every, root_directory
from muster.spec.hardware import GPUS

_name = click.option(
    "--name", default=chosen_name, show_default="$MUSTER_SANDBOX or muster", help="Name of the sandbox."
)


@click.group()
def sandbox() -> None:
    """Real systemd hosts on this machine, with simulated GPUs.

    \b
    muster sandbox up                        boot two hosts
    pyinfra -y inventories/sandbox.py deploys/kimi_k2_instruct.py
    muster sandbox status
    muster sandbox shell node0
    muster sandbox down

    Needs root on Debian or Ubuntu; what is missing is listed. `muster plan` needs none of it.
    """


@sandbox.command()
@_name
@click.option("--hosts", default=2, show_default=True, help="Least number of hosts.")
@click.option("--gpu", default="H200", show_default=True, type=click.Choice(list(GPUS)), help="Product of new hosts.")
@click.option("--gpus", default=1, show_default=True, type=click.IntRange(1, 16), help="GPUs of each new host.")
def up(name: str, hosts: int, gpu: str, gpus: int) -> None:
    """Boot hosts; running ones stay as they are.

    \b
    muster sandbox up --hosts 4
    muster sandbox up --name big --gpu H800 --gpus 8
    """
    box = Sandbox.up(name, hosts, gpu=gpu, gpus=gpus, say=lambda line: click.echo(line, err=True))
    for host in box.hosts:
        click.echo(f"{host.name}  {host.address}  {host.gpus} x {host.gpu}")


@sandbox.command()
@_name
def down(name: str) -> None:
    """Remove a sandbox: its hosts, network and files. The base root file system and package cache stay.

    \b
    muster sandbox down --name big
    """
    Sandbox.named(name).down()
    click.echo(f"sandbox '{name}' is gone", err=True)


@sandbox.command()
@_name
@click.option("--format", "form", default="text", type=click.Choice(["text", "json"]), help="JSON for scripts.")
def status(name: str, form: str) -> None:
    """Show the hosts and how to reach them.

    \b
    muster sandbox status --format json
    """
    box = Sandbox.find(name)
    rows = box.status()
    if form == "json":
        hosts = [{**asdict(row.host), "running": row.running, "answers": row.answers, "pid": row.pid} for row in rows]
        about = {"name": name, "key": str(box.key), "known_hosts": str(box.known_hosts), "hosts": hosts}
        click.echo(json.dumps(about, indent=2))
        return
    table = Table("host", "address", "GPUs", "state", box=None, pad_edge=False)
    for row in rows:
        words = "running" if row.answers else ("booting, or sshd does not answer" if row.running else "off")
        table.add_row(row.host.name, row.host.address, f"{row.host.gpus} x {row.host.gpu}", words)
    Console().print(table)


@sandbox.command("ask")
@_name
@click.argument("prompt", default="Hello")
def ask_ranks(name: str, prompt: str) -> None:
    """Ask each data parallel rank what the model answers, one chat completion or another kind, and show the endpoint.

    \b
    muster sandbox ask "How are you?"
    """
    box = Sandbox.find(name)
    hosts = box.hosts
    base = ask.endpoint(hosts)
    model = ask.served_model(base)
    told = box.exec(hosts[0].name, ["/bin/sh", "-c", "cat /etc/muster/*/plan.json"], check=False)
    kind = ask.kind_of(told.stdout, model)
    ranks = sum(host.gpus for host in hosts) if KINDS[kind].by_rank else 1
    for rank in range(ranks):
        answer = ask.ask(base, model, rank, prompt, kind=kind)
        click.echo(f"rank {answer.rank}: {answer.text}" if KINDS[kind].by_rank else answer.text)
    click.echo(
        f"\nendpoint    {base}  (model {model})"
        f"\ntry         {ask.curl_line(base, model, kind=kind)}"
        f"\nlook inside muster sandbox shell --name {name} {hosts[0].name}    then: systemctl status 'muster-*'"
        f"\ntear down   muster sandbox down --name {name}"
    )


@sandbox.command()
@_name
@click.argument("names", nargs=-1)
def certificate(name: str, names: tuple[str, ...]) -> None:
    """Make a certificate for an edge on the sandbox's hosts, by an authority of the sandbox's own, and print settings.

    NAMES are those of the DNS that clients call it by; edge.test without any. It is for the hosts' addresses too, and
    for 90 days; the authority stays the same until the sandbox is gone.

    \b
    muster sandbox certificate api.example.com
    """
    box = Sandbox.find(name)
    names = names or ("edge.test",)
    made = edge_certificate.issue(
        state_file.place(name).directory, names, [host.address for host in box.hosts], datetime.now(timezone.utc)
    )
    click.echo(f"edge_names = {json.dumps(names)}")
    click.echo(f'edge_certificate_file = "{made.certificate}"')
    click.echo(f'edge_certificate_key_file = "{made.key}"')
    click.echo(f"clients trust {made.authority}: curl --cacert {made.authority} https://ADDRESS/health", err=True)


@sandbox.command("list")
def list_all() -> None:
    """List the sandboxes of this machine."""
    for name in every(root_directory()):
        click.echo(name)


@sandbox.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_name
@click.argument("host", default="node0")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def shell(name: str, host: str, command: tuple[str, ...]) -> None:
    """Open a shell on a host, or run a command there, through SSH.

    \b
    muster sandbox shell
    muster sandbox shell node1 systemctl --failed
    """
    argv = Sandbox.find(name).ssh_argv(host)
    os.execvp(argv[0], [*argv, *command])


@sandbox.command()
@_name
@click.argument("host", default="node0")
def start(name: str, host: str) -> None:
    """Switch on a host that was powered off.

    \b
    muster sandbox start node1
    """
    Sandbox.find(name).start(host)


@sandbox.command()
@_name
@click.argument("host", default="node0")
def console(name: str, host: str) -> None:
    """Print a host's console output.

    \b
    muster sandbox console node1
    """
    path = Sandbox.find(name).console(host)
    if not path.is_file():
        raise Refusal(f"host '{host}' has no console log at {path}", fix=f"muster sandbox start {host}")
    click.echo(path.read_text(errors="replace"), nl=False)
