"""Put a kept plan of a group back on this host: the steps of `place_files`, from files that this host keeps itself."""

from __future__ import annotations

import json
from typing import Any

from muster.on_host import change_record, engine_stamps, file_facts, kept_plans, place_files, places, probe_group

Json = dict[str, Any]


def main(request: Json) -> Json:
    """Do one step.

    Args:
        request: `do`: `check` (what the plan needs and this host lacks; nothing is changed), `stage` (write the files
            that differ beside their places) or `commit` (put them in place, remove what the plan does not name, apply
            users, kernel settings and firewall); `group`, `digest` of the kept plan; `fence` (the change that a
            `commit` is a step of); `root` (tests).

    Returns:
        `check`: {lacks: [text], notes: [text], units: [unit], manifest, verify}, `units` being those of the group that
        are there now; the others: {changed: [path], notes: [text]}.

    Raises:
        OSError: the plan is not kept here, or a file cannot be written; nothing was changed unless the message says so.
    """
    root, group = request.get("root", ""), request["group"]
    plan = kept_plans.read(root, group, request["digest"])
    form = plan.get("version", 1)
    if form != kept_plans.FORM:
        raise OSError(
            "plan {} is kept in form {}, this muster reads form {}; nothing was changed".format(
                plan["digest"], form, kept_plans.FORM
            )
        )
    if request["do"] == "check":
        return check(root, group, plan)
    if request["do"] == "commit":
        change_record.require(request.get("fence"), root)
        change_record.exchange(request.get("fence"), root)
    base, rest = _differing(root, plan, base=True), _differing(root, plan, base=False)
    if request["do"] == "stage":
        return place_files.stage({"files": rest}, root)
    applied = place_files.base({"files": base}, root) if base else {"changed": [], "notes": []}
    stays = {*plan["files"], *plan["secrets"], *(place_files.staged("", item) for item in rest)}
    remove = probe_group.stale(root, group, stays)
    done = place_files.commit({"files": rest, "remove": remove, "enable": plan["units"]}, root)
    return {"changed": applied["changed"] + done["changed"], "notes": applied["notes"] + done["notes"]}


def check(root: str, group: str, plan: Json) -> Json:
    """Return what this host lacks of what the plan needs, and how the plan is started and verified."""
    release = plan["release"]
    state = engine_stamps.release(root, {"path": release["path"], "spec": release["id"]})
    lacks = [] if state["complete" if release["managed"] else "runs"] else ["the engine " + release["path"]]
    notes = []
    for path, sha256 in plan["secrets"].items():
        now = file_facts.describe(root, path, None, False)
        if now["kind"] != "file":
            lacks.append(path)
        elif now["sha256"] != sha256:
            notes.append(f"{path} has changed since plan {plan['digest']} was verified; it stays as it is now")
    manifest = plan["files"].get(f"{places.config(group)}/plan.json", {}).get("text", "{}")
    return {
        "lacks": lacks,
        "notes": notes,
        "units": probe_group.present_units(root, group),
        "manifest": json.loads(manifest),
        "verify": plan["verify"],
    }


def _differing(root: str, plan: Json, *, base: bool) -> list[Json]:
    """Return the plan's files that are not as they were: those that take effect at once, or the others."""
    items = []
    for path, file in plan["files"].items():
        item = {"path": path, **{key: file[key] for key in ("text", "sha256", "mode", "owner", "group")}}
        if file["base"] is base and not file_facts.is_as_planned(root, item):
            items.append(item)
    return items
