"""Draw FaceWorld scenes: signed-distance shapes, painted back to front in batched tensor operations.

Pixels are drawn with + - * /, square root, minimum, maximum and floor only, which IEEE 754 rounds in one
way, in chunks of one fixed shape: the same face has the same bits whichever faces it is drawn with.
Small parts (eyes, mouth, nose) are drawn in a window cut out around them, which costs a quarter of the canvas.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from aimfair.datasets._faceworld_scene import Scene

CHUNK = 32  # images drawn at once: the working set stays in the cache
TILE = 256  # side of the texture tiles beyond the size of an image

# Colours 0 to 1: light to dark skin, hair by tone (black, brown, blond, red, gray), irises.
SKIN = {
    "real": ((0.96, 0.80, 0.71), (0.89, 0.68, 0.55), (0.74, 0.52, 0.38), (0.53, 0.35, 0.25), (0.33, 0.21, 0.15)),
    "web": ((1.00, 0.86, 0.74), (1.00, 0.74, 0.55), (0.86, 0.58, 0.36), (0.62, 0.37, 0.21), (0.40, 0.22, 0.13)),
}
HAIR = {
    "real": ((0.09, 0.08, 0.08), (0.30, 0.19, 0.12), (0.78, 0.63, 0.38), (0.52, 0.22, 0.11), (0.66, 0.66, 0.67)),
    "web": ((0.10, 0.08, 0.20), (0.45, 0.22, 0.09), (1.00, 0.84, 0.25), (0.95, 0.36, 0.10), (0.82, 0.83, 0.92)),
}
IRIS = ((0.20, 0.12, 0.07), (0.30, 0.19, 0.10), (0.27, 0.38, 0.22), (0.28, 0.48, 0.70))
LIPSTICK = {
    "real": ((0.72, 0.12, 0.16), (0.80, 0.28, 0.36), (0.55, 0.08, 0.18)),
    "web": ((0.92, 0.06, 0.16), (0.96, 0.25, 0.45), (0.72, 0.02, 0.30)),
}


def draw(scene: Scene, style: str, size: int) -> Tensor:
    """(n, 3, size, size) uint8 pictures of the n faces of ``scene`` in ``style`` "real" or "web"."""
    n = len(scene["x"])
    out = torch.empty(n, 3, size, size, dtype=torch.uint8)
    with torch.inference_mode():
        for start in range(0, n, CHUNK):
            rows = np.minimum(np.arange(start, start + CHUNK), n - 1)  # the last chunk is filled up, not cut short
            part = {key: torch.from_numpy(value[rows]).view(CHUNK, 1) for key, value in scene.items()}
            stop = min(start + CHUNK, n)
            out[start:stop] = _Painter(part, style, size).picture()[: stop - start]
    return out


class _Painter:
    """One chunk of faces on its canvas: (B, 3, P) float32 colours, P pixels."""

    def __init__(self, scene: dict[str, Tensor], style: str, size: int) -> None:
        self.p, self.size, self.web, self.style = scene, size, style == "web", style
        axis = (torch.arange(size, dtype=torch.float32) + 0.5) * (2 / size) - 1
        self.x, self.y = axis.repeat(size)[None], axis.repeat_interleave(size)[None]
        self.u, self.v = self.head_coordinates(self.x, self.y)
        self.pixel = 2 / size / scene["scale"]  # one pixel in head units
        self.skin = _ramp(SKIN[style], scene["skin"])
        self.skin = self.skin * (1 + _rgb(0.04, 0.0, -0.05) * scene["skin_tint"][..., None])
        self.aged = (2 * scene["sag"] - 1).clamp(min=0)  # what a cartoon exaggerates: 0 for the young
        if self.web:  # the colour goes out of an old skin
            self.skin = self.skin + (self.skin.mean(1, keepdim=True) - self.skin) * 0.5 * self.aged[..., None]
        hair = _choice(HAIR[style], scene["hair_tone"])
        self.hair = hair * (1 + (0.06 if self.web else 0.16) * scene["hair_shade"][..., None])

    def picture(self) -> Tensor:
        """(B, 3, size, size) uint8."""
        self.canvas = self.background()
        self.strands = self.hair_texture()
        self.back_hair()
        self.neck_and_clothes()
        self.ears()
        self.head()
        self.eyes()
        self.nose_mouth_beard()
        self.front_hair()
        self.hat()
        self.earrings()
        return self.develop()

    # ---- the means of painting

    def head_coordinates(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Head units: u to the right and v down along the tilted head; chin at v = 1, crown at v = -1."""
        p = self.p
        dx, dy = (x - p["x"]) / p["scale"], (y - p["y"]) / p["scale"]
        return dx * p["cos"] + dy * p["sin"], dy * p["cos"] - dx * p["sin"]

    def feature_coordinates(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates on the face: shifted and foreshortened as the head turns and nods."""
        p = self.p
        f = u - 0.20 * p["yaw"]
        return f * (1 + 0.16 * p["yaw"] * f), v - 0.07 * p["pitch"]

    def cover(self, distance: Tensor, soft: float | Tensor = 1.0) -> Tensor:
        """Coverage 0 to 1 of a shape from its signed distance (negative inside); edge ``soft`` pixels wide."""
        return (0.5 - distance / (self.pixel * soft)).clamp_(0, 1)

    def paint(self, colour: Tensor, alpha: Tensor) -> None:
        self.canvas.lerp_(colour, alpha[:, None])

    def window(self, v: float, width: float, height: float) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels around the face's midline at height ``v``: index (B, 3, K), u and v (B, K).

        ``width`` and ``height`` are shares of the picture.
        """
        p, size = self.p, self.size
        w, h = min(size, -(-int(width * size) // 2) * 2), min(size, -(-int(height * size) // 2) * 2)
        u0, v0 = 0.16 * p["yaw"], v + 0.07 * p["pitch"]
        x = p["x"] + p["scale"] * (u0 * p["cos"] - v0 * p["sin"])
        y = p["y"] + p["scale"] * (u0 * p["sin"] + v0 * p["cos"])
        left = ((x + 1) * (size / 2) - w / 2).round().clamp(0, size - w).long()
        top = ((y + 1) * (size / 2) - h / 2).round().clamp(0, size - h).long()
        inner = (torch.arange(h)[:, None] * size + torch.arange(w)).view(1, -1)
        index = top * size + left + inner
        u, v_ = self.u.gather(1, index), self.v.gather(1, index)
        return index[:, None].expand(-1, 3, -1), u, v_

    def head_distance(self, u: Tensor, v: Tensor, grow: float | Tensor = 0.0) -> Tensor:
        """Signed distance to the outline of the skull and jaw, about exact near the edge."""
        p = self.p
        down, up = v.clamp(min=0), v.clamp(max=0)
        across = u / ((p["head_width"] + grow) * (1 - p["taper"] * down))
        d2 = (down / (1 + grow)).square()
        q = across.square() + (up / (1 + grow)).square() + d2 * (1 - p["jaw"]) + d2.square() * p["jaw"]
        return ((q + 1e-4).sqrt() - 1) * 0.85

    # ---- layers, back to front

    def background(self) -> Tensor:
        p, size = self.p, self.size
        along = (self.x * p["back_angle_x"] + self.y * p["back_angle_y"]) * 0.5 + 0.5
        if self.web:
            saturation, value = 0.12 + 0.30 * p["back_saturation"], 0.86 + 0.14 * p["back_value"]
            first = _hsv(p["back_hue"], saturation, value)
            other = _hsv(p["back_hue"] + 0.08 + 0.25 * p["back_hue2"], saturation + 0.12, value * 0.95)
            kind, period = p["back_kind"], p["back_period"]
            norm = (p["back_angle_x"].square() + p["back_angle_y"].square()).sqrt() + 1e-3
            across = (self.x * p["back_angle_x"] + self.y * p["back_angle_y"]) / (norm * period)
            stripes = ((_triangle(across) - 0.5) * 3 + 0.5).clamp(0, 1)
            dot = (_triangle(self.x / period) - 0.5).square() + (_triangle(self.y / period) - 0.5).square()
            dots = ((0.11 - dot) * 9).clamp(0, 1)
            disc = ((0.86 - (self.x.square() + self.y.square()).sqrt()) * (size / 4)).clamp(0, 1)
            weight = (kind == 1) * along + (kind == 2) * stripes + (kind == 3) * dots + (kind == 4) * disc
            return first + (other - first) * weight[:, None]
        first = _hsv(p["back_hue"], 0.08 + 0.5 * p["back_saturation"].square(), 0.15 + 0.75 * p["back_value"])
        other = _hsv(p["back_hue2"], 0.08 + 0.4 * p["back_saturation"].square(), 0.15 + 0.75 * p["back_value2"])
        cloud = self.tile("back", "cloud") * 0.5
        weight = (along + cloud).clamp(0, 1)
        return first + (other - first) * weight[:, None]

    def tile(self, place: str, kind: str) -> Tensor:
        """(B, P) a piece of a shared texture, cut where the scene says."""
        tile = _tiles(self.size)[kind]
        row, column = self.p[f"{place}_row"].long().view(-1), self.p[f"{place}_column"].long().view(-1)
        pieces = tile.unfold(0, self.size, 1).unfold(1, self.size, 1)
        return pieces[row, column].flatten(1)

    def hair_texture(self) -> Tensor:
        """(B, P) lightness of the strands around 0."""
        curl = self.p["curl"]
        return self.tile("hair", "strand") * (1 - curl) + self.tile("hair", "curl") * curl

    def hair_colour(self, v: Tensor) -> Tensor:
        """(B, 3, P) strands, and the band of light around the crown."""
        shine = (1 - ((v + 0.82) * 4.5).square()).clamp(min=0)
        if self.web:
            light = 1 + 0.10 * self.strands + 0.16 * shine
        else:
            side = (0.14 * self.p["light_x"]) * self.u
            soft = 1 - 0.6 * self.hair.mean(1)  # pale hair would clip to white
            light = 1 + 0.26 * soft * self.strands + 0.28 * soft * shine + side
        return self.hair * light[:, None] + (0.015 + 0.04 * shine)[:, None]

    def back_hair(self) -> None:
        p = self.p
        u = self.u + 0.06 * p["yaw"]
        wave = p["curl"] * 0.05 * (_triangle(self.v * 1.7) - 0.5)
        width = (p["head_width"] + p["puff"] + wave) * (1 + p["flare"] * self.v.clamp(min=0))
        q = (u / width).square() + (self.v.clamp(max=0) / (1 + p["puff"])).square()
        sides = ((q + 1e-4).sqrt() - 1) * 0.85
        bottom = self.v - p["hair_length"] + 0.18 * u.square()
        distance = torch.maximum(sides, bottom)
        bun = _ellipse(self.u, self.v + 1.12, 0.30, 0.26)
        distance = torch.minimum(distance, bun + 9 * (1 - p["bun"])) + 9 * p["bald"]
        if self.web:
            self.paint(self.hair * 0.4, self.cover(distance - 0.05))
        self.paint(self.hair_colour(self.v) * 0.80, self.cover(distance))

    def neck_and_clothes(self) -> None:
        p = self.p
        u, v = self.u, self.v
        neck = torch.maximum(u.abs() - p["neck"] * (1 + 0.25 * (v - 1).clamp(min=0)), 0.2 - v)
        shade = 1 - (0.22 if self.web else 0.42) * (1 - ((v - 0.85) / 0.65).clamp(0, 1))
        if self.web:
            self.paint(self.skin * 0.3, self.cover(neck - 0.045))
        self.paint(self.skin * shade[:, None], self.cover(neck))
        saturation = 0.15 + 0.7 * p["cloth_saturation"]
        cloth = _hsv(p["cloth_hue"], saturation, (0.55 if self.web else 0.15) + 0.42 * p["cloth_value"])
        body = _ellipse(u - 0.1 * p["yaw"], v - 2.35, 1.55 + 0.3 * (p["neck"] - 0.44), 1.02)
        opening = (1.42 + 0.32 * p["collar"] - v) * 0.6 + u.abs() * (0.9 - 0.5 * p["collar"]) - 0.30
        body = torch.maximum(body, -opening)
        if self.web:
            self.paint(cloth * 0.35, self.cover(body - 0.05))
        self.paint(cloth * (1 - 0.20 * (v - 1.6).clamp(0, 1))[:, None], self.cover(body))

    def ears(self) -> None:
        p = self.p
        side = self.u + 0.10 * p["yaw"]
        ear = _ellipse(side.abs() - p["head_width"] - 0.02, self.v - 0.06, 0.13, 0.21)
        if self.web:
            self.paint(self.skin * 0.3, self.cover(ear - 0.05))
        self.paint(self.skin * 0.90, self.cover(ear))
        self.paint(self.skin * 0.68, 0.6 * self.cover(ear + 0.08, 2.0))

    def head(self) -> None:
        p = self.p
        u, v = self.u, self.v
        distance = self.head_distance(u, v)
        q = (u / p["head_width"]).square() + v.square()
        if self.web:
            self.paint(self.skin * 0.28, self.cover(distance - 0.055))
            lit = ((u * p["light_x"].sign() + 0.45) * 5).clamp(0, 1)
            hollow = self.cover(_ellipse(u.abs() - 0.54, v - 0.44, 0.11, 0.26), 2.0)
            shade = 0.88 + 0.12 * lit - 0.36 * hollow * self.aged
        else:
            shade = 1.04 - 0.20 * q.square().clamp(max=1.4) + 0.15 * p["light_x"] * u - 0.10 * p["light_y"] * v
            shade = shade + 0.13 * _blob(u - 0.25 * p["light_x"], v + 0.55, 0.45, 0.30)
            hollow = _blob(u.abs() - 0.58, v - 0.42, 0.22, 0.36) * p["sag"]
            shade = shade - 0.10 * hollow
        self.paint(self.skin * shade[:, None], self.cover(distance))

    def eyes(self) -> None:
        """Sockets, brows, eyes, lines of age, glasses."""
        p, web = self.p, self.web
        index, u, v = self.window(-0.20, 0.66, 0.44)
        whole, self.canvas = self.canvas, self.canvas.gather(2, index)
        f, v = self.feature_coordinates(u, v)
        right = (f > 0).float() * 2 - 1
        e, ev = f.abs() - p["eye_gap"], v + 0.06

        if not web:  # sockets in shadow, and the bridge of the nose
            self.paint(self.skin * 0.62, 0.36 * _blob(e + 0.03, ev + 0.06, 0.27, 0.20))
        # Lines of age are fine on a photo; a cartoon says "old" with a thick pencil.
        pen, ink = (0.016, 0.42) if web else (0.0, 0.62)
        bag = (_ellipse(e, ev - 0.07, 0.17, 0.13).abs() - 0.012 - pen) + 2 * (0.10 - ev).clamp(min=0)
        self.paint(self.skin * (ink + 0.04), 0.85 * p["bags"] * self.cover(bag, 1.4))
        crow = torch.minimum(
            _segment(e, ev, 0.25, -0.02, 0.36, -0.08, 0.006 + pen), _segment(e, ev, 0.25, 0.03, 0.36, 0.06, 0.006 + pen)
        )
        self.paint(self.skin * (ink - 0.02), p["crow"] * (1.0 if web else 0.8) * self.cover(crow, 1.3))
        bend = 0.25 * (f.square())
        lines = torch.minimum((v + 0.44 + bend).abs(), (v + 0.56 + bend).abs()) - 0.010 - pen
        lines = torch.maximum(lines, f.abs() - 0.40)
        self.paint(self.skin * (ink + 0.02), p["wrinkle"] * (1.0 if web else 0.75) * self.cover(lines, 1.3))

        opening = 0.115 * p["eye_size"] * (1 - 0.62 * p["squint"]) * (1.18 if web else 1.0)
        width = 0.185 * p["eye_size"]
        arch = 1 - (e / width).square()
        upper, lower = -opening * arch, opening * (0.85 - 0.35 * p["squint"]) * arch
        shape = torch.maximum(upper - ev, ev - lower)
        self.paint(_rgb(0.96, 0.96, 0.95) * (0.95 if web else 0.86), self.cover(shape))
        g, gv = e - p["gaze"] * right, ev - p["gaze_y"] + 0.01
        inside = self.cover(shape)
        iris = _ramp(IRIS, p["eye_hue"].square())
        self.paint(iris * (1.3 if web else 1.0), inside * self.cover(_ellipse(g, gv, 0.088, 0.088)))
        self.paint(iris * 0.15, inside * self.cover(_ellipse(g, gv, 0.045, 0.045)))
        self.paint(_rgb(1, 1, 1), 0.9 * inside * self.cover(_ellipse(g - 0.03 * right, gv + 0.035, 0.022, 0.022)))
        lid = torch.maximum((ev - upper).abs() - 0.018 - 0.022 * p["lash"], e.abs() - width * 1.08)
        self.paint(self.skin * 0.22, (0.70 + 0.30 * p["lash"]) * self.cover(lid))
        under = torch.maximum((ev - lower).abs() - 0.010, e.abs() - width)
        self.paint(self.skin * 0.50, 0.5 * self.cover(under))

        brow_line = -p["brow_height"] + p["brow_tilt"] * e + 1.2 * p["brow_arch"] * ((e / 0.22).square() - 1)
        thick = p["brow_thick"] * (1 - 0.35 * (e / 0.24).clamp(-1, 1))
        brow = torch.maximum((ev - brow_line).abs() - thick * 0.8, e.abs() - 0.235)
        brow_colour = torch.minimum(self.hair, self.skin) * 0.62
        if web:  # brows turn white with age, before the hair does
            white = ((p["wrinkle"] - 0.3) * 2.5).clamp(0, 1)
            brow_colour = brow_colour + (_rgb(0.93, 0.93, 0.97) - brow_colour) * white[..., None]
        self.paint(brow_colour, 0.92 * self.cover(brow, 1.4))

        r = p["glasses_size"]
        gx, gy = (e / r).square(), (ev / (r * 0.86)).square()
        frame_q = (gx + gy) * (1 - p["glasses_square"]) + (gx.square() + gy.square()) * p["glasses_square"]
        frame = ((frame_q + 1e-4).sqrt() - 1) * (r * (1 - 0.45 * p["glasses_square"]))
        bridge = torch.maximum((ev + 0.06).abs() - 0.02, f.abs() - p["eye_gap"] + r)
        temple = torch.maximum((ev + 0.06).abs() - 0.02, (r - e) * 1.0)
        rim = torch.minimum(torch.minimum(frame.abs() - 0.026, bridge), temple)
        rim = torch.maximum(rim, u.abs() - p["head_width"])
        colour = _hsv(p["glasses_hue"], torch.full_like(r, 0.35), 0.10 + 0.22 * p["glasses_tint"])
        self.paint(colour * 1.2, p["glasses"] * p["glasses_tint"] * self.cover(frame))
        self.paint(_rgb(1, 1, 1), p["glasses"] * 0.10 * self.cover((frame + 0.03).maximum(e + ev)))
        self.paint(colour, p["glasses"] * self.cover(rim))
        self.canvas = whole.scatter_(2, index, self.canvas)

    def nose_mouth_beard(self) -> None:
        p, web = self.p, self.web
        index, u, v0 = self.window(0.52, 0.72, 0.50)
        whole, self.canvas = self.canvas, self.canvas.gather(2, index)
        f, v = self.feature_coordinates(u, v0)
        a = f.abs()

        blush = _hsv(torch.full_like(p["x"], 0.98), torch.full_like(p["x"], 0.6), 0.95 - 0.35 * p["skin"])
        self.paint(blush, (0.30 if web else 0.24) * p["cheek"] * _blob(a - 0.45, v - 0.24, 0.24, 0.18))

        # Facial hair under the mouth's layer, so that lips and teeth stay visible.
        head = self.head_distance(u, v0)
        t = u.abs() / p["head_width"]
        line = 0.70 - 0.85 * (t - 0.36).clamp(0, 0.62)
        jaw = self.cover(head, 1.5) * ((v - line) * 7 + 0.5).clamp(0, 1)
        chin = self.cover(_ellipse(f, v - 0.90, 0.24, 0.19).maximum(head), 2.0)
        lip_line = 0.58 - 0.5 * p["open"] - p["lip"] * 0.5
        above = torch.maximum((v - lip_line + 0.075 - 0.30 * f.square()).abs() - 0.075, a - 0.40)
        moustache = self.cover(above, 1.5)
        sides = self.cover(torch.maximum((a - 0.44).abs() - 0.09, (v - 0.68).abs() - 0.24), 2.0) * self.cover(head, 1.5)
        full = torch.maximum(torch.maximum(jaw, sides) * p["beard"], moustache * p["mustache"])
        full = torch.maximum(full, chin * torch.maximum(p["goatee"], p["beard"]))
        full = torch.maximum(full, 0.40 * p["stubble"] * torch.maximum(torch.maximum(jaw, moustache), sides))
        grain = self.strands.gather(1, index[:, 0])
        tone = torch.minimum(self.hair, self.skin * 0.75) * 0.45 + self.hair * 0.45
        self.paint(tone * (1 + (0.12 if web else 0.25) * grain)[:, None], 0.93 * full)

        # Nose: shade on the side away from the light, nostrils, a highlight along the bridge.
        n = f - 0.10 * p["yaw"] * (v * 2).clamp(0, 1)
        side = torch.where(p["light_x"] + p["yaw"] > 0, -1.0, 1.0)
        w = p["nose_width"]
        flank = _segment(n * side, v, 0.05, -0.10, w * 0.95, 0.26, 0.012)
        tip = torch.maximum((v - 0.31 + 1.2 * (n / w).square() * 0.04).abs() - 0.018, n.abs() - w)
        if web:
            self.paint(self.skin * 0.50, 0.9 * self.cover(flank, 1.2))
            self.paint(self.skin * 0.45, 0.9 * self.cover(tip, 1.2))
        else:
            self.paint(self.skin * 0.62, 0.55 * self.cover(flank, 4.0))
            self.paint(self.skin * 1.12 + 0.04, 0.5 * _blob(n, v - 0.14, 0.09, 0.26))
            self.paint(self.skin * 0.55, 0.6 * self.cover(tip, 2.0))
            self.paint(self.skin * 0.30, 0.8 * self.cover(_ellipse(n.abs() - w * 0.55, v - 0.305, 0.05, 0.03), 1.5))

        # Folds from the nose past the corners of the mouth.
        half = p["mouth_width"]
        fold = _segment(a, v, 0.20, 0.26, half + 0.09, 0.52, 0.010)
        self.paint(self.skin * 0.58, (0.75 if web else 0.62) * p["fold"] * self.cover(fold, 1.5))

        if web:  # and from the corners down to the chin, which gives age away under any hair
            jowl = _segment(a, v, half + 0.05, 0.64, half - 0.05, 0.90, 0.020)
            self.paint(self.skin * 0.45, self.aged * self.cover(jowl, 1.3))

        # Mouth: one parabola for the line of the lips, the opening above and below it.
        m = f + p["mouth_skew"]
        t2 = (m / half).square()
        bulge = (1 - t2).clamp(min=0)
        middle = 0.58 + 0.45 * p["curve"] + 0.6 * p["mouth_skew"] * m - p["curve"] * t2
        up = middle - 0.35 * p["open"] * bulge
        down = middle + 0.95 * p["open"] * bulge
        ends = m.abs() - half
        lip_up, lip_down = p["lip"] * (0.25 + 0.75 * bulge), p["lip"] * 1.25 * (0.15 + 0.85 * bulge)
        lips = torch.maximum(torch.maximum(up - lip_up - v, v - down - lip_down), ends)
        red = _ramp(LIPSTICK[self.style], p["lipstick_hue"])
        bare = self.skin * _rgb(0.80, 0.56, 0.54) + _rgb(0.03, 0.0, 0.01)
        self.paint(bare + (red - bare) * p["lipstick"][..., None], self.cover(lips))
        gap = torch.maximum(torch.maximum(up - v, v - down), ends + 0.02)
        inside = self.cover(gap)
        self.paint(_rgb(0.28, 0.06, 0.07), inside)
        bite = up + p["open"] * (0.35 + 0.55 * p["teeth"]) * bulge * 1.1
        teeth = torch.maximum(gap, v - bite)
        showing = ((p["open"] - 0.035) * 25).clamp(0, 1) * (p["teeth"] * 4).clamp(0, 1)
        self.paint(_rgb(0.97, 0.96, 0.93) * (1.0 if web else 0.93), showing * self.cover(teeth))
        crease = torch.maximum((v - middle).abs() - 0.020, m.abs() - half - 0.03)
        closed = (1 - p["open"] * 14).clamp(0, 1)
        self.paint(self.skin * _rgb(0.32, 0.20, 0.20), (0.95 if web else 0.85) * closed * self.cover(crease, 1.2))
        corner = _ellipse(m.abs() - half, v - 0.58 + 0.55 * p["curve"], 0.035, 0.035)
        self.paint(self.skin * 0.35, 0.65 * self.cover(corner, 1.5))
        chin_shadow = _blob(f, v - 0.80, 0.20, 0.06) * (1 - full)
        self.paint(self.skin * 0.68, (0.15 if web else 0.35) * chin_shadow)
        self.canvas = whole.scatter_(2, index, self.canvas)

    def front_hair(self) -> None:
        p = self.p
        u, v = self.u, self.v
        q = (u / (p["head_width"] + p["puff"])).square() + (v.clamp(max=0) / (1 + p["puff"])).square()
        skull = ((q + 1e-4).sqrt() - 1) * 0.85
        f = u - 0.12 * p["yaw"]
        t = ((u.abs() / p["head_width"] - 0.62) * 3.4).clamp(0, 1)
        drop = t.square() * (3 - 2 * t)
        top = p["hairline"] + p["part_slope"] * (f - p["part"]).abs() + (0.02 if self.web else 0.045) * self.strands
        line = top + (p["side"] - top) * drop
        slope = 1 + 2.2 * drop * (1 - drop)
        distance = torch.maximum(skull, (v - line) / slope)
        if not self.web:  # the hair's shadow on the forehead
            shadow = self.cover(torch.maximum(self.head_distance(u, v), (v - line - 0.05) / slope), 4.0)
            self.paint(self.skin * 0.45, 0.5 * shadow * (1 - p["bald"]))
        hair = 1 - p["bald"]
        if self.web:
            self.paint(self.hair * 0.35, hair * self.cover(distance - 0.05))
        self.paint(self.hair_colour(v), hair * self.cover(distance))

    def hat(self) -> None:
        p = self.p
        u, v = self.u, self.v
        colour = _hsv(p["hat_hue"], 0.2 + 0.6 * p["hat_value"], (0.6 if self.web else 0.2) + 0.35 * p["hat_value"])
        beanie, brimmed, cap = (p["hat_kind"] == k for k in range(3))
        rise = 1.16 + 0.14 * brimmed
        width = p["head_width"] + p["puff"].clamp(max=0.16) + 0.05
        q = (u / width).square() + ((v + 0.35).clamp(max=0) / (rise - 0.35)).square()
        line = -0.46 + 0.10 * u.square()
        crown = torch.maximum(((q + 1e-4).sqrt() - 1) * 0.85, v - line)
        band_width = width + 0.03 + 0.45 * brimmed
        visor = torch.maximum((u - 0.55 * p["yaw"] - 0.1).abs() - 0.80, (v - line - 0.02).abs() - 0.07)
        band = torch.maximum(u.abs() - band_width, (v - line + 0.03).abs() - 0.075 - 0.06 * beanie)
        brim = torch.where(cap, visor, band)
        shape = torch.minimum(crown, brim)
        on = p["hat"]
        if self.web:
            self.paint(colour * 0.35, on * self.cover(shape - 0.05))
        else:
            self.paint(
                self.skin * 0.3, 0.5 * on * self.cover(torch.maximum(brim - 0.09, self.head_distance(u, v)), 3.0)
            )
        shade = 1 + 0.15 * p["light_x"] * u - 0.25 * (u / width).square() + 0.06 * self.strands * (0 if self.web else 1)
        self.paint(colour * shade[:, None], on * self.cover(shape))
        self.paint(colour * (0.62 if self.web else 0.7), on * self.cover(brim))

    def earrings(self) -> None:
        p = self.p
        side = (self.u + 0.10 * p["yaw"]).abs() - p["head_width"] - 0.04
        ring = _ellipse(side, self.v - 0.36, p["earring_size"], p["earring_size"] * 1.25)
        if self.web:
            self.paint(_rgb(0.45, 0.28, 0.02), p["earrings"] * self.cover(ring - 0.04))
        self.paint(_rgb(0.98, 0.82, 0.30) * (1.0 if self.web else 0.9), p["earrings"] * self.cover(ring))

    def develop(self) -> Tensor:
        """Exposure, colour cast, contrast, lens and sensor of a photo; then 8 bits."""
        p, size = self.p, self.size
        image = self.canvas.mul_(255.0)
        if not self.web:
            light = p["exposure"] * (1 + 0.10 * p["light_x"] * self.x)
            light = light * (1 - p["vignette"] * 0.5 * (self.x.square() + self.y.square())) * p["contrast"]
            cast = 1 + torch.stack([p["warmth"], p["tint"], -p["warmth"]], dim=1)
            image.mul_(light[:, None]).mul_(cast)
            image = _blurred(image.view(CHUNK, 3, size, size), p["blur"].view(CHUNK, 1, 1, 1)).flatten(2)
            grain = self.tile("noise", "grain") * (255 * p["noise"]) + 0.45 * 255 * (1 - p["contrast"])
            image.add_(grain[:, None])
        return image.add_(0.5).clamp_(0, 255).to(torch.uint8).view(CHUNK, 3, size, size)


# ---- shapes, colours, textures


def _ellipse(u: Tensor, v: Tensor, ru: float | Tensor, rv: float | Tensor) -> Tensor:
    """Signed distance to an ellipse at the origin, scaled to be right along the shorter axis."""
    shorter = torch.minimum(torch.as_tensor(ru), torch.as_tensor(rv))
    return (((u / ru).square() + (v / rv).square() + 1e-4).sqrt() - 1) * shorter


def _segment(
    u: Tensor, v: Tensor, u0: float | Tensor, v0: float, u1: float | Tensor, v1: float, radius: float
) -> Tensor:
    """Signed distance to a line from (u0, v0) to (u1, v1) with round ends."""
    du, dv = u1 - u0, v1 - v0
    t = (((u - u0) * du + (v - v0) * dv) / (du * du + dv * dv)).clamp(0, 1)
    return ((u - u0 - t * du).square() + (v - v0 - t * dv).square() + 1e-8).sqrt() - radius


def _blob(u: Tensor, v: Tensor, ru: float, rv: float) -> Tensor:
    """A soft spot: 1 at the origin, 0 from the ellipse (ru, rv) on."""
    return (1 - (u / ru).square() - (v / rv).square()).clamp(min=0).square()


def _triangle(x: Tensor) -> Tensor:
    """Triangle wave of period 1 between 0 and 1."""
    return (2 * (x - x.floor()) - 1).abs()


def _rgb(r: float, g: float, b: float) -> Tensor:
    return torch.tensor([r, g, b], dtype=torch.float32).view(1, 3, 1)


def _ramp(colours: tuple[tuple[float, ...], ...], t: Tensor) -> Tensor:
    """(B, 3, 1) colours between the given ones, evenly spaced over t from 0 to 1; t (B, 1)."""
    table = torch.tensor(colours)
    position = t.view(-1) * (len(colours) - 1)
    low = position.floor().clamp(0, len(colours) - 2)
    mix = (position - low)[:, None]
    return (table[low.long()] * (1 - mix) + table[low.long() + 1] * mix)[..., None]


def _choice(colours: tuple[tuple[float, ...], ...], which: Tensor) -> Tensor:
    return torch.tensor(colours)[which.view(-1).long()][..., None]


def _hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """(B, 3, 1) from hue (any real, period 1), saturation and value; each (B, 1)."""
    wheel = torch.cat([_triangle(hue + shift) * 3 - 1 for shift in (0.0, 2 / 3, 1 / 3)], dim=1).clamp(0, 1)
    return (value * (1 - saturation * (1 - wheel)))[..., None]


def _blurred(image: Tensor, strength: Tensor) -> Tensor:
    """Three-tap blur along both axes; strength 0 (none) to 1/3 (box). ``image`` (B, 3, H, W) is changed in place."""
    for axis in (2, 3):
        n = image.shape[axis]
        part = image * strength
        image.sub_(part).sub_(part)
        image.narrow(axis, 1, n - 1).add_(part.narrow(axis, 0, n - 1))
        image.narrow(axis, 0, n - 1).add_(part.narrow(axis, 1, n - 1))
        for edge in (0, n - 1):  # beyond the border the picture goes on as at the border
            image.narrow(axis, edge, 1).add_(part.narrow(axis, edge, 1))
    return image


@lru_cache(maxsize=4)
def _tiles(size: int) -> dict[str, Tensor]:
    """Textures of unit deviation and TILE + size pixels a side, of which every image cuts its own piece."""
    rng = np.random.Generator(np.random.Philox(12_345))
    side = TILE + size
    grain = rng.standard_normal((side, side))

    def smooth(noise: np.ndarray, rows: int, columns: int) -> np.ndarray:
        for axis, reach in ((0, rows), (1, columns)):
            for _ in range(2):  # twice a box: a triangle, without visible corners
                total = np.cumsum(np.concatenate([noise, noise.take(range(reach), axis)], axis), axis)
                noise = total.take(range(reach, reach + side), axis) - total.take(range(side), axis)
        return (noise - noise.mean()) / noise.std()

    unit = max(1, size // 64)
    textures = {
        "grain": grain,
        "strand": smooth(rng.standard_normal((side, side)), 8 * unit, 1 * unit),
        "curl": smooth(rng.standard_normal((side, side)), 2 * unit, 2 * unit),
        "cloud": smooth(rng.standard_normal((side, side)), 12 * unit, 12 * unit) * 0.35,
    }
    return {key: torch.from_numpy(value.astype(np.float32)) for key, value in textures.items()}
