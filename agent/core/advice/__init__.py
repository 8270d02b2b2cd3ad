"""What to do about it, with its price on this host."""
