"""The state of any Python object as plain values, and back into an object made anew.

`PlainState` walks what its root reaches: attributes, containers, arrays, random generators, objects of
Python classes, and what their code keeps elsewhere (`code_reach`). What it finds is a flat list of nodes, so
one object that is reached by two paths stays one, and cycles are fine. What it cannot look into (compiled
objects, files, threads, generators that are half done) is named, never guessed.

Restoring fills the objects that are there; it makes those that are not, without their `__init__`, and only of
classes that the walk itself has met. Nothing is unpickled, called or imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from arzbench.errors import StateError
from arzbench.sb3.code_reach import MISSING, CodeReach
from arzbench.sb3.plain_fill import Fill
from arzbench.sb3.plain_kinds import copied, same
from arzbench.sb3.plain_walk import Walk


class PlainState:
    """What an object and everything it reaches hold.

    Attributes:
        unseen: Of the last capture, what it could not look into.
        rebuilt: Whether all of that is known to be made anew by each reset.
        influences: What decides beside the state, such as the clock.
    """

    def __init__(self, root: Any, skip: Iterable[str] = (), own: Iterable[str] = ()) -> None:
        """`skip` are attributes of `root` to leave out; `own` are packages that count as the user's."""
        self.root = root
        self._skip = frozenset(skip)
        every = not any(hasattr(root, name) for name in ("step", "step_wait"))
        self.reach = CodeReach(own, every=every)
        self.unseen: list[str] = []
        self.influences: list[str] = []
        made = self._look()
        self._built = made.atoms
        self._large = frozenset(made.digests)

    def _look(self, large: frozenset[str] = frozenset()) -> Walk:
        walk = Walk(self.root, self.reach, self._skip, large)
        self.unseen, self.influences = walk.named()
        self.rebuilt = walk.rebuilt()
        return walk

    def capture(self) -> dict[str, Any]:
        """Everything seen, as `codec` takes it; arrays are live memory."""
        return self._look(self._large).tree(self._built)

    def copy(self) -> dict[str, Any]:
        """What `capture` gives, with arrays of its own."""
        found: dict[str, Any] = copied(self.capture())
        return found

    def restore(self, tree: Any) -> list[str]:
        """Put the objects into the captured state; what is not as it was after that, empty if all is.

        Raises:
            StateError: `tree` is malformed, or of other objects.
        """
        try:
            Fill(self._look, self.reach, tree).run()
            return self.differs(tree)
        except StateError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError,
                MemoryError) as error:  # fmt: skip
            what = f"{type(error).__name__}: {error}"[:200]
            raise StateError(
                f"the saved state of {type(self.root).__name__} does not fit ({what})"
            ) from error

    def differs(self, tree: dict[str, Any], *, spaces: bool = True) -> list[str]:
        """Names of what is not as in `tree`; `spaces`, too, whose generators others may draw from."""
        now = self._look(self._large)
        found = now.tree(self._built)
        outside = {name: value for part in ("outside", "constants") for name, value in tree[part]}
        outside_now = {name: value for part in ("outside", "constants") for name, value in found[part]}
        changed = [
            now.shown(now.paths[number])
            for number, (one, other) in enumerate(zip(tree["nodes"], found["nodes"], strict=False))
            if not same(one, other) and (spaces or not now.of_space(now.paths[number]))
        ]
        if len(tree["nodes"]) != len(found["nodes"]) and not changed:
            changed = [now.paths[0]]
        changed += [name for name in outside if not same(outside[name], outside_now.get(name, MISSING))]
        return changed


def capture(root: Any, skip: Iterable[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """The plain state of `root` but for the attributes in `skip`, and the names of what cannot be seen."""
    state = PlainState(root, skip)
    return state.capture(), [*state.unseen, *state.influences]


def restore(root: Any, tree: Any, skip: Iterable[str] = ()) -> list[str]:
    """Put `root`, made anew, into the state that `capture` gave; names of what is not as it was.

    Raises:
        StateError: `tree` is malformed, or of another object.
    """
    return PlainState(root, skip).restore(tree)
