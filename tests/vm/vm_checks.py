"""What holds whatever the scenario: how the service fared, what is stored, and that it was told as it is stored."""

import json
import stat
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType

import msgspec
from vm_found import Found, Json, scenario_named

OK = 200
CHANNELS = scenario_named("install").CHANNELS
# The journal's lines that no run may have: an agent that broke down, or a kernel.
COMPLAINTS = (
    "Traceback", "Failed with result", "could not be written", "kernel BUG", "Oops", "segfault", "Call Trace",
    "cut here", "soft lockup", "general protection", "oom-kill", "Out of memory: Killed",
    "status=11/SEGV", "status=6/ABRT", "dumped core",
)  # fmt: skip
KILLED = "sockmem-agent.service: Failed with result 'signal'"


def check_whole(found: Found, scenario: ModuleType) -> None:
    """Check all of it, but for the exceptions that a scenario names.

    ``RESTARTS`` is how often it kills the service, ``TOLD_AGAIN`` that a delivery is cut off, ``READ_LATE`` that
    given-up attempts are read in the end, ``QUIET_SECONDS`` another quiet period than that of install.py, ``WARNS``
    that the gauges may open an incident of their own, ``STOPPED`` that the service does not run at the end.
    """
    restarts = getattr(scenario, "RESTARTS", 0)
    check_service(found, restarts=restarts, stopped=getattr(scenario, "STOPPED", False))
    state = found.folder / "sockmem-agent"
    assert any(json.loads((state / "cursor.json").read_bytes())["cursor"].values())
    assert any(file.stat().st_size for file in state.glob("history/*.jsonl"))
    assert [] == wrong_modes(found)
    for incident in found.incidents:
        if incident["class"] == "event":
            check_incident(found, incident, getattr(scenario, "QUIET_SECONDS", 6))
        else:
            assert getattr(scenario, "WARNS", False)
    check_posts(found, again=getattr(scenario, "TOLD_AGAIN", False))
    check_other_channels(
        found, again=getattr(scenario, "TOLD_AGAIN", False), read_late=getattr(scenario, "READ_LATE", False)
    )


def check_service(found: Found, *, restarts: int, stopped: bool) -> None:
    """Check that the service runs, was started anew no more often than it was killed, and that nobody complained."""
    assert stopped or "Active: active (running)" in (found.folder / "status.txt").read_text()
    assert restarts == found.notes["restarts"]
    assert any(" sockmem-agent[" in line and ": following " in line for line in found.journal())
    # The receiver is a python3 of the rig's; it may complain of an agent that hung up.
    others = [line for line in found.journal() if " python3[" not in line]
    complaints = [line for line in others if any(word in line for word in COMPLAINTS)]
    assert restarts == sum(KILLED in line for line in complaints)
    assert [] == [line for line in complaints if KILLED not in line]


def check_incident(found: Found, incident: Json, quiet_seconds: int) -> None:
    """Check that an incident agrees with itself and its snapshots, and that its evidence and notices are there."""
    folder = found.folder / "sockmem-agent" / "incidents" / incident["id"]
    snapshots, diagnosis = found.snapshots(incident), incident["diagnosis"]
    assert incident["snapshots"] == _names(folder, "snapshot-*.json") != []
    assert incident["notices"] == _names(folder, "notice-???.json") != []
    for channel in CHANNELS:
        receipts = [name.replace(".json", f".{channel}.json") for name in incident["notices"]]
        assert receipts == _names(folder, f"notice-*.{channel}.json")
    opened, last, closed = (
        msgspec.convert(incident[f"{key}_at"], datetime) for key in ("opened", "last_seen", "closed")
    )
    assert opened <= last
    assert closed - last == timedelta(seconds=quiet_seconds)
    for key in ("host", "kernel", "boot_id"):
        assert {incident[key]} == {snapshot[key] for snapshot in snapshots}
    for key in ("cause", "confidence", "summary"):
        assert incident[key] == diagnosis[key] != ""
    for gauge in ("orphan", "mem"):
        assert incident["peak"][gauge] >= max(each["sockstat"]["tcp"][gauge] for each in snapshots)
    check_diagnosis(diagnosis, [each for each in snapshots if each["trigger"] != "follow_up"][-1])


