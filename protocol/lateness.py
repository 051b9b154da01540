"""When a node that is late has slept: its deadlines passed unseen, and what was said to it meanwhile waits to be read.

Each role that judges others by their silence asks this first, since it is its own silence that it would judge. Pure.
"""

SLEPT_AFTER = 2.0  # seconds of lateness that mean this node slept (THREATS: F04)
