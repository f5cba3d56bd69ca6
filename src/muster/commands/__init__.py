"""The subcommands of `muster`, one module each."""
