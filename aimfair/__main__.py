"""``python -m aimfair``: the same as the command ``aimfair``."""

import sys

from aimfair.cli import main

sys.exit(main())