def check_diagnosis(diagnosis: Json, snapshot: Json) -> None:
    """Check that the limits are those of the snapshot, and that the advice can be followed: it changes something."""
    mechanism = diagnosis["mechanism"]
    [limit] = snapshot["sysctls"]["net.ipv4.tcp_max_orphans"]
    assert (limit, snapshot["sysctls"]["net.ipv4.tcp_mem"]) == (
        mechanism["tcp_max_orphans"],
        mechanism["tcp_mem_pages"],
    )
    shift = mechanism["penalty_shift"]
    assert mechanism["limit_reached"] == (None if shift is None else limit >> shift)
    assert [] != diagnosis["advice"]
    assert [] != diagnosis["findings"]
    # The command that raises tcp_max_orphans with tcp_mem is in the step before its own.
    commands = [command for advice in diagnosis["advice"] for command in advice["commands"]]
    for advice in diagnosis["advice"]:
        if change := advice["sysctl"]:
            assert change["proposed"] != change["current"]
            assert change["current"] == _plain(snapshot["sysctls"][change["key"]])
            assert any(command.startswith("sysctl -w ") and f" {change['key']}=" in command for command in commands)


def check_posts(found: Found, *, again: bool) -> None:
    """Check that what was sent is what is stored, signed; that each notice was taken once; and the last is the truth.

    ``again``: a delivery was cut off, so something was taken twice.
    """
    incidents = found.folder / "sockmem-agent" / "incidents"
    notices = {notice["id"]: notice for notice in map(_load, incidents.glob("[0-9]*/notice-???.json"))}
    owed: set[str] = set()
    for incident in found.incidents:
        if incident["closed_at"] is None:  # A warning that outlasts the scenario is not told to its end.
            continue
        for name in incident["notices"]:
            receipt = _load(incidents / incident["id"] / name.replace(".json", ".hook.json"))
            if receipt["outcome"] == "superseded":  # A later one says it.
                assert name < f"{receipt['detail']}.json" in incident["notices"]
                continue
            assert ("delivered", "hook") == (receipt["outcome"], receipt["channel"])
            sent = sum(post["headers"]["webhook-id"] == receipt["notice"] for post in found.posts)
            assert again or receipt["attempts"] >= sent
            owed.add(receipt["notice"])
        last = notices[f"msg_{incident['id']}_{len(incident['notices']):03}"]
        assert ("sockmem.incident.resolved", _told(incident)) == (last["type"], _told(last["data"]))
        assert last["id"] in owed
    for post in found.posts:
        notice, headers = notices[post["headers"]["webhook-id"]], post["headers"]
        kind, data = post["body"]["type"], post["body"]["data"]
        assert {"type", "timestamp", "data"} == set(post["body"])
        assert notice["at"] == post["body"]["timestamp"]
        if kind == "sockmem.incident.opened":  # It shows the incident as it was when it was sent.
            assert notice["type"] in {kind, "sockmem.incident.updated"}  # An update opens what was not told before.
            [incident] = [incident for incident in found.incidents if incident["id"] == data["id"]]
            check_between(notice["data"], data, incident)
        else:
            assert {"type": notice["type"], "data": notice["data"]} == {"type": kind, "data": data}
        assert "application/json" == headers["content-type"]
        assert post["signed"]
        assert abs(int(headers["webhook-timestamp"]) - post["at"]) < 60
    taken = [post["headers"]["webhook-id"] for post in found.posts if post["answered"] == OK]
    assert owed <= set(taken)
    assert again == (len(taken) > len(set(taken)))


