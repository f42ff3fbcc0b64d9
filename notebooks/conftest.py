"""Stored outputs hold no progress bars, so the runs that nbval compares with them must not print any."""

import os

os.environ["AIMFAIR_PROGRESS"] = "off"
