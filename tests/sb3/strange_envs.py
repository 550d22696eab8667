"""Tiny envs that keep state where a capture may overlook it; what they keep decides what they answer."""

import abc
import array
import contextvars
import ctypes
import datetime
import enum
import functools
import hashlib
import heapq
import io
import itertools
import logging
import os
import queue
import random
import sqlite3
import sys
import tempfile
import threading
import time
import types
import weakref
import zlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numba
import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.utils import seeding
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from tests.sb3 import strange_settings


class Walkabout(gym.Env):
    """A noisy walk of 7 steps; a subclass adds what `extra` gives to observation and reward."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.x = 0.0
        self.t = 0
        self.build()

    def build(self) -> None:
        """Called once."""

    def begin(self) -> None:
        """Called by each reset."""

    def extra(self) -> float:
        """Called by each step."""
        return 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.normal()), 0
        self.begin()
        return np.array([self.x, 0.0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        more = float(self.extra())
        self.x = (
            0.9 * self.x + 0.2 * (2 * int(action) - 1) + 0.1 * float(self.np_random.normal()) + 0.05 * more
        )
        observation = np.array([self.x, np.tanh(more)], np.float32)
        return observation, -abs(self.x) + 0.01 * np.tanh(more), False, self.t >= 7, {}


#: name -> what makes it
EXACT: dict[str, Callable[[], gym.Env]] = {}
ANY: dict[str, Callable[[], gym.Env]] = {}


def exact(make: Any) -> Any:
    """An env that must come back as it was."""
    EXACT[make.__name__] = make
    return make


def hard(make: Any) -> Any:
    """An env that may come back, if the label says how far."""
    ANY[make.__name__] = make
    return make


# -- state in the object --------------------------------------------------------------------------


@exact
class Growing(Walkabout):
    def build(self) -> None:
        self.episodes = 0

    def begin(self) -> None:
        self.episodes += 1

    def extra(self) -> float:
        return self.episodes / 10


@exact
class OwnGenerators(Walkabout):
    def build(self) -> None:
        self.one = np.random.default_rng(3)
        self.two = np.random.RandomState(4)
        self.three = random.Random(5)
        self.four = th.Generator()
        self.four.manual_seed(6)
        self.five = np.random.Generator(np.random.Philox(7))
        self.six = np.random.Generator(np.random.SFC64(8))
        self.two.normal()
        self.three.gauss(0, 1)

    def extra(self) -> float:
        drawn = self.one.normal() + self.two.normal() + self.three.gauss(0, 1)
        return float(drawn + th.rand(1, generator=self.four).item() + self.five.random() + self.six.random())


@exact
class Spawning(Walkabout):
    """Its generators have children."""

    def build(self) -> None:
        self.parent = np.random.default_rng(3)
        self.child = self.parent

    def begin(self) -> None:
        self.child = self.parent.spawn(1)[0]

    def extra(self) -> float:
        return float(self.child.normal())


@exact
class GlobalGenerators(Walkabout):
    def extra(self) -> float:
        return random.random() + np.random.rand() + float(th.rand(1))


@exact
class ModuleAsGenerator(Walkabout):
    def build(self) -> None:
        self.rng = np.random
        self.draw = random.random

    def extra(self) -> float:
        return self.rng.rand() + self.draw()


@dataclass
class Car:
    speed: float = 0.0
    seen: list[float] = field(default_factory=list)
    front: "Car | None" = None


@exact
class Nested(Walkabout):
    """Objects made in reset, in a ring."""

    def begin(self) -> None:
        self.cars = [Car(float(self.np_random.normal())) for _ in range(3)]
        for i, car in enumerate(self.cars):
            car.front = self.cars[i - 1]

    def extra(self) -> float:
        for car in self.cars:
            assert car.front is not None
            car.seen.append(car.front.speed)
            car.speed += 0.1 * (car.front.speed - car.speed)
        return self.cars[0].speed + len(self.cars[1].seen)


@exact
class Aliased(Walkabout):
    """One list by two names, one array and a part of it."""

    def build(self) -> None:
        self.grid = np.zeros(6)

    def begin(self) -> None:
        self.a = self.b = [0.0]
        self.part = self.grid[1::2]
        self.add = self.a.append

    def extra(self) -> float:
        self.a[0] += 1
        self.add(self.b[0])
        self.part += 0.1
        return float(self.b[0] + len(self.b) + self.grid.sum())


class Point:
    __slots__ = ("x", "y")

    def __init__(self, x: float) -> None:
        self.x = x


@exact
class Slotted(Walkabout):
    def begin(self) -> None:
        self.point = Point(self.x)

    def extra(self) -> float:
        self.point.y = getattr(self.point, "y", 0.0) + self.point.x
        return self.point.y


class Mood(enum.Enum):
    CALM = 1
    WILD = 2


class Pair(NamedTuple):
    left: list[float]
    right: Mood


@exact
class Kinds(Walkabout):
    """Many kinds of plain values."""

    def build(self) -> None:
        self.mood = Mood.CALM
        self.pair = Pair([0.0], Mood.CALM)
        self.queue: deque[float] = deque(maxlen=3)
        self.heap: list[tuple[float, int]] = []
        self.counts: Counter[int] = Counter()
        self.lists: defaultdict[int, list[float]] = defaultdict(list)
        self.ordered: OrderedDict[tuple[int, int], float] = OrderedDict()
        self.visited: set[int] = set()
        self.space = types.SimpleNamespace(n=0)
        self.bytes = bytearray(b"a")
        self.when = datetime.date(2020, 1, 1)
        self.structured = np.zeros(2, [("x", float), ("n", int)])
        self.words = np.array(["a", "b"])
        self.objects = np.array([[1], None], dtype=object)
        self.scalar = np.float32(0.1)
        self.many = [float(i) for i in range(30)]
        self.tensor = th.zeros(3)
        self.fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        self.complex = 1j
        self.big = 2**2000

    def extra(self) -> float:
        n = self.t + self.space.n
        self.mood = Mood.WILD if n % 3 else Mood.CALM
        self.pair.left[0] += 1
        self.pair = self.pair._replace(right=self.mood)
        self.queue.append(self.x)
        heapq.heappush(self.heap, (self.x, n))
        self.counts[n % 4] += 1
        self.lists[n % 2].append(self.x)
        self.ordered[n % 2, n % 3] = self.x
        self.ordered.move_to_end((n % 2, n % 3), last=False)
        self.visited.add(n % 11)
        self.space.n += 1
        self.bytes.append(n % 200)
        self.when += datetime.timedelta(days=1)
        self.structured["x"] += self.x
        self.words[n % 2] = "ab"[n % 2]
        self.objects[0].append(n)
        self.scalar += np.float32(0.3)
        self.many[n % 30] += self.x
        self.tensor += 0.5
        self.fortran *= 1.01
        self.complex *= 1j
        self.big += 1
        numbers = sum(self.queue) + self.heap[0][0] + self.counts[1] + sum(self.lists[1]) + len(self.visited)
        first = next(iter(self.ordered.values()))
        arrays = (
            self.structured["x"].sum() + float(self.scalar) + float(self.tensor.sum()) + self.fortran.sum()
        )
        others = self.bytes[-1] + self.when.day + len(self.objects[0]) + self.complex.real + self.big % 7
        pair = self.pair.left[0] + self.pair.right.value + (self.words[0] == "b") + sum(self.many)
        return float(numbers + first + arrays + others + pair) / 50


@exact
class QueueOfEvents(Walkabout):
    def build(self) -> None:
        self.events: queue.Queue[float] = queue.Queue()

    def begin(self) -> None:
        self.late: queue.PriorityQueue[float] = queue.PriorityQueue()
        self.late.put(self.x)

    def extra(self) -> float:
        self.events.put(self.x)
        self.late.put(self.x)
        return self.events.queue[0] + self.late.queue[0] + self.events.qsize() / 10


@exact
class Huge(Walkabout):
    """Much that never changes, and a little that does."""

    def build(self) -> None:
        self.table = np.arange(2_000_000, dtype=np.float64)
        self.other = np.zeros(200_000)

    def extra(self) -> float:
        self.other[self.t] += 1
        return float(np.sin(self.table[self.t]) + self.other[:9].sum() / 100)


@exact
class Modes(Walkabout):
    """What it does next is a method, a function, a partial."""

    def build(self) -> None:
        self.mode: Any = self.easy
        self.part: Any = functools.partial(twice, by=2.0)
        self.then: Any = twice

    def easy(self) -> float:
        self.mode = self.difficult
        self.then = thrice
        return 0.3

    def difficult(self) -> float:
        self.then = twice
        if self.np_random.random() < 0.4:
            self.mode = self.easy
        return -0.4

    def extra(self) -> float:
        return float(self.mode() + self.part(self.x) + self.then(self.x))


def twice(x: float, by: float = 2.0) -> float:
    return by * x


def thrice(x: float) -> float:
    return 3 * x


# -- state outside of the object ------------------------------------------------------------------

COUNT = 0
TABLE = {"seen": 0}
HISTORY: list[float] = []


@exact
class ClassCounter(Walkabout):
    episodes = 0
    log: ClassVar[list[float]] = []

    def begin(self) -> None:
        type(self).episodes += 1
        self.log.append(self.x)

    def extra(self) -> float:
        return self.episodes / 9 + sum(self.log)


@exact
class ModuleGlobals(Walkabout):
    def extra(self) -> float:
        global COUNT
        COUNT += 1
        TABLE["seen"] += 2
        HISTORY.append(self.x)
        return (COUNT + TABLE["seen"] + helper()) / 100


def helper() -> float:
    HELPED[0] += 1.0
    return HELPED[0] + sum(HISTORY[-3:])


HELPED = np.zeros(1)


def counter() -> Callable[[], int]:
    n, seen = 0, []

    def count() -> int:
        nonlocal n
        n += 1
        seen.append(n)
        return n + len(seen)

    return count


TICK = counter()


@exact
class Closures(Walkabout):
    def build(self) -> None:
        self.own = counter()

    def extra(self) -> float:
        return (TICK() + self.own()) / 100


@exact
class FunctionAttribute(Walkabout):
    def extra(self) -> float:
        remember.n = getattr(remember, "n", 0) + 1  # type: ignore[attr-defined]
        return remember(self.x) + remember.n / 100  # type: ignore[attr-defined]


def remember(x: float, seen: list[float] = []) -> float:  # noqa: B006
    seen.append(x)
    return sum(seen) / 10


@exact
class DefaultArgument(Walkabout):
    def extra(self, seen: dict[str, int] = {}) -> float:  # noqa: B006
        seen["n"] = seen.get("n", 0) + 1
        return seen["n"] / 50


class Meta(type):
    made = 0


@exact
class OfMetaclass(Walkabout, metaclass=Meta):
    def begin(self) -> None:
        Meta.made += 1

    def extra(self) -> float:
        return Meta.made / 10


class Stored:
    """A descriptor that keeps values by itself."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def __get__(self, instance: Any, owner: Any) -> float:
        return self.values.get("x", 0.0)

    def __set__(self, instance: Any, value: float) -> None:
        self.values["x"] = value


