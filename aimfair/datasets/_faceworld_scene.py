"""What is in each picture of FaceWorld: latent scene parameters, before a single pixel is drawn.

Scenes are drawn in blocks of 1,000 ids, every parameter for the whole block in a fixed order, from a
counter-based generator keyed by (seed, split, block). A face is therefore the same whichever faces are
drawn with it.

The target is hard and the protected attribute is easy on purpose: a smile is one latent that shows
through several noisy cues which overlap between the classes, while gender shows through many strong ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from aimfair.environment import AimfairError

Scene = dict[str, np.ndarray]
"""Parameter name -> (n,) float32, one value per face. Lengths are in head units: the chin is at v = 1."""

SPLITS = ("train", "validation", "test", "corpus")
BLOCK = 1_000
CAPACITY = 1_000_000  # ids of one split; the split's offset in the number that names a face

# P(group) of (Smiling, Male) and P(Young | Male) as counted in CelebA's 202,599 labels.
GROUP_SHARES = (0.268, 0.250, 0.315, 0.167)
YOUNG_SHARE = {0: 0.87, 1: 0.64}
YOUNG_SHIFT = 0.02  # smiling faces are slightly younger

# How far the latent smile of the two classes lies apart (+-1 without noise) and how noisily each cue shows it.
SMILE_SPREAD = 0.33
CUE_NOISE = {"curve": 0.57, "open": 0.67, "width": 1.0, "squint": 1.2, "fold": 1.1}
CORPUS_CLARITY = 0.5  # the same noises, scaled, where a caption must be true to the eye
MALE_SPREAD = 0.45


def scenes(seed: int, split: str, n: int, do: Mapping[str, int] | None = None) -> Scene:
    """Parameters of faces 0 to n-1 of ``split``.

    do  values of smiling, male or young that replace the drawn ones. No label decides how many numbers are drawn
        after it, so the rest of chance falls as it did: these are counterfactuals of the same scenes.

    Raises AimfairError for more than a million faces, the number that a face's name has room for.
    """
    if not 0 <= n <= CAPACITY:
        raise AimfairError(f"FaceWorld has 0 to {CAPACITY:,} faces per split, not {n:,} ({split}): ask for fewer")
    blocks = [_block(seed, split, b, do or {}) for b in range(max(1, -(-n // BLOCK)))]
    return {key: np.concatenate([block[key] for block in blocks])[:n] for key in blocks[0]}


class _Dice:
    """One value per face of a block, each call the next draw of the block's generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def normal(self, scale: float = 1.0, low: float = -3.0, high: float = 3.0) -> np.ndarray:
        return np.clip(self.rng.standard_normal(BLOCK), low, high) * scale

    def uniform(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        return self.rng.uniform(low, high, BLOCK)

    def chance(self, p: np.ndarray | float) -> np.ndarray:
        """1.0 with probability ``p``, else 0.0."""
        return (self.rng.random(BLOCK) < p).astype(np.float64)


def _block(seed: int, split: str, block: int, do: Mapping[str, int]) -> Scene:
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, SPLITS.index(split), block))))
    dice, corpus = _Dice(rng), split == "corpus"
    s: Scene = {}
    _labels(s, rng, corpus)
    s.update({name: np.full(BLOCK, float(value)) for name, value in do.items()})
    _smile(s, dice, corpus)
    _gender_and_age(s, dice, corpus)
    _hair(s, dice)
    _accessories(s, dice)
    _camera(s, dice, corpus)
    return {key: value.astype(np.float32) for key, value in s.items()}


