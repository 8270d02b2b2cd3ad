"""Samples over time: what they warn of, and since when."""
