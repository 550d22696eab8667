"""The identity of a record, as files and caches name it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec


def digest(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(msgspec.to_builtins(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