@exact
class Described(Walkabout):
    total = Stored()

    def extra(self) -> float:
        self.total += self.x
        return self.total


@exact
class WithProperty(Walkabout):
    _level = 1.0

    @property
    def level(self) -> float:
        return self._level

    @level.setter
    def level(self, value: float) -> None:
        self._level = 1.01 * value

    def extra(self) -> float:
        self.level = self.level + 0.1
        return self.level


@exact
class ByName(Walkabout):
    """Sets attributes of its class by names that it computes."""

    def extra(self) -> float:
        name = "count_" + str(self.t % 2)
        setattr(type(self), name, getattr(type(self), name, 0) + 1)
        return float(getattr(type(self), name)) / 50


@exact
class OtherModule(Walkabout):
    def extra(self) -> float:
        strange_settings.LEVEL += 1
        strange_settings.chosen = strange_settings.wild if self.t % 2 else strange_settings.calm
        return (strange_settings.LEVEL + strange_settings.calls()) / 50 + strange_settings.run_chosen()


@exact
class ImportedWithin(Walkabout):
    def extra(self) -> float:
        import tests.sb3.strange_settings as settings

        settings.HIDDEN.append(1)
        return len(settings.HIDDEN) / 50


def counted(function: Callable[[Any], float]) -> Callable[[Any], float]:
    calls = 0

    @functools.wraps(function)
    def inner(self: Any) -> float:
        nonlocal calls
        calls += 1
        return function(self) + calls / 50

    return inner


