"""Start sockmem-agent with the libraries of its package."""

import contextlib
import sys
from pathlib import Path

# Before our first import.
sys.path.insert(0, str(Path(__file__).parent / "site-packages"))
with contextlib.suppress(OSError):
    Path("/proc/self/comm").write_text("sockmem-agent")  # ps and pgrep would show python3.11.

from agent.cli import main

main()
