"""The rules, and the diagnosis that they come to."""
