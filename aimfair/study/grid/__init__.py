"""The grid: all cells of some tables, which of them have their run, and having the others computed.

A run that several tables show is one run. Finished runs are found by their configuration, so that a grid that was stopped
goes on where it was, whichever workers, machine or table they were computed for.
"""

from aimfair.study.grid.lookup import Machine as Machine
from aimfair.study.grid.lookup import chosen as chosen
from aimfair.study.grid.lookup import described as described
from aimfair.study.grid.lookup import identified as identified
from aimfair.study.grid.lookup import missing as missing
from aimfair.study.grid.lookup import publish as publish
from aimfair.study.grid.lookup import resolved as resolved
from aimfair.study.grid.lookup import study_of as study_of
from aimfair.study.grid.lookup import summary as summary
from aimfair.study.grid.tasks import Task as Task
from aimfair.study.grid.tasks import compute as compute
from aimfair.study.grid.tasks import graph as graph
