"""Two groups on the same machines, one in the place of the other: what must never happen is checked here.

A group's members are hosts as in `simulated_hosts`; a machine has one of each group. An operator renames (`former`) or
deploys, one small step at a time, and may be cut between any two of them.
"""

from __future__ import annotations

import random

from muster.plan.change import PHASES
from tests.plan.rename_run import BAD, Member, Renamer, Runs
from tests.plan.simulated_hosts import BOUND, require

GROUPS = ("a", "b")
EXCHANGES = PHASES[PHASES.index("committing") :]


class RenameWorld(Runs):
    """`without` names a rule that is left out, to see that it is missed."""

    def __init__(self, seed: int, without: str = "") -> None:
        dice = random.Random(seed)
        names = [f"h{number}" for number in range(dice.randrange(2, 5))]
        members = {group: {name: Member(name, group=group) for name in names} for group in GROUPS}
        some = names[: dice.randrange(1, len(names) + 1)]
        super().__init__(dice, without, members, {"a0": some, "a1": names, "b1": names[::-1], BAD: names})
        for name in some:
            member = members["a"][name]
            member.installed, member.running, member.enabled = "a0", "a0", True
        self.last = ("b", "a", "b1")

    # operators

    def begin(self, group: str, former: str, plan: str) -> Renamer:
        self.serial += 1
        operator = Renamer(f"o{self.serial}", plan, group=group, former=former)
        operator.steps = self._run(operator)
        self.operators.append(operator)
        if former:
            self.last = (group, former, plan)
        return operator

    # machines

    def reboot(self, name: str) -> None:
        """Power off, and on again at once."""
        for group in GROUPS:
            member = self.members[group][name]
            self.lose(member)
            member.timer = self.now + BOUND if member.way is not None else None
            member.running = ""
            if member.enabled:
                member.start()

    def _head(self, host: Member) -> Member | None:
        plan = host.way.plan if host.way is not None else ""
        return next((other for other in self.members[host.group].values() if self._is_head(other, plan)), None)

    # what must hold

    def check(self) -> None:
        """What must hold after every step."""
        for name in self.members["a"]:
            both = [self.members[group][name].running for group in GROUPS]
            require(not all(both), f"{name} runs ranks of both groups: {both}")
        require(len(self.serving) <= 1, f"two plans serve: {self.serving}")
        if not self.serving and not self.operators and not self._bound():
            require(self.told, "nothing serves, nobody is bound to bring it back, and nothing is said")
            require(self.excused, f"nothing serves and nobody is bound to bring it back: {self.all}")

    def _bound(self) -> bool:
        """Whether the machines of some plan bring it up by themselves."""

        def comes(member: Member, plan: str) -> bool:
            waits = member.timer is not None and member.way is not None
            return member.running == plan or (
                waits and plan in (member.installed, member.mixed, member.staged, member.way.plan)
            )  # type: ignore[union-attr]

        return any(all(comes(self._of(plan, name), plan) for name in names) for plan, names in self.sets.items())

    @property
    def told(self) -> bool:
        """Whether somebody who asks hears of an unfinished change."""
        return any(member.record is not None for member in self.all)

    @property
    def excused(self) -> bool:
        """Whether a rename was cut where no host may start anything: one name is given up, the other not taken.

        Or where no plan is whole, for a name that failed was being taken away.
        """
        if not any(all(self._of(plan, name).installed == plan for name in names) for plan, names in self.sets.items()):
            return True
        for group in GROUPS:
            other = self.members[GROUPS[1 - GROUPS.index(group)]]
            up = [
                m for m in self.members[group].values() if m.record and m.record.command == "remove" and m.way is None
            ]
            taken = [m for m in other.values() if m.record is not None and m.record.phase in EXCHANGES]
            if up and len(taken) < len(other):
                return True
        return False

    def _finished(self, operator: Renamer) -> None:
        require(self.serving == [operator.plan], f"{operator.name} ended well, and {self.serving} serves")
        for member in self.all:
            if member.group == operator.group and member.name in self.sets[operator.plan]:
                require(
                    member.installed == operator.plan, f"{operator.name} ended well, and {member.name} has other files"
                )
                own = member.record is not None and member.record.id == operator.name
                require(not own, f"{operator.name} ended well, and {member.name} has its record")
            elif operator.former:
                require(not member.there, f"{operator.name} ended well, and {member.name} has its former self")

    def calm(self) -> None:
        """No operator, no fault: a group comes back by itself, and the same command ends well."""
        self.left_to_itself()
        require(bool(self.serving) or self.excused, f"left alone, nothing comes back: {self.all}")
        group, former, plan = self.last
        operator = self.to_the_end(self.begin(group, former, plan if plan != BAD else "b1"))
        if operator.result == "refused" and self.serving:  # the group that serves is deployed by its name first
            serves = self.serving[0][0]
            operator = self.to_the_end(self.begin(serves, "", f"{serves}1"))
        require(operator.result == "done", f"in calm {self.last} is {operator.result}: {self.all}")
        require(not any(member.record for member in self.all), "in calm a record stays")


BACK = ("a", "b", "a1")
"""The other way round: a person asks for it where no change is unfinished."""
COMMANDS = (("b", "a", "b1"), ("b", "a", "b1"), ("b", "a", BAD), BACK, ("a", "", "a1"), ("b", "", "b1"))


def episode(seed: int, without: str = "") -> RenameWorld:
    """Some renames and faults, then calm."""
    dice = random.Random(seed)
    world = RenameWorld(seed, without)
    for _ in range(dice.randrange(20, 160)):
        choice = dice.randrange(48)
        if len(world.operators) < 2 and choice < 6:
            command = dice.choice(COMMANDS)
            if command != BACK or not (world.told or world.operators):
                world.begin(*command)
        elif choice == 8 and world.operators:
            world.cut(dice.choice(world.operators))
            world.check()
        elif choice == 9:
            world.lose(dice.choice(world.all))
        elif choice == 10:
            world.reboot(dice.choice([*world.members["a"]]))
            world.check()
        elif choice == 11:
            world.tick(dice.choice((5.0, 60.0, 400.0)))
        elif world.operators:
            world.step(dice.choice(world.operators))
    world.calm()
    return world
