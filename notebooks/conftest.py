"""How nbval compares the chapters: with the published runs alone, and what is computed anew within a tolerance."""

import atexit
import os
import re
import shutil
import tempfile

from nbval.plugin import IPyNbCell

# Stored outputs hold no progress bars and come from published runs, so the runs that nbval compares must too.
os.environ["AIMFAIR_PROGRESS"] = "off"
os.environ["AIMFAIR_RUNS"] = tempfile.mkdtemp(prefix="aimfair-runs-")
atexit.register(shutil.rmtree, os.environ["AIMFAIR_RUNS"], ignore_errors=True)

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def near(new, stored):
    """``stored`` in place of ``new`` where both say the same with numbers that another processor may have given.

    That is within 3 % and one unit (of decimal fractions .05); the words between the numbers, and how many there are,
    must be the same. Blanks and rules do not count: a digit more makes a column wider.
    """
    if isinstance(new, dict) and isinstance(stored, dict):
        return type(new)(
            {
                key: near(value, stored[key]) if key in stored else value
                for key, value in new.items()
            }
        )
    if isinstance(new, list) and isinstance(stored, list) and len(new) == len(stored):
        return [near(*pair) for pair in zip(new, stored, strict=True)]
    if not (isinstance(new, str) and isinstance(stored, str)):
        return new
    words, others = (re.sub(r"[\s-]+", "", NUMBER.sub("#", text)) for text in (new, stored))
    pairs = list(zip(NUMBER.findall(new), NUMBER.findall(stored), strict=False))
    fits = [
        abs(float(a) - float(b)) <= 0.03 * abs(float(b)) + (0.05 if "." in a + b else 1)
        for a, b in pairs
    ]
    return stored if words == others and all(fits) else new


exactly = IPyNbCell.compare_outputs


def compare_outputs(cell, test, ref, skip_compare=None):
    """nbval's comparison. Cells tagged ``computed-here`` show what was computed just now, not what a published run says."""
    if "computed-here" in cell.cell.metadata.get("tags", []):
        test = near(test, ref)
    return exactly(cell, test, ref, skip_compare)


IPyNbCell.compare_outputs = compare_outputs
