"""Traffic control on a two-class Aw-Rascle-Zhang road: the engine, its Gymnasium envs, and its benchmark.

Nothing that plans or runs trainings imports this.
"""
