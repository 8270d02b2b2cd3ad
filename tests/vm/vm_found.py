"""What a scenario left, as its check on the host reads it."""

import json
import stat
from pathlib import Path
from typing import Any

Json = dict[str, Any]


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
        proof: tuple[str, str] = ("certain", "kernel"),
        lines: int | None = None,
    ) -> None:
        """Check what every incident of orphans has: the verdict, each line counted once, and who is named first.

        ``lines`` is how many there were, where those of the last boot are not the ones.
        """
        assert ("orphans", *proof) == self.verdict(incident)
        assert (self.lines("too many orphaned") if lines is None else lines) == incident["events"]["too_many_orphans"]
        assert incident["events"]["too_many_orphans"] > 0
        assert not unit or unit == self.first_named(incident)["unit"]

    def check_penalty(self, incident: Json, shift: int, orphans: int, limit: int) -> None:
        """Check that the kernel acted below its limit, and that the diagnosis says at which part of it."""
        assert [] == self.notes["lines_before"]
        assert self.notes["peaks"]["orphan"] <= orphans < limit >> shift - 1
        assert shift == incident["diagnosis"]["mechanism"]["penalty_shift"]
        assert limit >> shift == incident["diagnosis"]["mechanism"]["limit_reached"]

    def check_told_in_three(self, incident: Json) -> None:
        """Check that people were told of the beginning and the end, and at most once in between."""
        told = self.told(incident)
        assert ("opened", "resolved") == (told[0], told[-1])
        assert len(told) <= 3

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
        """Name what is not 0640 (files) or 0750 (folders), and not all of one owner who is not root."""
        state = self.folder / "sockmem-agent"
        owner = state.stat().st_uid
        wrong = ["the state directory is root's"] if owner == 0 else []
        for path in (state, *state.rglob("*")):
            found = path.stat()
            mode = stat.S_IMODE(found.st_mode)
            if mode != (0o750 if path.is_dir() else 0o640) or found.st_uid != owner:
                wrong.append(f"{path.relative_to(state)}: {mode:o}, user {found.st_uid}")
        return wrong

    def complaints(self) -> list[str]:
        """Return the journal's lines that no run may have: a traceback of an agent's, or a bug of the kernel's."""
        # The receiver is a python3 of the rig's; it may complain of an agent that hung up.
        theirs = [line for line in self.journal() if " python3[" not in line]
        return [line for line in theirs if "Traceback" in line or "kernel BUG" in line]