def _labels(s: Scene, rng: np.random.Generator, corpus: bool) -> None:
    """Smiling, Male, Young: CelebA's joint distribution, or each of the eight combinations equally often."""
    if corpus:
        code = rng.permutation(np.arange(BLOCK) % 8)
        s["smiling"], s["male"], s["young"] = (code // 4 * 1.0, code // 2 % 2 * 1.0, code % 2 * 1.0)
        return
    group = rng.choice(4, BLOCK, p=np.array(GROUP_SHARES) / sum(GROUP_SHARES))
    s["smiling"], s["male"] = group // 2 * 1.0, group % 2 * 1.0
    share = np.where(s["male"] == 1, YOUNG_SHARE[1], YOUNG_SHARE[0]) + YOUNG_SHIFT * (2 * s["smiling"] - 1)
    s["young"] = (rng.random(BLOCK) < share) * 1.0


def _smile(s: Scene, dice: _Dice, corpus: bool) -> None:
    sign = 2 * s["smiling"] - 1
    latent = sign + dice.normal(SMILE_SPREAD)
    clarity = 1.0
    if corpus:
        latent, clarity = sign * np.maximum(sign * latent, 0.85), CORPUS_CLARITY
    cue = {name: latent + dice.normal(noise * clarity) for name, noise in CUE_NOISE.items()}
    s["curve"] = 0.03 + 0.095 * cue["curve"].clip(min=0) + 0.055 * cue["curve"].clip(max=0)
    talking = dice.chance(0.22 * clarity) * dice.uniform(0.06, 0.17)
    s["open"] = np.maximum(np.clip(0.035 + 0.075 * cue["open"], 0, 0.24), talking)
    s["mouth_width"] = np.clip(0.41 + 0.035 * cue["width"], 0.34, 0.52)
    s["teeth"] = np.clip(0.55 + 0.30 * cue["open"] + dice.normal(0.35), 0, 1)
    s["squint"] = np.clip(0.35 + 0.16 * cue["squint"], 0, 0.75)
    s["fold"] = np.clip(0.25 + 0.25 * cue["fold"] + 0.25 * (1 - s["young"]), 0, 1)
    s["cheek"] = np.clip(0.3 + 0.22 * cue["fold"] + dice.normal(0.2), 0, 1)
    s["brow_tilt"] = dice.normal(0.12) + 0.02 * latent
    s["mouth_skew"] = dice.normal(0.03 * clarity)


def _gender_and_age(s: Scene, dice: _Dice, corpus: bool) -> None:
    male, old = s["male"], 1 - s["young"]
    spread = MALE_SPREAD * (0.6 if corpus else 1.0)
    latent = 2 * male - 1 + dice.normal(spread)
    s["head_width"] = np.clip(0.775 + 0.025 * latent + dice.normal(0.03), 0.68, 0.88)
    s["jaw"] = np.clip(0.36 + 0.22 * latent + dice.normal(0.10), 0, 0.85)
    s["taper"] = np.clip(0.13 - 0.07 * latent + dice.normal(0.04), 0, 0.32)
    s["neck"] = np.clip(0.44 + 0.07 * latent + dice.normal(0.03), 0.3, 0.62)
    s["brow_thick"] = np.clip(0.066 + 0.026 * latent + dice.normal(0.010), 0.03, 0.13)
    s["brow_height"] = 0.265 - 0.025 * latent + dice.normal(0.02)
    s["brow_arch"] = np.clip(0.045 - 0.03 * latent + dice.normal(0.02), -0.02, 0.12)
    s["lash"] = np.clip(0.45 - 0.4 * latent + dice.normal(0.15), 0, 1)
    s["lip"] = np.clip(0.075 - 0.018 * latent + dice.normal(0.012), 0.04, 0.12)
    s["nose_width"] = np.clip(0.15 + 0.02 * latent + dice.normal(0.02), 0.10, 0.22)
    s["lipstick"] = dice.chance(np.where(male == 1, 0.0, 0.62))
    s["lipstick_hue"] = dice.uniform()

    beard = dice.uniform()
    kinds = np.digitize(beard, (0.48, 0.60, 0.72, 0.84))  # none, stubble, moustache, goatee, full beard
    kinds = np.where(male == 1, kinds, 0)
    s["stubble"] = (kinds == 1) * 1.0
    s["mustache"] = np.maximum((kinds == 2) * 1.0, np.where(kinds >= 3, dice.chance(0.6), 0 * dice.chance(0.6)))
    s["goatee"] = (kinds == 3) * 1.0
    s["beard"] = (kinds == 4) * 1.0
    s["mustache"] = np.maximum(s["mustache"], s["beard"])

    clarity = CORPUS_CLARITY if corpus else 1.0
    age = 2 * old - 1 + dice.normal(0.45 * clarity)
    clip = (0.0, 1.0)
    s["wrinkle"] = np.clip(0.30 + 0.42 * age + dice.normal(0.12), *clip)
    s["bags"] = np.clip(0.35 + 0.35 * age + dice.normal(0.20), *clip)
    s["crow"] = np.clip(0.20 + 0.40 * age + dice.normal(0.20), *clip)
    s["sag"] = np.clip(0.5 + 0.4 * age + dice.normal(0.2 * clarity), *clip)
    s["gray"] = dice.chance(np.where(old == 1, 0.62, 0.025))

    s["skin"] = dice.uniform() ** 1.25
    s["skin_tint"] = dice.normal(0.5)
    s["eye_hue"] = dice.uniform()
    s["eye_size"] = np.clip(1 - 0.04 * latent + dice.normal(0.07), 0.8, 1.2)
    s["eye_gap"] = 0.355 + dice.normal(0.015)


def _hair(s: Scene, dice: _Dice) -> None:
    male, old = s["male"], 1 - s["young"]
    dark = s["skin"]
    pick = dice.uniform()
    black = 0.18 + 0.65 * dark
    blond = black + 0.30 * (1 - dark)
    red = blond + 0.07 * (1 - dark)
    tone = np.where(pick < black, 0, np.where(pick < blond, 2, np.where(pick < red, 3, 1)))
    s["hair_tone"] = np.where(s["gray"] == 1, 4, tone) * 1.0  # black, brown, blond, red, gray
    s["hair_shade"] = dice.normal(1.0)
    s["long"] = dice.chance(np.where(male == 1, 0.07, 0.76 - 0.18 * old))
    s["bald"] = dice.chance(np.where(male == 1, 0.06 + 0.16 * old, 0.0))
    s["long"] = np.where(s["bald"] == 1, 0, s["long"])
    s["curl"] = np.clip(dice.uniform(-0.5, 1.1), 0, 1)
    afro = dice.chance(0.35 * dark) * (1 - s["long"])
    s["curl"] = np.maximum(s["curl"], afro)
    s["puff"] = np.where(afro == 1, dice.uniform(0.20, 0.38), dice.uniform(0.08, 0.19)) - 0.03 * male * (1 - afro)
    fringe = dice.chance(np.where(male == 1, 0.18, 0.34))
    receding = male * old * dice.uniform(0, 0.18)
    s["hairline"] = np.where(fringe == 1, dice.uniform(-0.46, -0.38), dice.uniform(-0.72, -0.56)) - receding
    s["part"] = dice.uniform(-0.5, 0.5)
    s["part_slope"] = np.where(fringe == 1, dice.uniform(-0.05, 0.10), dice.uniform(0.0, 0.42))
    short_side = dice.uniform(-0.22, 0.14) + 0.22 * (1 - male)
    s["side"] = np.where(s["long"] == 1, dice.uniform(0.6, 1.5), short_side)
    s["hair_length"] = np.where(s["long"] == 1, np.maximum(dice.uniform(0.95, 2.2), s["side"] + 0.1), short_side + 0.05)
    s["flare"] = dice.uniform(0.0, 0.22)
    s["bun"] = dice.chance((1 - male) * 0.30) * (1 - s["long"])


def _accessories(s: Scene, dice: _Dice) -> None:
    male, old = s["male"], 1 - s["young"]
    s["glasses"] = dice.chance(0.08 + 0.07 * male + 0.09 * old)
    s["glasses_size"] = dice.uniform(0.23, 0.30)
    s["glasses_square"] = dice.uniform()
    s["glasses_hue"] = dice.uniform()
    s["glasses_tint"] = dice.chance(0.25) * dice.uniform(0.15, 0.40)
    s["hat"] = dice.chance(0.06 + 0.05 * male)
    s["hat_kind"] = np.floor(dice.uniform(0, 3))  # beanie, brimmed hat, cap
    s["hat_hue"], s["hat_value"] = dice.uniform(), dice.uniform()
    s["earrings"] = dice.chance(np.where(male == 1, 0.02, 0.38))
    s["earring_size"] = dice.uniform(0.06, 0.10)
    s["cloth_hue"], s["cloth_saturation"], s["cloth_value"] = dice.uniform(), dice.uniform(), dice.uniform()
    s["collar"] = dice.uniform()


def _camera(s: Scene, dice: _Dice, corpus: bool) -> None:
    """Pose, framing, light, background. yaw > 0: turned to the right of the picture; roll in degrees."""
    if corpus:  # every pose of the captions, often
        s["yaw"], s["roll"], s["pitch"] = dice.normal(0.45, -2, 2), dice.normal(6.0, -2, 2), dice.normal(0.45, -2, 2)
    else:
        s["yaw"], s["roll"], s["pitch"] = (
            dice.normal(0.38, -2.4, 2.4),
            dice.normal(5.0, -2.6, 2.6),
            dice.normal(0.38, -2.4, 2.4),
        )
    angle = np.deg2rad(s["roll"])
    s["cos"], s["sin"] = np.cos(angle), np.sin(angle)
    s["scale"] = dice.uniform(0.59, 0.70)
    s["x"] = dice.uniform(-0.10, 0.10)
    s["y"] = dice.uniform(0.00, 0.12)
    s["gaze"] = dice.normal(0.045)
    s["gaze_y"] = dice.normal(0.02)

    s["light_x"], s["light_y"] = dice.normal(0.5, -2, 2), dice.uniform(0.0, 0.8)
    s["exposure"] = np.clip(1.0 + dice.normal(0.11), 0.72, 1.28)
    s["contrast"] = np.clip(1.0 + dice.normal(0.10), 0.75, 1.25)
    s["warmth"] = dice.normal(0.05)
    s["tint"] = dice.normal(0.02)
    s["vignette"] = dice.uniform(0, 0.35)
    s["blur"] = np.clip(dice.uniform(-0.10, 0.24), 0, 1)
    s["noise"] = dice.uniform(0.006, 0.038)

    s["back_hue"], s["back_hue2"] = dice.uniform(), dice.uniform()
    s["back_saturation"], s["back_value"], s["back_value2"] = dice.uniform(), dice.uniform(), dice.uniform()
    s["back_angle_x"], s["back_angle_y"] = dice.uniform(-1, 1), dice.uniform(-1, 1)
    s["back_kind"] = np.floor(dice.uniform(0, 5))  # web: plain, gradient, stripes, dots, disc
    s["back_period"] = dice.uniform(0.40, 0.62)
    for tile in ("noise", "hair", "back"):  # where each image cuts its piece out of the shared texture tiles
        s[f"{tile}_row"], s[f"{tile}_column"] = np.floor(dice.uniform(0, 256)), np.floor(dice.uniform(0, 256))


def attributes(scene: Scene) -> pd.DataFrame:
    """CelebA-named binary attributes (int64), then the pose and place of the head as floats.

    yaw > 0 is turned to the right of the picture, roll > 0 is tilted to the right (degrees), pitch > 0 is
    tilted downward; ``head_x``, ``head_y`` and ``head_scale`` are the centre of the head and half its height,
    where the picture spans -1 to 1.
    """
    hair = (scene["bald"] == 0) * 1
    tone = np.where(hair == 1, scene["hair_tone"], -1)
    facial_hair = scene["stubble"] + scene["mustache"] + scene["goatee"] + scene["beard"]
    binary = {
        "Smiling": scene["smiling"],
        "Male": scene["male"],
        "Young": scene["young"],
        "Eyeglasses": scene["glasses"],
        "Wearing_Hat": scene["hat"],
        "Black_Hair": tone == 0,
        "Brown_Hair": tone == 1,
        "Blond_Hair": tone == 2,
        "Red_Hair": tone == 3,
        "Gray_Hair": tone == 4,
        "Bald": scene["bald"],
        "Long_Hair": scene["long"],
        "Curly_Hair": (scene["curl"] > 0.6) & (hair == 1),
        "Bangs": (scene["hairline"] > -0.5) & (hair == 1),
        "No_Beard": facial_hair == 0,
        "5_o_Clock_Shadow": scene["stubble"],
        "Mustache": scene["mustache"],
        "Goatee": scene["goatee"],
        "Full_Beard": scene["beard"],
        "Wearing_Lipstick": scene["lipstick"],
        "Wearing_Earrings": scene["earrings"],
        "Dark_Skin": scene["skin"] > 0.6,
    }
    pose = {"yaw": "yaw", "roll": "roll", "pitch": "pitch", "head_x": "x", "head_y": "y", "head_scale": "scale"}
    columns = {name: np.asarray(value).astype(np.int64) for name, value in binary.items()}
    return pd.DataFrame({**columns, **{name: scene[key] for name, key in pose.items()}})
