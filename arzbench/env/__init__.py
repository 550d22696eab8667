"""Gymnasium environments on the ARZ engine; importing this loads neither engine nor Numba."""

DECISIONS = 240  # decisions in an episode

ENVIRONMENTS = {
    "arzbench/TrafficLight-v0": "arzbench.env.traffic:TrafficLightEnv",
    "arzbench/RampMetering-v0": "arzbench.env.freeway:RampMeteringEnv",
    "arzbench/SpeedControl-v0": "arzbench.env.freeway:SpeedControlEnv",
}


def register_envs() -> None:
    """Register the environments with Gymnasium, once; the entry point of group `gymnasium.envs`."""
    import gymnasium  # here, because importing gymnasium may call this function

    for name, entry_point in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point, max_episode_steps=DECISIONS)


register_envs()
