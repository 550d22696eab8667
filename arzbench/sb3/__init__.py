"""Stable-Baselines3 behind the contract of `arzbench.workload`."""