def check_between(before: Json, sent: Json, after: Json) -> None:
    """Check that an open incident as it was sent lies between its notice and what it became, and agrees with itself."""
    assert before.keys() == sent.keys() == after.keys()
    assert (None, None, []) == (sent["closed_at"], sent["resume"], sent["beside"])
    for key in ("id", "class", "host", "kernel", "boot_id", "opened_at", "first_event", "provenance"):
        assert before[key] == sent[key]
    for key in ("last_seen_at", "snapshots", "notices", "suppressed_at_least"):
        assert before[key] <= sent[key] <= after[key]
    for key in ("events", "peak"):
        assert all(count <= sent[key][name] <= after[key][name] for name, count in before[key].items())
    for key in ("cause", "confidence", "summary"):
        assert sent[key] == sent["diagnosis"][key]


def check_other_channels(found: Found, *, again: bool, read_late: bool) -> None:
    """Check that Slack and Alertmanager were told of all, and Slack no more often than it was asked to take it.

    ``again``: the service was killed, and may have sent once more what it had no receipt for. ``read_late``: attempts
    that the service had given up were read in the end, so that the last to arrive need not be the newest.
    """
    incidents = found.folder / "sockmem-agent" / "incidents"
    for channel in ("team", "pager"):
        receipts = [_load(file) for file in incidents.glob(f"[0-9]*/notice-*.{channel}.json")]
        outcomes = [receipt["outcome"] for receipt in receipts]
        # Alertmanager is not told of what was over before it could be sent, and is sent again and again what is open.
        assert {"delivered", "superseded", *(["skipped"] if channel == "pager" else [])} >= set(outcomes)
        taken = len(found.posts_of(channel))
        assert outcomes.count("delivered") <= taken
        # A notice that was overtaken has no count of its attempts; only here may any of them have arrived.
        is_counted = not (again or read_late or channel == "pager")
        assert not is_counted or taken <= sum(receipt["attempts"] for receipt in receipts)
    assert all(post["body"]["text"] and post["body"]["blocks"] for post in found.posts_of("team"))
    ends: dict[tuple[str, str], float] = {}
    for post in found.posts_of("pager"):
        for alert in post["body"]:
            alert_id = alert["labels"]["incident"], alert["labels"]["severity"]
            left = msgspec.convert(alert["endsAt"], datetime).timestamp() - post["at"]
            ends[alert_id] = min(left, ends.get(alert_id, left)) if read_late else left
    for incident in found.incidents:
        if incident["closed_at"] is not None:  # Its alerts have ended.
            assert all(left <= 1 for (name, _), left in ends.items() if name == incident["id"])
            last = incidents / incident["id"] / incident["notices"][-1].replace(".json", ".pager.json")
            assert any(name == incident["id"] for name, _ in ends) or _load(last)["outcome"] == "skipped"


def wrong_modes(found: Found) -> list[str]:
    """Name what is not 0640 (files) or 0750 (folders), and what of the service's is not all of one user's.

    The other agents of a scenario are root's, so theirs is the mode alone.
    """
    service = found.folder / "sockmem-agent"
    owner = service.stat()
    wrong = ["the state directory is root's"] if 0 in (owner.st_uid, owner.st_gid) else []
    for state in (service, *found.folder.glob("agent-*")):
        for path in (state, *state.rglob("*")):
            status = path.stat()
            mode = stat.S_IMODE(status.st_mode)
            theirs = state == service and (status.st_uid, status.st_gid) != (owner.st_uid, owner.st_gid)
            # status.json is for every user; an agent without a runtime directory keeps it here.
            file_mode = 0o644 if path.name == "status.json" else 0o640
            if theirs or mode != (0o750 if path.is_dir() else file_mode):
                wrong.append(f"{path.relative_to(found.folder)}: {mode:o}, {status.st_uid}:{status.st_gid}")
    return wrong


def _names(folder: Path, pattern: str) -> list[str]:
    return sorted(file.name for file in folder.glob(pattern))


def _load(file: Path) -> Json:
    return json.loads(file.read_bytes())


def _plain(values: list[int]) -> int | list[int]:
    return values[0] if len(values) == 1 else values


def _told(incident: Json) -> Json:
    """Where the log was read to is nobody else's business."""
    return {key: value for key, value in incident.items() if key != "resume"}
