import sys
from pathlib import Path

import pytest

import agent.sources.choose as choice
from agent.core.settings import SourceKind, SourceSettings
from agent.sources.choose import choose, is_readable


def no_journal() -> bool:
    return False


def nothing_readable(path: str) -> bool:
    return False


def test_auto_is_the_journal_where_systemd_runs() -> None:
    chosen = choose(SourceSettings(), lambda: True, lambda path: True)

    assert "journal" == chosen.kind


def test_auto_prefers_messages_to_syslog_to_kern_log() -> None:
    logs = ["/var/log/kern.log", "/var/log/syslog", "/var/log/messages"]
    readable: set[str] = set()
    chosen = []
    for log in logs:
        readable.add(log)
        chosen.append(choose(SourceSettings(), no_journal, readable.__contains__).paths)

    assert [("/var/log/kern.log",), ("/var/log/syslog",), ("/var/log/messages",)] == chosen


def test_auto_is_kmsg_when_no_log_can_be_read() -> None:
    assert "kmsg" == choose(SourceSettings(), no_journal, nothing_readable).kind


def test_auto_follows_configured_paths_even_before_they_exist() -> None:
    chosen = choose(SourceSettings(paths=("/srv/log/a", "/srv/log/b")), no_journal, nothing_readable)

    assert ("file", ("/srv/log/a", "/srv/log/b")) == (chosen.kind, chosen.paths)


@pytest.mark.parametrize("kind", ["journal", "file", "kmsg"])
def test_a_kind_that_was_configured_stays(kind: SourceKind) -> None:
    settings = SourceSettings(kind=kind, directory="/srv/journal")

    assert choose(settings, no_journal, nothing_readable) == settings


def test_start_survives_the_choice() -> None:
    assert "beginning" == choose(SourceSettings(start="beginning"), no_journal, nothing_readable).start


def test_a_directory_or_a_missing_file_is_not_readable(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")

    assert is_readable(str(tmp_path / "log"))
    assert not is_readable(str(tmp_path))
    assert not is_readable(str(tmp_path / "missing"))


def test_without_the_journals_bindings_auto_is_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "runs_systemd", lambda: True)
    monkeypatch.setitem(sys.modules, "systemd.journal", None)
    chosen = choose(SourceSettings(), is_readable={"/var/log/messages", "/var/log/syslog"}.__contains__)

    assert ("file", ("/var/log/messages",)) == (chosen.kind, chosen.paths)
