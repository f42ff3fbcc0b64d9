"""What the paper says of its method, as comparisons that runs can decide.

A claim is a sentence and its parts: pairs of rows of a table (or of a figure, of which only the sign is told) with a
metric and the sign that the sentence gives the difference. It is judged for each study that has a place for the table, in
every task there: contradicted if one part is, standing if all parts do, see :mod:`aimfair.paper.rule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from aimfair.paper.comparisons import compared, signed
from aimfair.paper.reading import BEST_SHARE, Reading
from aimfair.paper.rule import ZERO, Verdict, together
from aimfair.stats import holm

ERM, FULL, AIM = "Baseline (ERM)", "Full fine-tuning", "AIM-Fair"
EARLY, LATE = "selected, early half", "selected, late half"
UNTOLD = ("CVaR DRO", "EIIL", "LfF", "JTT", "MAPLE (oracle)", "Generative editing (DiGA-style)")
AMOUNTS = ("half as many", "1.5 times as many", "twice as many")


@dataclass(frozen=True)
class Part:
    """``row`` minus ``against`` has the ``sign``, after ``margin`` points are added to it."""

    row: str
    against: str
    metric: str
    sign: int
    margin: float = 0.0


@dataclass(frozen=True)
class PaperClaim:
    """A sentence of the paper in our words, the tables or figures that it is about, and what would have to be seen.

    everywhere  of a figure: the paper says it of all its data sets, not of Smiling / Male alone
    """

    text: str
    where: tuple[str, ...]
    parts: tuple[Part, ...]
    everywhere: bool = False


def fairer(row: str, *against: str) -> tuple[Part, ...]:
    """A higher worst group and a smaller violation of equalised odds than each of the others."""
    return tuple(Part(row, other, metric, sign) for other in against for metric, sign in (("wst", 1), ("eo", -1)))


def better(row: str, *against: str) -> tuple[Part, ...]:
    """A higher accuracy and a higher worst group than each of the others."""
    return tuple(Part(row, other, metric, 1) for other in against for metric in ("acc", "wst"))


CLAIMS = (
    PaperClaim(
        "Fine-tuning a biased model on balanced synthetic faces makes it fairer",
        ("Table 3",),
        fairer(AIM, ERM) + fairer(FULL, ERM),
    ),
    PaperClaim(
        "AIM-Fair keeps the biased model's accuracy: at most a point is lost",
        ("Table 3",),
        (Part(AIM, ERM, "acc", 1, 1.0),),
    ),
    PaperClaim("Full fine-tuning pays with accuracy", ("Table 3",), (Part(FULL, ERM, "acc", -1),)),
    PaperClaim(
        "AIM-Fair is more accurate and fairer than full fine-tuning",
        ("Table 3",),
        (Part(AIM, FULL, "acc", 1), *fairer(AIM, FULL)),
    ),
    PaperClaim(
        "Synthetic faces alone make a fairer but less accurate model than biased real ones",
        ("Table 3",),
        (Part("Trained on synthetic only", ERM, "acc", -1), *fairer("Trained on synthetic only", ERM)),
    ),
    PaperClaim(
        "Adding synthetic faces to the real ones repairs less than AIM-Fair",
        ("Table 3",),
        fairer(AIM, "Data supplementation", "Data repairing"),
    ),
    PaperClaim(
        "AIM-Fair's worst group is above that of random and of block-wise selections",
        ("Table 4",),
        tuple(Part(AIM, other, "wst", 1) for other in (BEST_SHARE, "One block updated", "One block frozen")),
    ),
    PaperClaim(
        "The absolute gradient difference selects better than cosine similarity",
        ("Table 4",),
        fairer(AIM, "AIM-Fair (cosine)"),
    ),
    PaperClaim(
        "AIM-Fair is fairer than every other method that is told no group",
        ("Table 1",),
        fairer(AIM, *UNTOLD),
    ),
    PaperClaim("It is so with fewer real faces, too", ("Table 2",), fairer(AIM, *UNTOLD)),
    PaperClaim(
        "Contextual prompts make better training faces than a plain one; more of them, and poses, still better",
        ("Table 5",),
        better("25 contextual prompts", "Plain prompt")
        + better("50 contextual prompts", "25 contextual prompts")
        + better("50 contextual prompts with head poses", "50 contextual prompts"),
    ),
    PaperClaim(
        "With a wrongly assumed bias ratio AIM-Fair still beats full fine-tuning",
        ("Table 6",),
        tuple(part for ratio in ("2:8", "3:7", "4:6") for part in better(f"AIM-Fair, {ratio}", FULL)),
    ),
    PaperClaim(
        "As many synthetic faces as real ones are the fairest amount",
        ("Table 7", "Table 10"),
        fairer("AIM-Fair, as many", *(f"AIM-Fair, {amount}" for amount in AMOUNTS)),
    ),
    PaperClaim(
        "With a vision transformer selection beats full fine-tuning and LoRA",
        ("Table 8",),
        better(AIM, FULL, "LoRA"),
    ),
    PaperClaim(
        "Mixing real and synthetic faces (LTGC) does not repair what AIM-Fair repairs",
        ("Table 9",),
        fairer(AIM, "LTGC-style mixing"),
    ),
    PaperClaim(
        "Where the biased model is good already, AIM-Fair makes it fairer and less accurate",
        ("Table 11",),
        (Part(AIM, ERM, "eo", -1), Part(AIM, ERM, "acc", -1)),
    ),
    PaperClaim(
        "Which block is frozen decides what fine-tuning does to accuracy and fairness",
        ("Figure 2",),
        (
            Part("fc frozen", FULL, "wst", 1),
            Part("fc frozen", FULL, "eo", -1),
            Part("fc frozen", FULL, "acc", -1),
            Part("layer2 frozen", FULL, "acc", 1),
            Part("layer2 frozen", FULL, "wst", -1),
            Part("layer2 frozen", FULL, "eo", 1),
            Part("layer1 frozen", FULL, "acc", 1),
            Part("layer1 frozen", FULL, "wst", 1),
        ),
    ),
    PaperClaim(
        "k = 55 is the fairest; fewer tensors are more accurate, more tensors are less so",
        ("Figure 5",),
        fairer("AIM-Fair, k = 55", *(f"AIM-Fair, k = {k}" for k in (40, 45, 50, 60)))
        + (
            Part("AIM-Fair, k = 40", "AIM-Fair, k = 55", "acc", 1),
            Part("AIM-Fair, k = 60", "AIM-Fair, k = 55", "acc", -1),
        ),
    ),
    PaperClaim("Most selected tensors lie in early layers", ("Figure 8",), (Part(EARLY, LATE, "tensors", 1),), True),
)
"""In the order of the summary. For the figures that print no numbers "frozen" is read as against full fine-tuning, block 1
as ``layer1``, and early layers as the half of the tensors up to ``layer2``."""


def evidence(claim: PaperClaim, reading: Reading) -> pd.DataFrame:
    """The comparisons that decide a claim in a study, a line each: keys of :func:`aimfair.paper.comparisons.compared`.

    Empty where the paper prints nothing of the study's kind.
    """
    found = [
        compared(reading, block, part.row, part.against, part.metric, part.margin, part.sign)
        for block in reading.blocks
        if f"Table {next(iter(block.values()))['table']}" in claim.where
        for part in claim.parts
        if part.row in block and part.against in block
    ]
    task = f"{reading.profile.target} / {reading.profile.protected}"
    drawn = reading.profile.dataset == "faceworld" or task == "Smiling / Male" or claim.everywhere
    figures = [name for name in claim.where if name.startswith("Figure") and reading.has(name) and drawn]
    found += [signed(reading, f, p.row, p.against, p.metric, p.sign) for f in figures for p in claim.parts]
    return pd.DataFrame(found)


def judge(claim: PaperClaim, reading: Reading) -> Verdict:
    """The verdict on a claim in one study, and how many of its comparisons say what.

    One comparison suffices to contradict a claim, and the more a claim has, the sooner one does so by chance. Beside
    "contradicted" stands therefore the smallest p-value of a contradicting comparison, adjusted for all that the claim has
    here (Holm).
    """
    found = evidence(claim, reading)
    judged = together([Verdict(line.verdict, line.why) for line in found.itertuples()])
    if judged.word != "contradicted":
        return judged
    decided = found[found["verdict"].ne("cannot be judged") | found["why"].eq(ZERO)]
    p = holm(decided["p"])[decided["verdict"].eq("contradicted")].min()
    return Verdict(judged.word, f"{judged.why}; Holm p {p:.3f}")


def summary(readings: Sequence[Reading], claims: Sequence[PaperClaim] = CLAIMS) -> pd.DataFrame:
    """A row per claim: its words, where the paper makes it, and for each study the verdict and the counts behind it.

    Columns are ``claim``, ``paper``, and (name of the study) and (name of the study + " why").
    """
    rows = []
    for claim in claims:
        row = {"claim": claim.text, "paper": " and ".join(claim.where)}
        for reading in readings:
            judged = judge(claim, reading)
            row |= {reading.name: judged.word, f"{reading.name} why": judged.why}
        rows.append(row)
    return pd.DataFrame(rows)