@exact
class Decorated(Walkabout):
    @counted
    def extra(self) -> float:
        return 0.1


class World:
    def __init__(self) -> None:
        self.n = 0

    def tick(self) -> float:
        self.n += 1
        return self.n / 50


WORLD = World()


@exact
class Singleton(Walkabout):
    def extra(self) -> float:
        return WORLD.tick()


class Growth(list[float]):
    """A list with an attribute."""

    added = 0

    def push(self, x: float) -> None:
        self.append(x)
        self.added += 1


class Remembering(dict[int, int]):
    def __missing__(self, key: int) -> int:
        self[key] = key
        return key


@exact
class Subclasses(Walkabout):
    def build(self) -> None:
        self.list = Growth()
        self.dict = Remembering()

    def extra(self) -> float:
        self.list.push(self.x)
        self.dict[self.t] = self.dict[self.t] + 1
        return sum(self.list) / 9 + (self.list.added + sum(self.dict.values())) / 50


@exact
class SeededOnce(Walkabout):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        return super().reset(seed=seed, options=options)

    def extra(self) -> float:
        return float(self.rng.normal())


class Plan(abc.ABC):
    @abc.abstractmethod
    def go(self) -> float:
        """One step."""


class Steady(Plan):
    def __init__(self) -> None:
        self.n = 0

    def go(self) -> float:
        self.n += 1
        return self.n / 50


