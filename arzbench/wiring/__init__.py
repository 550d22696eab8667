"""What the commands are made of: where what runs and what it costs are wired together."""
