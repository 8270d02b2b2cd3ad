"""What a scenario left, as its check on the host reads it."""

import importlib
import json
import stat
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]
OK = 200


def scenario_named(name: str) -> Any:
    """Import a scenario, and what it shares with others: a module of the guest's that needs nothing of the guest."""
    for folder in ("guest", "scenarios"):
        path = str(Path(__file__).parent / folder)
        if path not in sys.path:
            sys.path.insert(0, path)
    return importlib.import_module(name)


class Found:
    """The results of one scenario: the state directories, the POSTs, the journal and the notes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.posts: list[Json] = self._read("posts.json", [])
        self.notes: Json = self._read("notes.json", {})
        self.incidents = self.incidents_of("sockmem-agent")

    def _read(self, name: str, otherwise: Any) -> Any:
        file = self.folder / name
        return json.loads(file.read_text()) if file.exists() else otherwise

    def incidents_of(self, state: str) -> list[Json]:
        """Return every incident.json of one state directory, the oldest first."""
        return [
            json.loads(file.read_bytes()) for file in sorted((self.folder / state).glob("incidents/*/incident.json"))
        ]

    def the_incident(self, kind: str = "event", state: str = "sockmem-agent") -> Json:
        """Return the one incident of a class; more than one, or none, fails."""
        [incident] = [incident for incident in self.incidents_of(state) if incident["class"] == kind]
        return incident

    def verdict(self, incident: Json) -> tuple[str, str, str]:
        return (incident["cause"], incident["confidence"], incident["provenance"])

    def first_named(self, incident: Json) -> Json:
        """Return the holder that is named first."""
        return incident["diagnosis"]["holders"][0]

    def told(self, incident: Json, status: int = 200) -> list[str]:
        """Return what the receiver took about an incident, in order, each webhook-id once."""
        taken: dict[str, str] = {}
        for post in self.posts:
            if post["answered"] == status and post["body"]["data"]["id"] == incident["id"]:
                taken.setdefault(post["headers"]["webhook-id"], post["body"]["type"].rpartition(".")[2])
        return list(taken.values())

    def check_orphans(
        self,
        incident: Json,
        *,
        unit: str = "",
        port: int = 8080,
        proof: tuple[str, str] = ("certain", "kernel"),
        lines: int | None = None,
        shifts: tuple[int | None, ...] = (0, None),
    ) -> None:
        """Check what every incident of orphans has: the verdict, each line counted once, and who is named first.

        ``lines`` is how many there were, where those of the last boot are not the ones. ``shifts`` are the penalties
        that may be told; None stands for a burst that had passed when it was read.
        """
        assert ("orphans", *proof) == self.verdict(incident)
        assert incident["diagnosis"]["mechanism"]["penalty_shift"] in shifts
        assert incident["events"]["too_many_orphans"] > 0
        if lines is None:
            assert self.suppressed() == incident["suppressed_at_least"]
            lines = self.lines("too many orphaned")
        assert lines == incident["events"]["too_many_orphans"]
        if unit:
            first = self.first_named(incident)
            assert unit == first["unit"]
            assert first["sockets"] > 0
            assert port in first["ports"]

    def check_penalty(self, incident: Json, shift: int, orphans: int, limit: int) -> None:
        """Check that the kernel acted below its limit, and that the diagnosis says at which part of it."""
        assert [] == self.notes["lines_before"]
        assert self.notes["peaks"]["orphan"] <= orphans < limit >> shift - 1
        assert limit >> shift == incident["diagnosis"]["mechanism"]["limit_reached"]

    def check_told(self, incident: Json, *, most: int = 3, updated: bool = False) -> None:
        """Check that people were told of the beginning and the end once each, and not often in between.

        Where it took long until the kernel spoke, the gauges said it first, which is one more. ``updated``: it has to
        be told in between who holds it. Orphans may all be killed before anybody can be named for them.
        """
        most += incident["pressure"] is not None
        told = self.told(incident)
        between = told[1:-1]
        assert ["opened", *["updated"] * len(between), "resolved"] == told
        assert len(told) <= most
        assert between or not updated

    def check_posts(self, *, again: bool) -> None:
        """Check, whatever the scenario: what was delivered is what was stored, once, and the last word is the truth.

        ``again``: a delivery was cut off, so something was taken twice.
        """
        taken = [post for post in self.posts if post["answered"] == OK]
        by_id = {post["headers"]["webhook-id"]: post["body"] for post in taken}
        assert again == (len(taken) > len(by_id))
        for post in self.posts:
            assert {"type", "timestamp", "data"} == post["body"].keys()
            assert {"webhook-id", "webhook-timestamp"} <= post["headers"].keys()
        for incident in self.incidents:
            folder = self.folder / "sockmem-agent" / "incidents" / incident["id"]
            for receipt in map(_load, folder.glob("notice-*.hook.json")):
                notice = next(n for n in map(_load, folder.glob("notice-???.json")) if n["id"] == receipt["notice"])
                assert receipt["outcome"] == "delivered"
                assert (notice["type"], notice["data"]) == (by_id[notice["id"]]["type"], by_id[notice["id"]]["data"])
                if notice["type"] == "sockmem.incident.resolved":
                    assert _without_position(incident) == _without_position(notice["data"])

    def snapshots(self, incident: Json, state: str = "sockmem-agent") -> list[Json]:
        folder = self.folder / state / "incidents" / incident["id"]
        return [json.loads(file.read_bytes()) for file in sorted(folder.glob("snapshot-*.json"))]

    def lines(self, text: str) -> int:
        """Count the kernel's own lines with this text, as /dev/kmsg had them at the end."""
        return sum(text in line for line in self.notes["kernel_lines"])

    def suppressed(self) -> int:
        """Add up what the kernel says it did not print."""
        return sum(
            int(line.split(" callbacks suppressed")[0].split()[-1])
            for line in self.notes["kernel_lines"]
            if "callbacks suppressed" in line
        )

    def journal(self) -> list[str]:
        return (self.folder / "journal.txt").read_text().splitlines()

    def wrong_modes(self) -> list[str]:
        """Name what is not 0640 (files) or 0750 (folders), and what of the service's is not all of one user's.

        The other agents of a scenario are root's, so theirs is the mode alone.
        """
        service = self.folder / "sockmem-agent"
        owner = service.stat()
        wrong = ["the state directory is root's"] if 0 in (owner.st_uid, owner.st_gid) else []
        for state in (service, *self.folder.glob("agent-*")):
            for path in (state, *state.rglob("*")):
                found = path.stat()
                mode = stat.S_IMODE(found.st_mode)
                theirs = state == service and (found.st_uid, found.st_gid) != (owner.st_uid, owner.st_gid)
                if theirs or mode != (0o750 if path.is_dir() else 0o640):
                    wrong.append(f"{path.relative_to(self.folder)}: {mode:o}, {found.st_uid}:{found.st_gid}")
        return wrong

    def complaints(self) -> list[str]:
        """Return the journal's lines that no run may have: a traceback of an agent's, or a bug of the kernel's."""
        # The receiver is a python3 of the rig's; it may complain of an agent that hung up.
        theirs = [line for line in self.journal() if " python3[" not in line]
        return [
            line for line in theirs if any(word in line for word in ("Traceback", "kernel BUG", "Oops", "segfault"))
        ]


def _load(file: Path) -> Json:
    return json.loads(file.read_bytes())


def _without_position(incident: Json) -> Json:
    """Where the log was read to is nobody else's business."""
    return {key: value for key, value in incident.items() if key != "resume"}
