"""The commands of ``aimfair``, a file for each that is more than a line, or for a few that belong together."""
