"""msgspec builds the description of a type when it first meets it, and two threads that meet one at once crash.

So every decoder is built at import, in the main thread. `Python` sources are held to that here; a fresh interpreter,
where several threads decode all that is stored for the first time, shows it.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from material import NOW, make_incident, make_notice, make_sample, make_snapshot
from msgspec.structs import replace

from agent.core.cursor import Cursor, Resume
from agent.core.delivery import Receipt
from agent.store import Outbox, Store

ROOT = Path(__file__).parent.parent.parent

THREADS = """
import pathlib, sys, threading

import agent.service.daemon
from agent.store import Outbox, Store

sys.setswitchinterval(1e-6)
store = Store(pathlib.Path(sys.argv[1]))
barrier = threading.Barrier(4)

def read():
    barrier.wait()
    [[incident_id, incident]] = [(name, store.load(name)) for name in store.ids()]
    assert [("notice-001", "ops")] == [(stem, *receipts) for stem, _, receipts in store.notices(incident_id)]
    assert len(store.snapshots(incident_id)) == 1
    assert Outbox(store).story("ops", incident_id).owed == ()
    assert store.newest_commit()[0].generation == 7
    assert len(store.samples.read_thinned(incident.opened_at)) == 1

threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def types_met_late(path: Path) -> list[str]:
    """Name the lines of a module that let msgspec meet a type inside a function."""
    tree = ast.parse(path.read_text())
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.Lambda):
            continue
        for node in ast.walk(function):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            is_typed = any(keyword.arg == "type" for keyword in node.keywords)
            if called.endswith(("Decoder", "msgspec.convert")) or (called.endswith("decode") and is_typed):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {called}")
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "agent").rglob("*.py")), ids=lambda path: path.stem)
def test_no_type_is_met_for_the_first_time_in_a_thread(path: Path) -> None:
    assert [] == types_met_late(path)


def test_threads_that_decode_at_once_for_the_first_time_do_not_crash(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    keep_one_of_each(Store(directory))

    for _ in range(30):
        command = [sys.executable, "-c", THREADS, directory]
        ended = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
        assert (0, "") == (ended.returncode, ended.stderr)


def keep_one_of_each(store: Store) -> None:
    """Store whatever there is a decoder for."""
    store.open_for_writing()
    snapshot, incident = make_snapshot(), make_incident()
    store.new_directory(incident.id)
    incident = replace(incident, snapshots=(store.write_snapshot(incident.id, 1, snapshot),))
    notice = make_notice(incident)
    incident = replace(incident, notices=(store.write_notice(incident.id, 1, notice),))
    store.commit(replace(incident, resume=Resume(generation=6, cursor=Cursor())))
    receipt = Receipt(notice=notice.id, channel="ops", outcome="delivered", at=NOW, attempts=1, detail="HTTP 200")
    Outbox(store).write_receipt(incident.id, "notice-001", receipt)
    store.samples.append(make_sample(0.0))
    store.save_cursor(Resume(generation=7, cursor=Cursor()))
