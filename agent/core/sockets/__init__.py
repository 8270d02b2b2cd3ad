"""A dump of sockets -> groups, holders, and their names."""
