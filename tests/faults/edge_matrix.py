"""The faults of an edge as data: how each is done, its refusal or its bounds, what shows it, who is told. Pure.

What the matrix is for a group that serves, this is for what is before it. The tests take words and bounds from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

REFUSED = "none: a refusal"

_CERTIFICATE = "tests/edge/test_certificate.py::"
_FLEET = "tests/plan/test_fleet.py::"
_LIVE = "tests/edge/test_live.py::"
_HOSTS = "tests/edge/test_on_hosts.py::"
_TWO = "tests/edge/test_two_edges.py::"
_ROLL = "tests/edge/test_roll_on_hosts.py::"
_CUTS = "tests/edge/test_roll_cuts.py::"
_NAMES = f"{_CERTIFICATE}test_names_and_times_are_held_against_it"


@dataclass(frozen=True)
class Within:
    """A bound in time.

    Args:
        seconds: at most.
        what: comes by then; `{}` stands for the time.
    """

    seconds: float
    what: str

    def __str__(self) -> str:
        return self.what.format(f"{self.seconds:g} s")


@dataclass(frozen=True)
class EdgeFault:
    """One row: what is refused has its words, what is borne has its bounds.

    Args:
        key, title, how: as of the matrix.
        tests: those that carry it out, as pytest names them.
        refusal: what a user reads; `…` stands for what differs.
        refused: new requests that are refused, at most; None where nothing is promised.
        lost: whether what is open there may be lost; nothing else is.
        left: until nothing is sent there, or waits there, any longer.
        back: until it is as before.
        alert: that names it, or `none: why`.
    """

    key: str
    title: str
    how: str
    tests: tuple[str, ...]
    refusal: str = ""
    refused: int | None = None
    lost: bool = False
    left: Within | None = None
    back: Within | None = None
    alert: str = REFUSED

    def says(self, text: str) -> bool:
        """Whether a text holds the words of the refusal, over whatever lines."""
        words = ".*".join(r"\s+".join(map(re.escape, part.split())) for part in self.refusal.split("…"))
        return bool(self.refusal) and re.search(words, text, re.DOTALL) is not None

    @property
    def answer(self) -> tuple[int, str]:
        """Status and code of the answer that a client gets, where that is the refusal."""
        status, code = self.refusal.split()
        return int(status), code

    @property
    def bound(self) -> str:
        """The bounds in words; empty where there are none."""
        lost = "refused; what is open there may be lost" if self.lost else "refused or lost"
        counts = "" if self.refused is None else f"{self.refused or 'no'} request {lost}"
        return "; ".join(filter(None, (counts, *map(str, filter(None, (self.left, self.back))))))


EDGE_MATRIX: tuple[EdgeFault, ...] = (
    EdgeFault(
        "certificate-expired",
        "a certificate that has expired",
        "one that ended yesterday, with another setting: no file of the edge is touched",
        (_NAMES, f"{_HOSTS}test_an_expired_certificate_touches_nothing"),
        refusal="the certificate of … expired on",
        alert="`MusterCertificateExpiring`, of the one that is served",
    ),
    EdgeFault(
        "certificate-early",
        "a certificate that is not valid yet",
        "one of the future",
        (_NAMES,),
        refusal="is not valid before",
    ),
    EdgeFault(
        "certificate-key",
        "a certificate and another's key",
        "two pairs, mixed",
        (f"{_CERTIFICATE}test_another_key_and_no_pem_are_told_by_file",),
        refusal="is not the key of",
    ),
    EdgeFault(
        "certificate-name",
        "a certificate for other names",
        "a name, a parent and a grandchild of the names that it is for",
        (_NAMES,),
        refusal="is for …, not for",
    ),
    EdgeFault(
        "key-file-lost",
        "the certificate's key file is lost",
        "a file that is not there, on the control machine: no file of the edge is touched",
        (f"{_HOSTS}test_a_key_file_that_is_lost_or_torn_touches_nothing",),
        refusal=".key: No such file or directory",
    ),
    EdgeFault(
        "key-file-torn",
        "the certificate's key file is torn",
        "the first half of one, on the control machine: the same",
        (f"{_HOSTS}test_a_key_file_that_is_lost_or_torn_touches_nothing",),
        refusal="holds no private key in PEM",
    ),
    EdgeFault(
        "key-file-torn-at-the-edge",
        "the certificate is torn at an edge, under load",
        "half of edge.pem is cut off, under 4 clients: HAProxy goes on, and the next deploy writes it whole",
        (f"{_HOSTS}test_a_key_file_that_is_torn_at_the_edge_is_written_again",),
        refused=0,
        alert="none: HAProxy has it in memory",
    ),
    EdgeFault(
        "gpus-twice",
        "two groups that claim a host's GPUs",
        "a fleet of two groups that name one host",
        (f"{_FLEET}test_one_host_claimed_twice_is_refused_with_both_names_and_what_to_set",),
        refusal="both claim GPUs",
    ),
    EdgeFault(
        "ports-twice",
        "two groups that claim a host's ports",
        "the same",
        (f"{_FLEET}test_one_host_claimed_twice_is_refused_with_both_names_and_what_to_set",),
        refusal="both listen on port",
    ),
    EdgeFault(
        "model-of-nobody",
        "a model that no group serves",
        "a client asks for it",
        (f"{_LIVE}test_refusals_have_the_apis_shape",),
        refusal="404 model_not_found",
    ),
    EdgeFault(
        "model-of-nobody-key",
        "a key for a model that no group serves",
        "`muster key add --model`",
        (f"{_HOSTS}test_a_key_is_in_effect_at_once_and_printed_once",),
        refusal="the edge: unknown model",
    ),
    EdgeFault(
        "no-engine",
        "a model whose every group is down",
        "its engines are not ready",
        (f"{_LIVE}test_without_an_engine_that_is_ready_clients_are_told_to_come_again",),
        refusal="503 no_engine",
        alert="`MusterEdgeModelUnserved`",
    ),
    EdgeFault(
        "edge-kept-out",
        "an edge that a group's firewall keeps out",
        "it is not in monitor_networks",
        (f"{_HOSTS}test_an_edge_that_is_kept_out_is_named",),
        refusal="is in no network of monitor_networks",
    ),
    EdgeFault(
        "edge-cut-off",
        "an edge that reaches the control port of no group",
        "it hears nothing from either head",
        (f"{_HOSTS}test_an_edge_that_reaches_no_control_port_is_refused",),
        refusal="reaches no group of …: control port … of",
        alert="`MusterEdgeModelUnserved`",
    ),
    EdgeFault(
        "edge-cut-off-from-one",
        "an edge that does not reach the control port of one group",
        "it hears nothing from one head: the deploy names it and goes on with the other group",
        (f"{_HOSTS}test_a_control_port_that_an_edge_does_not_reach_is_named",),
        refusal="not reached from here: control port … of",
        alert="`MusterEdgeEndpointDown`",
    ),
    EdgeFault(
        "keys-torn",
        "the file of clients' keys is lost or torn",
        "keys.json is removed, or cut, in an edge that serves: its copy counts, and the next change replaces it",
        (
            "tests/on_host/test_edge_keys.py::test_torn_records_are_read_from_their_copy_and_said",
            f"{_HOSTS}test_keys_whose_file_is_lost_or_torn_are_those_of_its_copy",
        ),
        refusal="was torn or missing … the records of … count, and replace it",
        refused=0,
        alert="none: HAProxy has them in memory",
    ),
    EdgeFault(
        "keys-torn-twice",
        "the file of clients' keys and its copy are torn",
        "both in an edge that serves: nothing is written, no key is lost",
        (
            "tests/on_host/test_edge_keys.py::test_where_both_are_torn_nothing_is_written",
            f"{_HOSTS}test_where_both_files_of_keys_are_torn_the_edge_goes_on_with_what_it_has",
        ),
        refusal="is torn …, and so is …; HAProxy goes on with the keys that it has loaded",
        refused=0,
        alert="none: HAProxy has them in memory",
    ),
    EdgeFault(
        "edge-killed",
        "KILL one of two edges, under load",
        "SIGKILL to HAProxy, which stays down, under 16 clients that know both addresses and 4 that ask the other",
        (f"{_TWO}test_one_edge_ends_and_the_other_goes_on",),
        refused=0,
        lost=True,
        alert="`MusterEdgeDown`",
    ),
    EdgeFault(
        "edges-killed",
        "KILL both edges, under load",
        "SIGKILL to both at once, under 8 clients",
        (f"{_TWO}test_both_edges_end_and_come_back_with_their_keys",),
        back=Within(20, "requests are answered again within {}"),
        alert="`MusterEdgeDown` where one stays away",
    ),
    EdgeFault(
        "group-killed",
        "KILL a group's engine, under load",
        "SIGKILL to its vLLM, under 16 clients",
        (f"{_HOSTS}test_a_killed_engine_costs_open_streams_alone_and_a_reload_nothing",),
        refused=0,
        lost=True,
        back=Within(30, "asked again within {} of being ready"),
        alert="`MusterGroupRestarted`",
    ),
    EdgeFault(
        "group-stopped",
        "stop a group, under load",
        "`muster stop --group`, under 8 clients, and `muster resume`",
        (f"{_ROLL}test_one_group_of_a_fleet_is_stopped_and_started_and_no_other_host_is_asked",),
        refused=0,
        alert="none: it is on purpose",
    ),
    EdgeFault(
        "group-hung",
        "STOP a group's EngineCore, under load",
        "SIGSTOP, under 8 clients at two edges",
        (f"{_TWO}test_a_hung_engine_is_left_and_taken_back",),
        refused=0,
        lost=True,
        left=Within(5, "no request later than {} after its `/ready` has turned"),
        back=Within(15, "asked again within {} of being ready"),
        alert="`MusterGroupRestarted`",
    ),
    EdgeFault(
        "group-partitioned",
        "a group that one edge alone does not reach",
        "that edge hears nothing from its head, under 8 clients; the other edge goes on with it",
        (f"{_TWO}test_a_group_that_the_edges_alone_do_not_reach_is_left",),
        refused=0,
        lost=True,
        back=Within(15, "asked again within {} of being reached"),
        alert="`MusterEdgeEndpointDown`",
    ),
    EdgeFault(
        "group-powerless",
        "power off of a group's head, under load",
        "cable dead, every process killed, under 16 clients",
        (f"{_TWO}test_the_power_of_a_head_goes",),
        refused=0,
        lost=True,
        left=Within(30, "no client waits for it after {}"),
        alert="`MusterHostMissing`",
    ),
    EdgeFault(
        "edge-powerless",
        "power off of an edge while a key is revoked",
        "it is on again; the next change of a key brings what it missed",
        (f"{_TWO}test_an_edge_that_was_off_gets_what_it_missed_with_the_next_change",),
        refusal="is revoked, but not on every edge",
        alert="`MusterEdgeDown`",
    ),
    EdgeFault(
        "control-killed",
        "KILL the control machine in each step of a roll",
        "SIGKILL to the run of two groups and an edge as each step begins, under 4 clients; then the same command",
        (f"{_CUTS}test_a_roll_may_be_killed_in_any_step",),
        refused=0,
        lost=True,
        back=Within(20, "no edge holds a group out after {}"),
        alert="none: the other group serves",
    ),
)


def by_key(key: str) -> EdgeFault:
    """The row of a key. Raises KeyError."""
    return {fault.key: fault for fault in EDGE_MATRIX}[key]


def misses(
    fault: EdgeFault,
    counts: Mapping[str, int] | None = None,
    *,
    open_there: int = 0,
    left: float | None = None,
    back: float | None = None,
) -> list[str]:
    """What of a row's bounds did not hold, each with its figures.

    Args:
        fault: the row.
        counts: how many requests had which outcome, as `tests.edge.edged.Load` counts them.
        open_there: requests that can have been open where the fault was.
        left, back: seconds that were seen.
    """
    broken = []
    if fault.refused is not None:
        seen = counts or {}
        refused = seen.get("refused", 0) + seen.get("unreached", 0)
        allowed = open_there if fault.lost else 0
        if not seen.get("done"):
            broken.append("no request was answered")
        if refused > fault.refused:
            broken.append(f"{refused} refused, bound {fault.refused}")
        if seen.get("lost", 0) > allowed:
            broken.append(f"{seen['lost']} lost, {allowed} open there")
    for name, bound, value in (("left", fault.left, left), ("back", fault.back, back)):
        if bound is not None and value is None:
            broken.append(f"{name} was not seen")
        elif bound is not None and value is not None and value > bound.seconds:
            broken.append(f"{bound}: {value:.1f} s")
    return broken


def faults_table() -> str:
    """The table of docs/edge.md."""
    return _table(("fault", "how", "refusal", "bound", "shown by"), map(_row, EDGE_MATRIX))


def alerts_table() -> str:
    """The table of docs/monitoring.md: of all rows but those that are refused, and so happen to nobody."""
    return _table(("fault", "alert"), ((fault.title, fault.alert) for fault in EDGE_MATRIX if fault.alert != REFUSED))


def _row(fault: EdgeFault) -> tuple[str, ...]:
    files = dict.fromkeys(test.partition("::")[0].removeprefix("tests/") for test in fault.tests)
    refusal = f"`{fault.refusal}`" if fault.refusal else ""
    return fault.title, fault.how, refusal, fault.bound, ", ".join(files)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
