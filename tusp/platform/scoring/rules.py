"""Scoring rules: which epochs of a night are judged. Always stated, since trimming wake moves accuracy."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.platform.rule_names import RULES as RULES
from tusp.platform.stages import EPOCH_SECONDS, N1, REM

LIGHTS: Final = "lights"
"""From lights off to lights on, for nights of which both are known."""

EPOCHS_PER_MINUTE: Final = 60 // EPOCH_SECONDS
RULES_IN_WORDS: Final = "full, trim30, trim<minutes> or lights"

_TRIM: Final = re.compile(r"trim(0|[1-9]\d{0,3})")


def check_rule(rule: str) -> str:
    """A rule's name as it was given: one of ``RULES``, ``trim<minutes>`` (0 to 9999) or ``lights``.

    Raises:
        ValueError: no such rule.
    """
    if rule not in (*RULES, LIGHTS) and not _TRIM.fullmatch(rule):
        raise ValueError(f"no scoring rule {rule!r}; rules are {RULES_IN_WORDS}")
    return rule


def rule_in_words(rule: str) -> str:
    """Which epochs a rule judges.

    Raises:
        ValueError: no such rule.
    """
    if check_rule(rule) == "full":
        return "all scored epochs"
    if rule == LIGHTS:
        return "from lights off to lights on"
    minutes = trim_minutes(rule)
    if minutes == 0:
        return "from the first to the last sleep epoch"
    return f"from {minutes} min before the first to {minutes} min after the last sleep epoch"


def trim_minutes(rule: str) -> int | None:
    """Minutes that a ``trim`` rule keeps on either side of sleep; None for other rules."""
    found = _TRIM.fullmatch(rule)
    return int(found[1]) if found else None


def rule_mask(stages: npt.ArrayLike, rule: str, *, lights: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
    """Epochs that a rule judges, decided by the expert's hypnogram (or the lights) alone.

    Args:
        stages: true stages, shape [n_epochs], -1 where unscored.
        rule: one of ``RULES``, ``trim<minutes>``, or ``lights``.
        lights: first epoch with lights off and first epoch with lights on again, counted from the first of
            ``stages`` (before it: negative); only ``lights`` asks for them.

    Returns:
        bool [n_epochs]. Unscored epochs inside the span stay true (``confusion`` leaves them out). A ``trim`` rule has
        no span in a night without any sleep epoch and judges nothing there.

    Raises:
        ValueError: no such rule; ``lights`` of a night whose lights are not known, or on before they are off.
    """
    array = np.asarray(stages)
    if check_rule(rule) == "full":
        return np.ones(array.shape, dtype=np.bool_)
    mask = np.zeros(array.shape, dtype=np.bool_)
    if rule == LIGHTS:
        if lights is None:
            raise ValueError("rule lights needs the epochs of lights off and lights on, which are not known")
        if lights[1] < lights[0]:
            raise ValueError(f"lights on (epoch {lights[1]}) is before lights off (epoch {lights[0]})")
        mask[max(0, lights[0]) : max(0, lights[1])] = True
        return mask
    kept = (trim_minutes(rule) or 0) * EPOCHS_PER_MINUTE
    asleep = np.flatnonzero((array >= N1) & (array <= REM))
    if asleep.size:
        mask[max(0, asleep[0] - kept) : asleep[-1] + kept + 1] = True
    return mask
