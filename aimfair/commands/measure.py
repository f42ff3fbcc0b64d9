"""The command ``aimfair measure``: what is measured beside trainings."""

from __future__ import annotations

import argparse
from typing import Any

from aimfair.commands._options import add, chosen_seeds, open_study

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_measure(options: argparse.Namespace) -> None:
    """Measure something of a study beside trainings, or test its classifiers on faces of another source.

    $ aimfair measure                                     names of what can be measured; nothing is computed
    $ aimfair measure score-noise --seeds all             of a study
    $ aimfair measure style-lean erm repairing            of the classifiers of these methods
    $ aimfair measure transfer                            places of the profile; nothing is computed
    $ aimfair measure transfer erm aim-fair --seeds all   in every place, chosen learning rates
    $ aimfair measure transfer erm aim-fair --profile utkface --data path/to/utkface \\
          --on fairface-training --elsewhere path/to/fairface

    One run per seed (and method), kept in data/runs/ like a training, found again, and published with the study. Only
    ERM's weights are kept: any other classifier is trained again for this."""
    from aimfair.study import measurements, profiles

    if not options.name:
        print(*measurements.registry(), "transfer", sep="\n")
        return
    opened = open_study(options)
    seeds = chosen_seeds(options.seeds, profiles.SEEDS, opened.profile.seeds)
    if options.name == "transfer":
        _transfer(opened, seeds, options)
        return
    for of in options.methods or [""]:
        for seed in seeds:
            scores = opened.measure(options.name, seed, **({"of": of} if of else {})).scores
            numbers = [f"{name} {value:.4g}" for name, value in scores.items() if isinstance(value, int | float)]
            print(f"{options.name:16} {of:24} {seed:5}   {', '.join(numbers)}", flush=True)


def _transfer(opened: Any, seeds: list[int], options: argparse.Namespace) -> None:
    from aimfair.study import search, transfer

    places = transfer.places(opened)
    if not options.methods:
        for name, place in places.items():
            print(f"{name:20} {place.about}" + (f" ({place.drawn_from})" if place.drawn_from else ""))
        if not places:
            print(f"no other data set here has the attributes of {opened.profile.profile}")
        return
    wanted = options.on or list(places)
    for name in wanted:
        transfer.place_of(opened, name)  # an unknown one is refused before anything is trained
    print(f"{'method':24} {'seed':>5} {'place':20} {'ACC':>6} {'WST':>6} {'EO max':>6}   at home")
    for method in options.methods:
        for seed in seeds:
            hyper = search.run(opened, method, seed).config["hyper"]
            for name, test in transfer.tests(opened, method, seed, wanted, options.elsewhere, **hyper).items():
                away, home = test.report(), test.report("home")
                scores = f"{away.acc:6.2f} {away.wst:6.2f} {away.eo_max:6.2f}"
                at_home = f"{home.acc:.2f} {home.wst:.2f} {home.eo_max:.2f}"
                print(f"{method:24} {seed:5} {name:20} {scores}   {at_home}", flush=True)


def register(commands: Any) -> None:
    """Add it to the commands."""
    measure = add(commands, command_measure, study=True, pool=True)
    measure.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="what is measured (its names, if left out)"
    )
    measure.add_argument("methods", nargs="*", metavar="METHOD", help="methods whose classifiers are measured")
    measure.add_argument("--seeds", nargs="+", default=["100"], help="seeds, or all (100)")
    measure.add_argument("--on", nargs="+", default=[], metavar="PLACE", help="places of transfer (all)")
    measure.add_argument("--elsewhere", default="", metavar="PATH", help="folder of the other data set of transfer")
