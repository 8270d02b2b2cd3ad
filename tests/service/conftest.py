"""What the tests of the service share."""

import pytest

from agent.core.settings import StoreSettings
from agent.store import Store


@pytest.fixture
def store(tmp_path):
    """A store that is locked for writing, with as little free space as there is."""
    store = Store(tmp_path / "state", StoreSettings(min_free_bytes=0))
    store.open_for_writing()
    return store
