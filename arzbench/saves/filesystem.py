"""A URL becomes a file system, and what it cannot do is told in words."""

from __future__ import annotations

import importlib
from typing import Any

from arzbench.errors import UsageError

#: what to try where a file system is missing
EXTRAS = {"s3": 'pip install "arzbench[s3]"', "s3a": 'pip install "arzbench[s3]"'}
#: given to file systems: no attempt may hang for long, and retrying is done here: theirs would draw from
#: Python's random generator, which is the training's
_OPTIONS: dict[str, dict[str, Any]] = {
    protocol: {
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"total_max_attempts": 1}},
        "use_listings_cache": False,
    }
    for protocol in ("s3", "s3a")
}


def open_url(url: str) -> tuple[Any, str, str]:
    """The file system of `url`, the path in it, and the protocol; nothing is written.

    Raises:
        UsageError: not a URL, or nothing here can speak its protocol.
    """
    protocol, separator, rest = url.partition("://")
    if not separator or not rest.strip("/"):
        raise UsageError(
            f"--checkpoints {url!r} is not a URL", "for example s3://bucket/run-1 or file:///mnt/run-1"
        )
    fsspec: Any = _import_fsspec(url)
    try:
        fs, root = fsspec.core.url_to_fs(url, **_OPTIONS.get(protocol, {}))
    except ImportError as error:
        missing = EXTRAS.get(protocol, f"install what fsspec needs for {protocol}://")
        raise UsageError(f"{url}: {error}", missing) from error
    except ValueError as error:
        raise UsageError(f"{url}: {error}", "a URL that fsspec knows: s3://, file://, ...") from error
    return fs, root, protocol


def _import_fsspec(url: str) -> Any:
    try:
        fsspec = importlib.import_module("fsspec")
        importlib.import_module("fsspec.core")
    except ImportError as error:
        raise UsageError(f"--checkpoints {url} needs fsspec", 'pip install "arzbench[train]"') from error
    return fsspec


def hint(protocol: str) -> str:
    """What to try where a URL cannot be used."""
    if protocol in EXTRAS:
        return (
            "the bucket must exist, credentials come from the environment (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY),\nanother server than Amazon's is named by AWS_ENDPOINT_URL"
        )
    return "name another URL, or leave out --checkpoints"


def why(error: BaseException) -> str:
    """The error in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:300]
