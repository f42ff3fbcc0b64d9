"""AIM-Fair with cosine distance in place of the absolute difference (Table 4)."""

from dataclasses import replace

from aimfair.methods import aim_fair

METHOD = replace(
    aim_fair.METHOD,
    name="aim-fair-cosine",
    title="AIM-Fair (cosine)",
    source="Table 4, row 'Selective Fine-Tuning (Cosine Similarity)'",
    defaults={**aim_fair.METHOD.defaults, "score": "cosine"},
)
