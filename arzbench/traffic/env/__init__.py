"""Gymnasium environments on the ARZ engine; importing this loads neither engine nor Numba."""

DECISIONS = 240  # decisions in an episode

ENVIRONMENTS = {  # one environment, many in a batch
    "arzbench/TrafficLight-v0": ("crossing:TrafficLightEnv", "crossing:traffic_light"),
    "arzbench/RampMetering-v0": ("freeway:RampMeteringEnv", "freeway:ramp_metering"),
    "arzbench/SpeedControl-v0": ("freeway:SpeedControlEnv", "freeway:speed_control"),
}


def register_envs() -> None:
    """Register the environments with Gymnasium, once; the entry point of group `gymnasium.envs`."""
    import gymnasium  # here, because importing gymnasium may call this function

    for name, (one, many) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                f"{__name__}.{one}",
                max_episode_steps=DECISIONS,
                vector_entry_point=f"{__name__}.{many}",
                kwargs={"device": "cpu"},  # says that there is such an argument
            )


register_envs()
