"""Text logs, followed by name through every kind of rotation."""
