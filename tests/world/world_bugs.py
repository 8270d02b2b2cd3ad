"""The measure of the world: bugs that there were are put back, each into a copy, and the world has to find them.

`make world-bugs` writes into docs/testing.md in how many seeds it did; with names as arguments it tries those alone.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/testing.md"
BEGIN, END = "<!-- make world-bugs writes this -->\n", "<!-- so far -->\n"
SEEDS, MINUTES = 200, 10


class Bug(NamedTuple):
    """``text`` says what it did; in ``file``, below agent/, ``now`` becomes ``then``."""

    name: str
    text: str
    file: str
    now: str
    then: str


BUGS = (
    Bug(
        "position_early",
        "the position is saved before the incident is on disk: a kill loses events",
        "service/position.py",
        "return not self.dirty and not (",
        "return not (",
    ),
    Bug(
        "position_on_the_way_out",
        "the position is saved on the way out of an exception: what was read is lost",
        "service/daemon.py",
        '"""Close everything."""\n',
        '"""Close everything."""\n        self._recorder.position.save(self._source.position(), self._now())\n',
    ),
    Bug(
        "position_apart",
        "an incident is committed without its position: a kill counts its events twice",
        "service/position.py",
        "incident = replace(incident, resume=self.resume)",
        "incident = replace(incident, resume=incident.resume)",
    ),
    Bug(
        "cursor_is_the_truth",
        "a start believes cursor.json, however new an incident is: events are counted twice",
        "store/incidents.py",
        "commit.resume.generation > newest.generation",
        "not newest.generation and commit.resume.generation > 0",
    ),
    Bug(
        "stale_copy",
        "an incident of another host is resumed from an older copy: its end is never sent",
        "store/incidents.py",
        "if still_open.get(each, -1) < newest.generation}",
        "}",
    ),
    Bug(
        "held_by_another",
        "an incident that only another's commit holds yet is closed by a start without a notification",
        "service/open_incident.py",
        "*store.snapshots_of(incident, unread)",
        "*store.snapshots(incident.id, unread)",
    ),
    Bug(
        "others_left_out",
        "a commit does not take along what waits of other hosts: a kill loses it",
        "service/position.py",
        "for identity, other in self._waiting.items() if identity != incident.id)",
        "for identity, other in () if identity)",
    ),
    Bug(
        "names_first",
        "the incident is in place before its notice: a kill between them loses the notice",
        "store/disk.py",
        "*others, last = files\n",
        "*others, last = reversed(files)\n",
    ),
    Bug(
        "names_not_flushed",
        "the directories are not flushed: a power cut takes what was announced",
        "store/disk.py",
        "    with closing_descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as descriptor:\n"
        "        os.fsync(descriptor)",
        "    os.stat(path)",
    ),
    Bug(
        "bytes_not_flushed",
        "the files of a commit are not flushed: a power cut leaves half of them",
        "store/disk.py",
        "            with naming(path):\n                os.fsync(descriptor)\n        *others",
        "            pass\n        *others",
    ),
    Bug(
        "receipt_not_flushed",
        "the name of a receipt is not flushed: after a power cut a notice is sent again",
        "store/outbox.py",
        "        fill(path, encode_json(receipt), room)\n        sync_directory(self._store.path(incident_id))",
        "        fill(path, encode_json(receipt), room)",
    ),
    Bug(
        "no_room_reserved",
        "the receipt has no room of its own: on a full disk each start sends the same notice",
        "service/courier.py",
        "                if step.is_whole:\n",
        "                if False:\n",
    ),
    Bug(
        "sent_before_flushed",
        "a courier sends what it read while its commit was under way: a power cut takes what was announced",
        "service/courier.py",
        "                self._outbox.flush(step.incident_id)\n",
        "",
    ),
    Bug(
        "receipt_forgotten",
        "a receipt that cannot be written is forgotten: the notice is sent again at once",
        "service/stories.py",
        "            self.unwritten[key] = receipt\n",
        "            return failure\n",
    ),
    Bug(
        "opened_under_two_ids",
        "an opening that was taken just before a kill comes again under the id of an update",
        "core/dispatch.py",
        "return next((said.file for said in reversed(story.owed) if said.has_room), None)",
        "return None",
    ),
    Bug(
        "opening_forgotten",
        "a start does not know what was said: an open incident is opened once more",
        "service/open_incident.py",
        "        for _, notice in notices:\n            opened._remember(notice)\n",
        "",
    ),
    Bug(
        "open_forgotten",
        "a start does not resume what is open: it is never closed",
        "service/recorder.py",
        "        self._resume_all(still_open, holder)",
        "        self._resume_all((), holder)",
    ),
    Bug(
        "clock_set_back",
        "a clock that is set back keeps an incident open for as long",
        "service/open_incident.py",
        "        self.arrived_at = min(now, self.arrived_at + by)\n",
        "",
    ),
    Bug(
        "pause_by_the_wall",
        "a channel counts its pauses by the wall clock: one that is set back ends its work",
        "service/courier.py",
        "return Now(self._monotonic(), self._clock())",
        "return Now(self._clock().timestamp(), self._clock())",
    ),
    Bug(
        "swallowed",
        "what cannot be written is neither logged nor in the status",
        "service/troubles.py",
        "            if what not in self._lasting:\n",
        "            if False:\n",
    ),
    Bug(
        "trouble_ended_early",
        "summing up an hour ends the trouble of a sample that was not written",
        "service/sampler.py",
        "            with self._troubles.survived(NOT_SUMMED_UP):",
        "            with self._troubles.survived(UNWRITTEN):",
    ),
    Bug(
        "two_couriers",
        "after a reload the new courier does not wait for the old one: both send",
        "service/couriers.py",
        "            if courier.name not in leaving:\n",
        "            if leaving is not None:\n",
    ),
    Bug(
        "number_used_again",
        "a position that could not be saved leaves its number to the next incident",
        "service/position.py",
        "        self._advance(None)\n"
        "        self._is_saved = False\n"
        "        self.store.save_cursor(replace(self.resume, cursor=cursor))\n",
        "        self._is_saved = False\n"
        "        advanced = Resume(generation=self.resume.generation + 1, cursor=cursor)\n"
        "        self.store.save_cursor(advanced)\n        self._advance(None)\n",
    ),
    Bug(
        "stopped_in_a_batch",
        "a stop in the middle of a batch saves the position behind all of it",
        "service/daemon.py",
        "        if self._is_whole:\n            self._save_position()",
        "        if True:\n            self._save_position()",
    ),
    Bug(
        "left_too_early",
        "a rotated log is left without another look: its last lines are lost",
        "sources/file/reader.py",
        "return bool(self.content.read_at(self._end, 1)) or not self._follows(self.offset, self._marker)",
        "return False",
    ),
    Bug(
        "copy_read_again",
        "after copytruncate the copy is read from its beginning: lines are counted twice",
        "sources/file/follower.py",
        "                if younger.agrees_with(reader):\n                    return younger\n",
        "                pass\n",
    ),
)


def put_back(bug: Bug, folder: Path) -> None:
    """Make a copy of agent/ with the bug."""
    shutil.copytree(ROOT / "agent", folder / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "agent" / bug.file
    text = path.read_text()
    assert text.count(bug.now) == 1, f"{bug.name}: {bug.file} has changed; put the bug back there in another way"
    path.write_text(text.replace(bug.now, bug.then))


def find(where: Path, first: int, seeds: int) -> tuple[int | None, str]:
    """Play the agent/ that is there until something is wrong; return in how many seeds, if in any, and what it is."""
    command = [sys.executable, str(Path(__file__).with_name("play.py")), "--until-found", f"--minutes={MINUTES}"]
    ran = subprocess.run(
        [*command, f"--first={first}", f"--seeds={seeds}"],
        env={"PYTHONPATH": str(where)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^(\d+) worlds of .*, ([01]) with", ran.stderr, re.MULTILINE)
    assert found, ran.stderr
    return int(found[1]) if found[2] == "1" else None, "".join(ran.stdout.splitlines()[-2:-1])


def seeds_needed(bug: Bug) -> int | None:
    """Return how many seeds the world needs to find it; None if these are too few."""
    with tempfile.TemporaryDirectory() as name:
        put_back(bug, Path(name))
        seeds, what = find(Path(name), 0, SEEDS)
    if seeds and (also := find(ROOT, seeds - 1, 1))[0]:
        seeds, what = None, f"without it something is wrong in that world, too: {also[1]}"
    sys.stdout.write(f"{bug.name}: {seeds or 'not found'} {what}\n")
    sys.stdout.flush()
    return seeds


def main() -> int:
    """Try the bugs, and write the page when it was all of them."""
    chosen = [bug for bug in BUGS if bug.name in sys.argv[1:] or not sys.argv[1:]]
    needed = {bug: seeds_needed(bug) for bug in chosen}
    if len(chosen) == len(BUGS):
        rows = "".join(f"| {bug.text} | {seeds or 'not found'} |\n" for bug, seeds in needed.items())
        table = f"{BEGIN}| the bug | seeds |\n| --- | --- |\n{rows}{END}"
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + table + rest.partition(END)[2])
    return int(None in needed.values())


if __name__ == "__main__":
    sys.exit(main())
