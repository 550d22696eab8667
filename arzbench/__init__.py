"""Wall-clock planning for reinforcement-learning trainings, on an ARZ traffic model.

Importing the package loads nothing else, so that a command starts at once.
"""

__version__ = "0.1.0"
