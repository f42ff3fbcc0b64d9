"""The exceptions that aimfair raises on purpose."""


class AimfairError(Exception):
    """Something the user can mend: one line that says what, where and what to do.

    The command line prints it without a traceback and ends with exit status 2; a notebook shows it as
    the last line of the cell.
    """


class Diverged(AimfairError):
    """A training whose loss is no longer a number. Of a search it is an outcome: that value is no good."""
