"""Every module here is a command: its function of the same name holds the options and the body.

A command imports what is heavy inside its functions, so that `--help` stays fast. What several commands
share, and the larger pieces they are made of, are in `arzbench.wiring`.
"""
