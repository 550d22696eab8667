"""A measuring process that measures nothing: `fake_worker.py LOG MODE JOB RESULT` writes declared prices."""

import json
import os
import sys
import time
from pathlib import Path

STEP_S, UPDATE_S, EVAL_S, WARMUP_S = 0.002, 0.004, 0.003, 0.05
EPISODE = 20


def main(log: str, mode: str, task: str, answer: str) -> int:
    job = json.loads(Path(task).read_text())
    job["environment"] = {k: os.environ.get(k) for k in ("OMP_NUM_THREADS", "NUMBA_CACHE_DIR")}
    with open(log, "a") as file:
        file.write(json.dumps(job) + "\n")
    if mode == "usage":
        told = {"message": "unknown env 'Nope-v0'", "hint": "valid: Yes-v0", "exit_code": 2}
        Path(answer).with_suffix(".error").write_text(json.dumps(told))
        return 2
    if mode == "crash":
        print("\n".join(f"line {n}" for n in range(20)), file=sys.stderr)
        return 7
    if mode == "silent":
        return 0
    if mode == "hang":
        print(json.dumps(["training", 0.1]), flush=True)
        time.sleep(600)
    if mode == "noisy":
        sys.stdout.buffer.write(b'hello\n\xff\xfe\n[1]\n{}\n"ab"\nnull\n["a", "b"]\n')
        sys.stdout.flush()
    print(json.dumps(["training", 0.5]), flush=True)
    Path(answer).write_text(json.dumps(result(job, mode)))
    return 0


def phase(name: str, job: dict, price: float, units: list[int], **more: object) -> dict:
    drift = 1 + 0.1 * job["repetition"]
    seconds = [price * n * drift for n in units]
    return {"phase": name, "repetition": job["repetition"], "seconds": seconds, "units": units, **more}


def result(job: dict, mode: str) -> dict:
    warm = mode == "cached" and not job["cold"]
    cache = (
        "unused" if mode not in ("cached", "compiles") else "warm" if warm or job["repetition"] else "cold"
    )
    cache = "cold" if job["cold"] else cache
    main_mode = job["config"]["logging"]["mode"]
    n = job["repetition"]
    return {
        "versions": {"fake": "1"},
        "facts": {
            "n_envs": 1,
            "max_episode_steps": 50,
            "episode_steps": [EPISODE + n],
            "eval_episode_steps": [EPISODE + n] * job["eval_episodes"],
        },
        "state_bytes": [1000 + n, 10],
        "phases": [
            phase("import", job, 1.0, [1]),
            phase("jit", job, 1.0, [1], variant="cold" if cache == "cold" else "warm"),
            phase("env step", job, STEP_S, [1] * 5, variant=main_mode),
            phase("env step", job, WARMUP_S, [1], variant=main_mode, warmup=True),
            phase("rollout", job, 0.0, [1], variant=main_mode),
            phase("update", job, UPDATE_S, [5]),
            phase("evaluation", job, EVAL_S, [EPISODE]),
        ],
        "cache": cache,
        "done": job["spawned"],
        "notes": [f"note {n % 2}"],
    }


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
