"""`python -m arzbench` is the `arzbench` command."""

from arzbench.cli import main

if __name__ == "__main__":
    main()
