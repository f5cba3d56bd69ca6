"""Sequences of deploys, failures, rollbacks and lost copies: what a group goes back to is what served before."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from muster.errors import Refusal
from muster.on_host.kept_plans import KEEP
from muster.plan.plan_history import KeptPlan, choose, history, next_number
from muster.plan.way_back import way_back
from tests.plan.test_plan_history import HOSTS, header

DIGESTS = st.sampled_from([f"{number:016x}" for number in range(KEEP + 3)])


class Changes(RuleBasedStateMachine):
    """A group and the copies on its hosts, as `kept_plans` writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: dict[str, dict[str, dict[str, Any]]] = {host: {} for host in HOSTS}
        self.on_hosts = ""
        self.verified: list[str] = []
        """In the order of their verification, the last one at the end."""

    @property
    def history(self) -> tuple[KeptPlan, ...]:
        return history({host: list(kept.values()) for host, kept in self.copies.items()})

    def keep(self, digest: str) -> None:
        number = next_number(self.history, digest)
        for kept in self.copies.values():
            kept[digest] = header(digest, number)
            newest = sorted(kept.values(), key=lambda plan: plan["number"], reverse=True)
            for old in newest[KEEP:]:
                del kept[old["digest"]]
        self.on_hosts = digest
        self.verified = [*(each for each in self.verified if each != digest and each in self.kept), digest]

    @rule(digest=DIGESTS, fails=st.booleans(), keep_failed=st.booleans())
    def deploy(self, digest: str, fails: bool, keep_failed: bool) -> None:
        back = way_back(self.history, HOSTS, digest, keep_failed=keep_failed)
        if not fails:
            self.keep(digest)
        elif back.plan is not None:
            assert back.plan.digest == self.verified[-1] != digest
            assert all(back.plan.digest in kept for kept in self.copies.values())
            self.on_hosts = back.plan.digest
        else:
            assert back.why
            self.on_hosts = digest

    @rule()
    def rollback(self) -> None:
        try:
            plan = choose(self.history, HOSTS, self.on_hosts)
        except Refusal:
            return
        assert plan.digest != self.on_hosts
        assert plan.digest in self.verified
        self.keep(plan.digest)

    @precondition(lambda self: self.history)
    @rule(host=st.sampled_from(HOSTS), data=st.data())
    def lose(self, host: str, data: st.DataObject) -> None:
        self.copies[host].pop(data.draw(st.sampled_from([plan.digest for plan in self.history])), None)
        # A plan that no host keeps any more is forgotten.
        self.verified = [digest for digest in self.verified if digest in self.kept]

    @invariant()
    def history_is_in_the_order_of_verification(self) -> None:
        plans = self.history
        assert all(len(kept) <= KEEP for kept in self.copies.values())
        assert len({plan.number for plan in plans}) == len(plans)
        assert [plan.digest for plan in plans] == self.verified[::-1]

    @property
    def kept(self) -> list[str]:
        return [digest for kept in self.copies.values() for digest in kept]


TestChanges = Changes.TestCase
