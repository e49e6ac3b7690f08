"""Named moments at which a test makes this process kill itself, so that every state a dead process can leave is really visited."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Mapping

ENVIRONMENT = "MOE_KILL_AT"  # "name:n": SIGKILL at the n-th passing of that point, counted from 1

_announced: dict[str, str] = {}
_passed: Counter[str] = Counter()


def announce(family: str, what: str) -> None:
    """Make the four points of one atomic write known: `family`.write, .sync, .rename and .directory; `what` is written there."""
    _announced.update({
        f"{family}.write": f"half of {what} is in its temporary file",
        f"{family}.sync": f"{what} is whole and synced under its temporary name",
        f"{family}.rename": f"{what} has its final name, its directory is not synced",
        f"{family}.directory": f"{what} is there for good",
    })


def announced() -> Mapping[str, str]:
    """Every point of the modules imported so far, with what is true when it is passed."""
    return dict(_announced)


def kill_point(name: str) -> None:
    """Die here by SIGKILL if the environment says so. Raises KeyError for a name that was not announced: a test could not list it."""
    _announced[name]
    wanted = os.environ.get(ENVIRONMENT)
    if wanted is None:
        return
    _passed[name] += 1
    point, _, passing = wanted.partition(":")
    if point == name and _passed[name] == int(passing or 1):
        os.kill(os.getpid(), signal.SIGKILL)
