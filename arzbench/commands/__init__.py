"""Every module here is a command: its function of the same name holds the options and the body.

`arzbench.cli` lists what is here and imports a command when it is called. What several commands share, and
the larger pieces they are made of, are in `arzbench.wiring`.
"""