@dataclass(frozen=True)
class Settings:
    size: float = 0.5
    name: str = "x"


@exact
class Ordinary(Walkabout):
    """What many envs have: settings, constants, compiled functions, an env within, a logger, a table."""

    log = logging.getLogger("strange")
    SIZES: ClassVar[list[float]] = [0.1, 0.2]

    def build(self) -> None:
        self.settings = Settings()
        self.table = [float(len(line)) for line in Path(__file__).read_text().splitlines()]
        self.inner = gym.make("CartPole-v1")
        self.inner.reset(seed=1)
        self.when = time.time()

    def begin(self) -> None:
        self.plan = Steady()
        self.chain: Any = None
        for i in range(2000):
            self.chain = [self.chain, float(i)]

    @functools.cached_property
    def first(self) -> float:
        return float(self.np_random.normal())

    def extra(self) -> float:
        self.log.debug("step")
        observation, _, terminated, truncated, _ = self.inner.step(self.t % 2)
        if terminated or truncated:
            self.inner.reset()
        self.chain[1] += 1
        more = self.plan.go() + double(self.first) + self.SIZES[self.t % 2] + self.settings.size
        return more + float(observation[0]) + self.table[self.t] / 100 + self.chain[1] / 4000

    def render(self) -> None:
        print(time.time())


@numba.njit  # type: ignore[untyped-decorator]
def double(x: float) -> float:
    return 2.0 * x


@exact
class Sampling(Walkabout):
    def extra(self) -> float:
        return int(self.action_space.sample()) + float(np.tanh(self.observation_space.sample()[0]))


@exact
class BuiltAtRandom(Walkabout):
    def build(self) -> None:
        self.map = np.random.default_rng().normal(size=3)

    def extra(self) -> float:
        return float(self.map[self.t % 3])


@exact
class MadeFunctions(Walkabout):
    """Each episode makes a function with a memory."""

    def begin(self) -> None:
        box = [0.0]

        def remember() -> float:
            box[0] += 1
            return box[0] / 50

        self.remember = remember
        self.counts: defaultdict[int, list[float]] = defaultdict(lambda: [0.0])

    def extra(self) -> float:
        self.counts[self.t % 3][0] += 1
        return self.remember() + self.counts[1][0]


@exact
class SharedVariables(Walkabout):
    """Two functions made in each episode share a variable, and keep one each."""

    def begin(self) -> None:
        n = 0

        def outer() -> Callable[[], float]:
            own = [0]

            def inner() -> float:
                nonlocal n
                n += 1
                own[0] += n
                return own[0] / 90

            return inner

        self.one, self.other = outer(), outer()

    def extra(self) -> float:
        return self.one() + 0.5 * self.other()


