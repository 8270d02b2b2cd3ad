"""config.toml -> settings, with every mistake told at once."""
