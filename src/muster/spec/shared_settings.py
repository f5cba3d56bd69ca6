"""Settings that all groups of an inventory share: of the edge before them, of the monitor that watches them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from muster.errors import Refusal
from muster.spec import plain_secrets
from muster.spec.settings import Settings


def require_shared(settings: Mapping[str, Settings], section: str, *, needed: str, own: Collection[str] = ()) -> None:
    """Refuse groups that differ in a section of settings that can have one value alone.

    Args:
        settings: group -> its settings.
        section: `edge` or `monitoring`.
        needed: why there is one value.
        own: settings of the section that each group may have its own of.

    Raises:
        Refusal: the first setting that differs, with both values and groups.
    """
    values = {
        group: getattr(each, section).model_dump(by_alias=True, exclude=set(own)) for group, each in settings.items()
    }
    (first, mine), *others = values.items()
    for other, theirs in others:
        differ = [key for key in mine if mine[key] != theirs[key]]
        if differ:
            key = differ[0]
            one, another = (plain_secrets.literal_of(key, each[key]) for each in (mine, theirs))
            raise Refusal(
                f"{key} is {one} for {first} and {another} for {other}",
                needed=needed,
                fix=f"set {key} in group_data/all.py",
            )