@exact
class ObjectsAsKeys(Walkabout):
    def begin(self) -> None:
        self.weights = {World(): float(i) for i in range(5)}

    def extra(self) -> float:
        return sum(world.tick() * weight for world, weight in self.weights.items()) / 9


@exact
class Views(Walkabout):
    """Arrays that are parts of others, turned and transposed."""

    def build(self) -> None:
        self.all = np.zeros((3, 2))
        self.last, self.turned = self.all[-1], self.all[::-1]
        self.fortran = np.arange(12.0).reshape(3, 4).T.copy(order="F")
        self.across = self.fortran.T

    def extra(self) -> float:
        self.all[:-1] = self.all[1:]
        self.last[0] = self.x
        self.fortran *= 1.001
        return float(self.turned[0, 0] + self.all.sum() + self.across[0, 1] / 50)


@exact
class Telling(Walkabout):
    """Says what is in a part that cannot be looked into, and not that it counts its episodes."""

    def build(self) -> None:
        self.hidden = itertools.count()
        self.steps = self.episodes = 0

    def begin(self) -> None:
        self.episodes += 1

    def get_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_state(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]
        self.hidden = itertools.count(self.steps)

    def extra(self) -> float:
        self.steps += 1
        return (next(self.hidden) + self.episodes) / 50


# -- state that cannot be seen, or is not state ---------------------------------------------------


@hard
class Cached(Walkabout):
    def build(self) -> None:
        remembered.cache_clear()

    def extra(self) -> float:
        return remembered(self.t) / 10


CALLS = [0]


@functools.lru_cache(maxsize=3)
def remembered(t: int) -> float:
    CALLS[0] += 1
    return CALLS[0] + t


@hard
class Counting(Walkabout):
    def build(self) -> None:
        self.count = itertools.count()

    def extra(self) -> float:
        return next(self.count) / 100


@hard
class CountingAnew(Walkabout):
    def begin(self) -> None:
        self.count = itertools.count()

    def extra(self) -> float:
        return next(self.count) / 100


@hard
class Generating(Walkabout):
    def build(self) -> None:
        self.numbers = self.generate()

    def generate(self) -> Iterator[float]:
        n = 0.0
        while True:
            n += 0.01
            yield n

    def extra(self) -> float:
        return next(self.numbers)


@hard
class Hashing(Walkabout):
    def build(self) -> None:
        self.hash = hashlib.sha256()

    def extra(self) -> float:
        self.hash.update(b"x")
        return self.hash.digest()[0] / 256


@hard
class Compressing(Walkabout):
    def begin(self) -> None:
        self.stream = zlib.compressobj()

    def extra(self) -> float:
        return len(self.stream.compress(bytes(5000)) + self.stream.flush(zlib.Z_SYNC_FLUSH)) / 50


@hard
class OldArray(Walkabout):
    def build(self) -> None:
        self.array = array.array("d", [0.0])

    def extra(self) -> float:
        self.array[0] += 0.1
        return self.array[0]


@hard
class InMemoryFile(Walkabout):
    def build(self) -> None:
        self.file = io.BytesIO(bytes(range(256)) * 9)

    def extra(self) -> float:
        return self.file.read(1)[0] / 256


@hard
class Database(Walkabout):
    def build(self) -> None:
        self.base = sqlite3.connect(":memory:")
        self.base.execute("create table t (n)")

    def extra(self) -> float:
        self.base.execute("insert into t values (1)")
        return self.base.execute("select count(*) from t").fetchone()[0] / 100


@hard
class Structure(Walkabout):
    def build(self) -> None:
        self.memory = (ctypes.c_double * 1)(0.0)

    def extra(self) -> float:
        self.memory[0] += 0.1
        return self.memory[0]


@hard
class Threaded(Walkabout):
    """Another thread counts."""

    def build(self) -> None:
        self.ticks = 0
        threading.Thread(target=self.tick, daemon=True).start()

    def tick(self) -> None:
        while True:
            self.ticks += 1
            time.sleep(0.0007)

    def extra(self) -> float:
        return self.ticks / 100


