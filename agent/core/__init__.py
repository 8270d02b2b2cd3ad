"""The pure part: no file, clock, thread, socket, environment or randomness; time comes in as an argument."""
