"""The library's own numbers without autograd: the same kernels of torch, called directly.

For small nets most of an update's time is spent around its kernels, not in them. A `Learner` calls them in
the library's order on parameters that lie beside each other; a `FastPath` tries it against the library at
the start of every training, and keeps it only where every bit is the same.
See docs/decisions/0018-fast-path.md.
"""
