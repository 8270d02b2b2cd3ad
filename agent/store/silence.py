"""<state>/silence.json: until when new notifications are held back. The command writes it, the service reads it."""

from contextlib import suppress
from pathlib import Path

from agent.core import model
from agent.core.model import Silence
from agent.store.disk import UnreadableError, read_json, sync_directory, write_json

SILENCE_FILE = "silence.json"


def read_silence(directory: Path) -> Silence | None:
    """Read the silence of a state directory, over or not; None without a file, UnreadableError for a damaged one."""
    try:
        return read_json(directory / SILENCE_FILE, model.SILENCE)
    except UnreadableError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def write_silence(directory: Path, silence: Silence) -> None:
    """Begin a silence, in place of any other; OSError when it cannot be written."""
    write_json(directory / SILENCE_FILE, silence)
    sync_directory(directory)


def end_silence(directory: Path) -> None:
    """End the silence, if there is one; OSError when the file cannot be removed."""
    with suppress(FileNotFoundError):
        (directory / SILENCE_FILE).unlink()
        sync_directory(directory)
