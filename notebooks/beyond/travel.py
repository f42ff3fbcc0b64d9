"""What tests of classifiers on faces of another source say: see :mod:`beyond.transfer`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import norm

from aimfair import methods, metrics
from aimfair.environment import AimfairError
from aimfair.stats import Difference, hierarchical_bootstrap, paired_difference
from aimfair.study import Study
from aimfair.study.runs import Run
from beyond import transfer


def frame(study: Study) -> pd.DataFrame:
    """A row per finished test of the study; empty where it has none.

    Columns: place, method (its title), seed, drift, the fairness report in the place, and "home acc", "home wst"
    and "home eo_max" of the same classifier.
    """
    rows = []
    for name in transfer.places(study):
        for method in methods.registry().values():
            for run in transfer.results(study, name, method.name):
                row = {
                    "place": name,
                    "method": method.title,
                    "seed": run.seed,
                    "drift": run.scores["drift"],
                }
                home = run.report("home")
                at_home = {
                    f"home {metric}": getattr(home, metric)
                    for metric in ("acc", "wst", "eo_max")
                }
                rows.append(row | run.report().as_dict() | at_home)
    return pd.DataFrame(rows)


def moved(study: Study, name: str, method: str, metric: str, draws: int = 1000) -> Difference:
    """A metric ("acc", "wst" or "eo_max") in a place minus at home, mean over seeds, in points, with 95 % interval.

    All seeds share the two sets of test faces, and these are two samples. Seeds alone would ascribe to the place
    what happens to be in the samples. So a bootstrap over the faces of both sets widens the interval over seeds
    (:func:`aimfair.stats.interval`): the squares of the half-widths add up. Where both sets show the same faces
    this is too wide. ``p`` is the sign-flip test over seeds alone. Raises AimfairError without a test.
    """
    tested = transfer.results(study, name, method)
    if not tested:
        raise AimfairError(
            f"no test of {method} on {name} yet: beyond.transfer.tests makes one"
        )
    away, home = (
        [getattr(run.report(split), metric) for run in tested] for split in ("test", "home")
    )
    over_seeds = paired_difference(away, home)
    samples = [
        _resampled(tested, split, metric, draws, i) for i, split in enumerate(("test", "home"))
    ]
    over_faces, mean = norm.ppf(0.975) * np.std(samples[0] - samples[1]), over_seeds.mean
    low = mean - np.hypot(mean - over_seeds.low, over_faces)
    high = mean + np.hypot(mean - over_seeds.high, over_faces)
    return replace(over_seeds, low=float(low), high=float(high))


def _resampled(tested: list[Run], split: str, metric: str, draws: int, seed: int) -> np.ndarray:
    """(draws,) mean over the runs of a metric, if the faces of ``split`` were drawn again, the same for all."""
    tables = [run.predictions[run.predictions["split"] == split] for run in tested]
    group = (2 * tables[0]["target"] + tables[0]["protected"]).to_numpy()
    right = np.stack([table["predicted"] == table["target"] for table in tables])
    cells = hierarchical_bootstrap(right[:, None], group, draws, seed)[:, :, 0]
    if metric == "acc":
        return (cells @ np.bincount(group, minlength=4) / len(group)).mean(1)
    return getattr(metrics, metric)(cells).mean(1)
