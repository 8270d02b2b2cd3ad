"""config.toml -> settings, with all mistakes reported at once."""
