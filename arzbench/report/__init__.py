"""What was measured, planned and done, as tables for a terminal and as Markdown."""
