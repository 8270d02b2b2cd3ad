"""sockmem-agent: says why a Linux host ran out of TCP socket memory."""

__version__ = "0.4.4"
