from collections.abc import Iterator

import pytest
from browser import PROGRAM, Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("NOT TESTED: no chromium here (Debian: apt-get install chromium)")
    with Browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started
