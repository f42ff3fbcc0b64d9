"""Stored outputs hold no progress bars and come from published runs, so the runs that nbval compares must too."""

import atexit
import os
import shutil
import tempfile

os.environ["AIMFAIR_PROGRESS"] = "off"
os.environ["AIMFAIR_RUNS"] = tempfile.mkdtemp(prefix="aimfair-runs-")
atexit.register(shutil.rmtree, os.environ["AIMFAIR_RUNS"], ignore_errors=True)