@hard
class Reading(Walkabout):
    """A file is read on."""

    def build(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.file.write(bytes(range(256)) * 9)
        self.file.seek(0)

    def extra(self) -> float:
        return self.file.read(1)[0] / 256


@hard
class WritingByName(Walkabout):
    """A file that grows, opened anew each time."""

    def build(self) -> None:
        self.path = f"{tempfile.gettempdir()}/arzbench-strange-{os.getpid()}-{id(self)}"

    def extra(self) -> float:
        with open(self.path, "a+") as file:
            file.write("x")
            return file.tell() / 100


@hard
class Clock(Walkabout):
    def extra(self) -> float:
        return time.time() % 1


@hard
class ClockHeld(Walkabout):
    def build(self) -> None:
        self.now = time.perf_counter

    def extra(self) -> float:
        return self.now() % 1


@hard
class ClockInside(Walkabout):
    def extra(self) -> float:
        import datetime as when

        return when.datetime.now().microsecond / 1e6


@hard
class Entropy(Walkabout):
    def extra(self) -> float:
        return os.urandom(1)[0] / 256


@hard
class Reseeded(Walkabout):
    """Seeded by the system in each reset but the first."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.rng = np.random.default_rng(seed)
        return super().reset(seed=seed, options=options)

    def extra(self) -> float:
        return float(self.rng.normal())


@hard
class ReseededInHelper(Walkabout):
    def begin(self) -> None:
        self.rng = make_rng()

    def extra(self) -> float:
        return self.rng.random()


def make_rng() -> random.Random:
    return random.Random()


@hard
class Identity(Walkabout):
    def extra(self) -> float:
        return id(self) % 97 / 97


@hard
class Environment(Walkabout):
    def extra(self) -> float:
        os.environ["STRANGE"] = str(int(os.environ.get("STRANGE", "0")) + 1)
        return int(os.environ["STRANGE"]) / 100


@hard
class Weak(Walkabout):
    def build(self) -> None:
        self.kept = Car(1.0)
        self.ref = weakref.ref(self.kept)

    def extra(self) -> float:
        car = self.ref()
        assert car is not None
        car.speed += 0.1
        return car.speed


@hard
class Subprocess(Walkabout):
    def extra(self) -> float:
        import subprocess

        return int(subprocess.check_output(["date", "+%N"])) % 97 / 97


@hard
class WordsInASet(Walkabout):
    """In the order of hashes that differ from process to process."""

    def build(self) -> None:
        self.words = {"a", "b", "c", "d", "e"}

    def extra(self) -> float:
        return ord(next(iter(self.words))) / 100


@hard
class NoSeed(Walkabout):
    """Its reset takes none: nothing can be reproduced, but it goes on as it was."""

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.x, self.t = float(np.random.normal()), 0
        return np.array([self.x, 0.0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.x += float(np.random.normal()) * 0.1
        return np.array([self.x, 0.0], np.float32), -abs(self.x), False, self.t >= 7, {}


@hard
class Globals(Walkabout):
    def extra(self) -> float:
        globals()["STRANGE"] = globals().get("STRANGE", 0) + 1
        return float(globals()["STRANGE"]) / 50


@hard
class ClockByName(Walkabout):
    def tell(self) -> float:
        return time.time() % 1

    def extra(self) -> float:
        return float(getattr(self, "te" + "ll")())


@hard
class ClockByExec(Walkabout):
    def extra(self) -> float:
        found: dict[str, float] = {}
        exec("import time; v = time.time() % 1", found)
        return found["v"]


@hard
class ClockOfModules(Walkabout):
    def extra(self) -> float:
        return float(vars(sys.modules["time"])["time"]()) % 1


@hard
class ClockOfNumPy(Walkabout):
    def extra(self) -> float:
        return int(np.datetime64("now", "ns").astype(int)) % 97 / 97


@hard
class ClockInDict(Walkabout):
    def build(self) -> None:
        self.held = {"a": [time.time]}

    def extra(self) -> float:
        return self.held["a"][0]() % 1


@hard
class SeededBySystem(Walkabout):
    def extra(self) -> float:
        np.random.seed(None)
        return float(np.random.rand())


@hard
class NewGenerator(Walkabout):
    def begin(self) -> None:
        self._np_random, _ = seeding.np_random(None)


@numba.njit  # type: ignore[untyped-decorator]
def compiled_draw() -> float:
    return np.random.rand()


@hard
class CompiledDraws(Walkabout):
    def extra(self) -> float:
        return float(compiled_draw())


@hard
class Timed(Walkabout):
    def build(self) -> None:
        self.k = 0
        self.go()

    def go(self) -> None:
        self.k += 1
        timer = threading.Timer(0.002, self.go)
        timer.daemon = True
        timer.start()

    def extra(self) -> float:
        return self.k / 100


class Weight:
    def __init__(self, value: float) -> None:
        self.value = value


@hard
class ObjectsInASet(Walkabout):
    """In the order of their addresses."""

    def begin(self) -> None:
        self.all = {Weight(float(self.np_random.normal()) * 10**i) for i in range(9)}

    def extra(self) -> float:
        total = 0.0
        for weight in self.all:
            total = 0.7 * total + weight.value
        return total


@hard
class ThreadLocal(Walkabout):
    def build(self) -> None:
        self.local = threading.local()
        self.local.n = 0

    def extra(self) -> float:
        self.local.n += 1
        return self.local.n / 50


IN_CONTEXT: contextvars.ContextVar[int] = contextvars.ContextVar("in_context", default=0)


@hard
class InContext(Walkabout):
    def extra(self) -> float:
        IN_CONTEXT.set(IN_CONTEXT.get() + 1)
        return IN_CONTEXT.get() / 50


@hard
class Network(Walkabout):
    def build(self) -> None:
        self.net = th.nn.Linear(2, 1)

    def extra(self) -> float:
        with th.no_grad():
            self.net.weight += 0.01
            return float(self.net(th.ones(2)))


AT_IMPORT = random.SystemRandom().random()


@hard
class DrawnAtImport(Walkabout):
    def extra(self) -> float:
        return AT_IMPORT


@hard
class HugeAtRandom(Walkabout):
    def build(self) -> None:
        self.map = np.random.default_rng().normal(size=300_000)

    def extra(self) -> float:
        return float(self.map[self.t % 3])


TICKS = itertools.count()


@hard
class GlobalCount(Walkabout):
    def extra(self) -> float:
        return next(TICKS) / 50


# -- wrappers -------------------------------------------------------------------------------------


class Later(gym.Wrapper):  # type: ignore[type-arg]
    """A wrapper of one's own that keeps the rewards of earlier episodes."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.best = -9.0

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.best = max(self.best, float(reward))
        return observation, float(reward) - 0.1 * self.best, terminated, truncated, info


@exact
def stacked() -> Any:
    return gym.wrappers.FlattenObservation(gym.wrappers.FrameStackObservation(Walkabout(), 3))


@exact
def normalised() -> Any:
    return gym.wrappers.NormalizeReward(gym.wrappers.NormalizeObservation(Walkabout()))


@exact
def timed() -> Any:
    return gym.wrappers.TimeAwareObservation(gym.wrappers.TimeLimit(Walkabout(), 6))


@exact
def statistics() -> Any:
    return gym.wrappers.RecordEpisodeStatistics(Walkabout())


@exact
def transformed() -> Any:
    return gym.wrappers.TransformReward(Later(Growing()), lambda reward: 2.0 * float(reward))


@exact
def delayed() -> Any:
    return gym.wrappers.StickyAction(gym.wrappers.DelayObservation(Walkabout(), 2), 0.4)


@exact
def remembering() -> Any:
    seen: list[float] = []

    def change(reward: Any) -> float:
        seen.append(float(reward))
        return float(reward) + 0.1 * sum(seen[-5:])

    return gym.wrappers.TransformReward(Walkabout(), change)


class Smoothed(VecEnvWrapper):
    """A wrapper of vectorised envs of one's own."""

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self.mean = np.zeros(venv.num_envs)

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        self.mean = 0.9 * self.mean + 0.1 * rewards
        return observations, rewards - self.mean, dones, infos


#: name -> what is put around the vectorised env
AROUND: dict[str, Callable[[VecEnv], VecEnv]] = {
    "frames": lambda v: VecFrameStack(v, 3),
    "smoothed": Smoothed,
    "all": lambda v: VecNormalize(VecFrameStack(Smoothed(v), 2)),
}
