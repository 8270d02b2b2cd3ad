"""One line of a log -> record."""
