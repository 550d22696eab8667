"""What a session keeps free before its deadline beside its last save: the same for planner and guard."""

from __future__ import annotations

#: what a process needs from its last save to its end, in seconds
LEAVE_S = 0.3
#: the margin for what was never met: a share of the quota within bounds, in seconds
MARGIN_SHARE, MARGIN_LEAST_S, MARGIN_MOST_S = 0.005, 0.1, 10.0
#: where checkpoints are copied elsewhere, for what is not uploaded yet: of the quota, and at most, in seconds
UPLOAD_SHARE, UPLOAD_MOST_S = 0.05, 10.0


def kept_free_s(quota_s: float, *, uploads: bool, leave_s: float = LEAVE_S) -> float:
    """Seconds of a session of `quota_s` in which nothing is trained; `uploads`: checkpoints are copied."""
    margin_s = min(max(MARGIN_SHARE * quota_s, MARGIN_LEAST_S), MARGIN_MOST_S)
    upload_s = min(UPLOAD_SHARE * quota_s, UPLOAD_MOST_S) if uploads else 0.0
    return leave_s + margin_s + upload_s


def quota_for(seconds: float, *, uploads: bool) -> float:
    """The quota that leaves `seconds` to train in."""
    quota_s = seconds
    for _ in range(12):  # each round is a twentieth as far off as the one before, or closer
        quota_s = seconds + kept_free_s(quota_s, uploads=uploads)
    return quota_s
