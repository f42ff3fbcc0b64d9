"""Commands that need more than a few lines of :mod:`aimfair.cli`, one file each."""
