"""``python -m agent`` does the same as the command ``sockmem-agent``."""

from agent.cli import main

main()
