"""One module a command: where what runs and what it costs are wired together."""
