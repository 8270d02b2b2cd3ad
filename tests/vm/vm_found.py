"""What a scenario left, as its check on the host reads it."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.core.sockets.holder_names import ORPHANS_WORTH_NAMING

Json = dict[str, Any]


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
        self.all_posts: list[Json] = self._read("posts.json", [])
        self.posts = self.posts_of("hook")
        self.notes: Json = self._read("notes.json", {})
        self.incidents = self.incidents_of("sockmem-agent")

    def _read(self, name: str, otherwise: Any) -> Any:
        file = self.folder / name
        return json.loads(file.read_text()) if file.exists() else otherwise

    def posts_of(self, channel: str) -> list[Json]:
        """Return what one channel sent, in order."""
        return [post for post in self.all_posts if post["channel"] == channel]

    def incidents_of(self, state: str) -> list[Json]:
        """Return every incident.json of one state directory, the oldest first."""
        return [
            json.loads(file.read_bytes())
            for file in sorted((self.folder / state).glob("incidents/[0-9]*/incident.json"))
        ]

    def the_incident(self, kind: str = "event", state: str = "sockmem-agent") -> Json:
        """Return the one incident of a class; more than one, or none, fails."""
        [incident] = [incident for incident in self.incidents_of(state) if incident["class"] == kind]
        return incident

    def verdict(self, incident: Json) -> tuple[str, str, str]:
        return (incident["cause"], incident["confidence"], incident["provenance"])

    def first_named(self, incident: Json) -> Json:
        """Return the holder that is named first; the agent's own POST may be the one orphan of that moment."""
        return next(each for each in incident["diagnosis"]["holders"] if each["unit"] != "sockmem-agent.service")

    def told(self, incident: Json, status: int = 200) -> list[str]:
        """Return what the receiver took about an incident, in order, each webhook-id once."""
        taken: dict[str, str] = {}
        for post in self.posts:
            if post["answered"] == status and post["body"]["data"]["id"] == incident["id"]:
                taken.setdefault(post["headers"]["webhook-id"], post["body"]["type"].rpartition(".")[2])
        return list(taken.values())

    def said(self, incident: Json) -> set[str]:
        """Return which messages the kernel logged; an incident that the witness opened counts the others as 0."""
        return {kind for kind, count in incident["events"].items() if count} - {"suppressed"}

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
        assert {"too_many_orphans"} == self.said(incident)
        if lines is None:
            assert self.suppressed() == incident["suppressed_at_least"]
            stamps = self.stamps("too many orphaned")
            [newest] = [event for event in incident["last_of_kind"] if event["kind"] == "too_many_orphans"]
            assert [stamps[0], stamps[-1]] == pytest.approx([incident["first_event"]["uptime"], newest["uptime"]])
            lines = len(stamps)
        assert lines == incident["events"]["too_many_orphans"]
        if unit:
            self.check_named(incident, unit, port)

    def check_named(self, incident: Json, unit: str, port: int) -> None:
        """Check that this unit is named first, and to people, where enough orphans of it are left to blame it."""
        holders, diagnosis = incident["diagnosis"]["holders"], incident["diagnosis"]
        first = holders[0]
        assert (unit, False) == (first["unit"], first["guess"])
        assert first["sockets"] > 0
        assert port in first["ports"]
        *named, nobody = sorted(holders, key=lambda holder: holder["unit"] is None)
        assert nobody["unit"] is None
        assert first["orphans"] == max(holder["orphans"] for holder in named)
        # A few may come to be between the dump and the sockstat behind it.
        assert nobody["orphans"] <= max(first["orphans"], ORPHANS_WORTH_NAMING - 1)
        if self.is_to_blame(first):
            assert unit in diagnosis["summary"]
            # The limit of these machines is far below their kernel's default, and that comes before who holds what.
            assert any(unit in step["action"] for step in diagnosis["advice"])

    def is_to_blame(self, holder: Json) -> bool:
        """Return whether so many of a holder's orphans outlived the burst that the advice names it."""
        return holder["orphans"] >= ORPHANS_WORTH_NAMING

    def check_killed(self, incident: Json) -> None:
        """Check that the diagnosis counts all that were killed since the boot, until the last reading of the incident.

        The rig's own count is another: it stops elsewhere, and so short a quiet period may end before the next reading.
        """
        evidence = [each for finding in incident["diagnosis"]["findings"] for each in finding["evidence"]]
        counted = {each["value"] for each in evidence if each["name"] == "TCPAbortOnMemory over the event"}
        assert {self.killed(incident)} == counted

    def killed(self, incident: Json) -> int:
        """Return how many connections of any namespace the kernel has killed since the boot; there were some."""
        file = self.folder / "sockmem-agent" / "incidents" / incident["id"] / "samples.jsonl"
        readings = [json.loads(line)["counters"]["TCPAbortOnMemory"] for line in file.read_text().splitlines()]
        assert max(readings) > 0
        return max(readings)

    def sees_kills(self, incident: Json) -> bool:
        """Return whether the trace of an incident's kernel, "6.12.117+deb13-cloud-amd64", says why it resets."""
        return tuple(map(int, incident["kernel"].split(".")[:2])) >= (6, 12)

    def check_witnessed(self, incident: Json, place: str, *, key: str = "unit") -> None:
        """Check that nearly all that were killed are said to be of this unit or container, by the kernel's own trace.

        Before 6.12 the trace does not say why a connection is reset, so that only refusals are in it.
        """
        witness = incident["witness"]
        if not self.sees_kills(incident):
            assert witness["kills"] is None
            assert any("6.12" in gap["why"] for gap in incident["diagnosis"]["gaps"])
            return
        theirs = sum(each["kills"] for each in witness["by"] if each[key] == place)
        assert theirs >= 0.95 * self.killed(incident)
        assert witness["kills"] + (witness["unseen"] or 0) >= self.killed(incident)
        assert witness["kills"] == sum(each["kills"] for each in witness["by"])

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

    def check_advice_helped(self, closed: int) -> None:
        """Check that the advised look showed the orphans, and that under the advised setting the kernel was silent."""
        # Where the kernel killed nearly all of them, nobody is blamed, and there is nothing to look at.
        assert ":8080" in self.notes["shown"] or self.notes["orphans_left"] < ORPHANS_WORTH_NAMING
        assert [] == self.notes["lines_again"]
        assert self.notes["orphans_again"] >= 0.9 * closed

    def snapshots(self, incident: Json, state: str = "sockmem-agent") -> list[Json]:
        folder = self.folder / state / "incidents" / incident["id"]
        return [json.loads(file.read_bytes()) for file in sorted(folder.glob("snapshot-*.json"))]

    def stamps(self, text: str) -> list[float]:
        """Return when the kernel said a text, in seconds since its boot."""
        return [int(line.split(",")[2]) / 1e6 for line in self.notes["kernel_lines"] if text in line]

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
