"""Gymnasium environments on the ARZ engine; importing this loads neither engine nor Numba."""

DECISIONS = 240  # decisions in an episode

ENVIRONMENTS = {  # one environment, many in a batch
    "arzbench/TrafficLight-v0": ("arzbench.env.traffic:TrafficLightEnv", "arzbench.env.vector:traffic_light"),
    "arzbench/RampMetering-v0": ("arzbench.env.freeway:RampMeteringEnv", "arzbench.env.vector:ramp_metering"),
    "arzbench/SpeedControl-v0": ("arzbench.env.freeway:SpeedControlEnv", "arzbench.env.vector:speed_control"),
}


def register_envs() -> None:
    """Register the environments with Gymnasium, once; the entry point of group `gymnasium.envs`."""
    import gymnasium  # here, because importing gymnasium may call this function

    for name, (one, many) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, one, max_episode_steps=DECISIONS, vector_entry_point=many)


register_envs()
