"""The commands ``aimfair measure noise``, ``styles`` and ``transfer``: what is measured beside trainings."""

from __future__ import annotations

import argparse
from typing import Any

from aimfair.commands._options import add, chosen_seeds, group_of, open_study

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_measure_noise(options: argparse.Namespace) -> None:
    """Measure the noise of AIM-Fair's gradient scores: gaps between two halves of the same faces.

    $ aimfair measure noise --seeds all

    One run per seed, kept in data/runs/ like a training, and published with the study."""
    import numpy as np

    from aimfair.analysis import stability

    opened, seeds = _study_and_seeds(options)
    print(f"{'seed':>5}   tensors whose bias gap is above its noise, share of it that is noise (median)")
    for seed in seeds:
        noise, (_, bias) = opened.measure("score-noise", seed).scores, opened.gaps(seed)
        floor = stability.floor(noise["biased"], noise["balanced"])
        above = sum(bias[name] > floor[name] for name in bias)
        share = np.median([floor[name] / max(bias[name], 1e-300) for name in bias])
        print(f"{seed:5}   {above} of {len(bias)}, {share:.2f}", flush=True)


def command_measure_styles(options: argparse.Namespace) -> None:
    """Measure whether classifiers tell synthetic faces from real ones, and to which protected value they lean on each.

    $ aimfair measure styles erm repairing --seeds all

    Only ERM's weights are kept: any other classifier is trained again for this. One run per method and seed, kept in
    data/runs/ like a training, and published with the study."""
    opened, seeds = _study_and_seeds(options)
    print(f"{'method':24} {'seed':>5}   probe tells the style, lean on real faces, on synthetic ones")
    for method in options.names:
        for seed in seeds:
            told = opened.measure("style-lean", seed, of=method).scores
            print(
                f"{method:24} {seed:5}   {told['probe']:.1f} %, {told['real']:+.1f}, {told['synthetic']:+.1f} points",
                flush=True,
            )


def command_measure_transfer(options: argparse.Namespace) -> None:
    """Test classifiers on faces of another source: another data set with the same attributes, another look.

    $ aimfair measure transfer                                     places of the profile; nothing is computed
    $ aimfair measure transfer erm aim-fair --seeds all            in every place, chosen learning rates
    $ aimfair measure transfer erm full-finetuning aim-fair --profile utkface --data path/to/utkface \\
          --on fairface-training --elsewhere path/to/fairface

    Only ERM's weights are kept: any other classifier is trained again for this. Finished tests are found again."""
    from aimfair.analysis import transfer
    from aimfair.study import search

    opened, seeds = _study_and_seeds(options)
    places = transfer.places(opened)
    if not options.names:
        for name, place in places.items():
            print(f"{name:20} {place.about}" + (f" ({place.drawn_from})" if place.drawn_from else ""))
        if not places:
            print(f"no other data set here has the attributes of {opened.profile.profile}")
        return
    wanted = options.on or list(places)
    for name in wanted:
        transfer.place_of(opened, name)
    print(f"{'method':24} {'seed':>5} {'place':20} {'ACC':>6} {'WST':>6} {'EO max':>6}   at home")
    for method in options.names:
        for seed in seeds:
            run = search.run(opened, method, seed)
            tests = transfer.tests(opened, method, seed, wanted, options.elsewhere, **run.config["hyper"])
            for name, test in tests.items():
                there, home = test.report(), test.report("home")
                scores = f"{there.acc:6.2f} {there.wst:6.2f} {there.eo_max:6.2f}"
                print(
                    f"{method:24} {seed:5} {name:20} {scores}   {home.acc:.2f} {home.wst:.2f} {home.eo_max:.2f}",
                    flush=True,
                )


def _study_and_seeds(options: argparse.Namespace) -> tuple[Any, list[int]]:
    from aimfair.study import profiles

    opened = open_study(options)
    return opened, chosen_seeds(options.seeds, profiles.SEEDS, opened.profile.seeds)


def register(commands: Any) -> None:
    """Add ``aimfair measure`` with its commands."""
    among = group_of(commands, "measure", "What is measured beside trainings", "What is to be measured.")
    for command in (command_measure_noise, command_measure_styles, command_measure_transfer):
        sub = add(among, command, study=True, pool=True, group="measure")
        sub.add_argument("--seeds", nargs="+", default=["100"], help="seeds, or all (100)")
        if command is command_measure_styles:
            sub.add_argument("names", nargs="+", metavar="METHOD", help="names of methods")
        if command is command_measure_transfer:
            sub.add_argument("names", nargs="*", metavar="METHOD", help="names of methods")
            sub.add_argument("--on", nargs="+", default=[], metavar="PLACE", help="some of the places (all)")
            sub.add_argument("--elsewhere", default="", metavar="PATH", help="folder of the other data set")
