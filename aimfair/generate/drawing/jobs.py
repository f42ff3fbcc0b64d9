"""What is to be drawn: one job per image, with a seed of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from aimfair.environment import AimfairError
from aimfair.faces import GROUPS
from aimfair.prompts import Prompt


@dataclass(frozen=True)
class Job:
    """One image to draw.

    pair       "<Target>_<Protected>", the folder of the task
    number     place of the image in its group; never changes when replicates are added
    replicate  how many images of the same prompt come before this one
    seed       of the image's own noise, 63 bits
    """

    pair: str
    number: int
    prompt_id: str
    prompt: str
    target: int
    protected: int
    replicate: int
    seed: int

    @property
    def path(self) -> str:
        """Where the image lies below the pool's folder, e.g. ``Smiling_Male/1_0/00042.png``."""
        return f"{self.pair}/{self.target}_{self.protected}/{self.number:05d}.png"


def jobs(prompts: Sequence[Prompt], per_group: int, pair: str, draw: int = 0) -> list[Job]:
    """``per_group`` jobs for each of the four groups, spread evenly over the group's prompts.

    draw  another number gives every job another seed: another pool of the same prompts

    Raises AimfairError if a group has no prompt.
    """
    todo = []
    for target, protected in GROUPS:
        bank = [p for p in prompts if (p.target, p.protected) == (target, protected)]
        if not bank:
            raise AimfairError(
                f"no prompt for group ({target}, {protected}) of {pair}: a bank needs some for all four groups"
            )
        for number in range(per_group):
            replicate, place = divmod(number, len(bank))
            prompt = bank[place]
            key = f"{pair}|{target}_{protected}|{prompt.id}|{replicate}" + (f"|draw {draw}" if draw else "")
            seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1
            todo.append(Job(pair, number, prompt.id, prompt.text, target, protected, replicate, seed))
    return todo
