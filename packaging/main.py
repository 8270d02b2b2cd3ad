"""Start sockmem-agent with the libraries that its package brings."""

import contextlib
import sys
from pathlib import Path

# Before the first import of ours.
sys.path.insert(0, str(Path(__file__).parent / "site-packages"))
with contextlib.suppress(OSError):
    Path("/proc/self/comm").write_text("sockmem-agent")  # What ps and pgrep would call python3.11.

from agent.cli import main

main()
