"""Drawing: a person and a photo become a picture, with nothing but numpy.

The picture is painted back to front on a pixel grid with soft-edged masks (approximate signed distances divided by the
width of a pixel), so the same portrait can be drawn at any size. Coordinates of the face: x to the right, y down, the
head from y = -1 to the chin at y = 1; `Photo` says where that lies in the picture. One picture is drawn at a time,
each shape only in its own window, so a picture never depends on its batch.

One file of over 400 lines, because it is one painting: every shape is placed by the same face coordinates and covers
those before it, and cutting it in two would only hand that frame from one file to the other.
"""

import numpy as np

from lmia.data.population import Person, Photo

_SKIN = np.array(
    [(0.97, 0.84, 0.75), (0.93, 0.75, 0.63), (0.82, 0.61, 0.46),
     (0.65, 0.44, 0.31), (0.46, 0.3, 0.21), (0.32, 0.21, 0.16)],
    dtype=np.float32,
)  # fmt: skip
_HAIR = {
    "black": (0.09, 0.08, 0.1), "brown": (0.34, 0.2, 0.11), "blond": (0.86, 0.69, 0.36),
    "red": (0.68, 0.27, 0.09), "grey": (0.68, 0.69, 0.71),
}  # fmt: skip
_IRIS = {"brown": (0.28, 0.16, 0.08), "blue": (0.2, 0.42, 0.72), "green": (0.25, 0.48, 0.25), "grey": (0.45, 0.5, 0.55)}
_FRAME = {"black": (0.06, 0.06, 0.07), "brown": (0.36, 0.2, 0.08), "red": (0.66, 0.1, 0.1), "blue": (0.1, 0.25, 0.6)}


def _rgb(red: float, green: float, blue: float) -> np.ndarray:
    """A colour as float32 [3, 1, 1]: the canvas is [3, height, width]."""
    return np.array([red, green, blue], np.float32).reshape(3, 1, 1)


def _unit(values: np.ndarray) -> np.ndarray:
    """Values cut to 0..1 (much faster than np.clip on windows of a few pixels)."""
    return np.minimum(np.maximum(values, 0), 1)


def draw(person: Person, photo: Photo, size: int) -> np.ndarray:
    """The portrait of a person in one photo.

    Returns:
        uint8 [size, size, 3], RGB.
    """
    return _Portrait(person, photo, size).picture()


class _Window:
    """A rectangle of the canvas around a point of the face: local coordinates, and paint on the pixels below."""

    def __init__(self, rgb: np.ndarray, x: np.ndarray, y: np.ndarray, pixel: float):
        self.rgb, self.x, self.y, self.pixel = rgb, x, y, pixel

    def inside(self, distance: np.ndarray, soft: float = 0.0) -> np.ndarray:
        """Mask in 0..1 from a signed distance (negative inside), its edge one pixel wide or `soft` if wider."""
        return _unit(0.5 - distance * (1 / max(self.pixel, soft)))

    def ellipse(self, rx: float, ry: float, cx: float = 0.0, cy: float = 0.0, soft: float = 0.0) -> np.ndarray:
        """Mask of an ellipse."""
        reach = np.sqrt(((self.x - cx) / rx) ** 2 + ((self.y - cy) / ry) ** 2)
        return self.inside((reach - 1) * min(rx, ry), soft)

    def glow(self, rx: float, ry: float, cx: float = 0.0, cy: float = 0.0) -> np.ndarray:
        """A soft bump: 1 in the middle, 0 from the ellipse outwards."""
        bump = np.maximum(1 - ((self.x - cx) / rx) ** 2 - ((self.y - cy) / ry) ** 2, 0)
        return bump * bump

    def paint(self, mask: np.ndarray, colour: np.ndarray | tuple[float, float, float]) -> None:
        """Cover the pixels with a colour (one, or one a pixel) as far as the mask says."""
        paint = colour if isinstance(colour, np.ndarray) else _rgb(*colour)
        self.rgb += mask * (paint - self.rgb)

    def tone(self, amount: np.ndarray) -> None:
        """Multiply the pixels: darker below 1, lighter above."""
        self.rgb *= amount


class _Portrait:
    """One picture in the making; the methods paint in the order in which `picture` calls them."""

    def __init__(self, person: Person, photo: Photo, size: int):
        self.person, self.photo, self.size = person, photo, size
        grid = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
        self.u, self.v = np.meshgrid(grid, grid)
        self.cos, self.sin = float(np.cos(photo.roll)), float(np.sin(photo.roll))
        # the head sits a little above the middle, so that shoulders show
        self.origin = (photo.offset_x, photo.offset_y - 0.03)
        du, dv = (self.u - self.origin[0]) / photo.scale, (self.v - self.origin[1]) / photo.scale
        self.x = du * self.cos + dv * self.sin
        self.y = -du * self.sin + dv * self.cos
        self.pixel = 2 / size / photo.scale
        self.rgb = np.empty((3, size, size), np.float32)
        self.turn, self.nod = float(np.sin(photo.yaw)), photo.pitch
        self.width = person.measure("face_width")
        self.eye_y = person.measure("eye_height")
        self.mouth_y = self.eye_y + person.measure("nose_length") + 0.30
        depth = person.measure("skin") * (len(_SKIN) - 1)
        low = min(int(depth), len(_SKIN) - 2)
        under = person.measure("undertone")
        skin = (_SKIN[low] * (1 - depth + low) + _SKIN[low + 1] * (depth - low)).reshape(3, 1, 1)
        self.skin = skin * _rgb(1 + 0.02 * under, 1 - 0.025 * under, 1 + 0.01 * under)
        self.hair = np.clip(
            _rgb(*_HAIR[person.choice("hair_colour")]) * (1 + 0.22 * person.measure("hair_shade")),
            0.04,
            1,
        )

    def picture(self) -> np.ndarray:
        self._background()
        self._hair_behind()
        self._neck_and_clothes()
        self._ears()
        self._head()
        self._eyes()
        self._nose()
        self._facial_hair()
        self._mouth()
        self._marks()
        self._hair_in_front()
        self._brows()
        self._glasses()
        return self._develop()

    # -- tools

    def _whole(self) -> _Window:
        return _Window(self.rgb, self.x, self.y, self.pixel)

    def _window(self, cx: float, cy: float, radius: float) -> _Window:
        """The window around (cx, cy) of the face that holds a circle; its coordinates start there."""
        photo, half = self.photo, self.size / 2
        u = self.origin[0] + photo.scale * (cx * self.cos - cy * self.sin)
        v = self.origin[1] + photo.scale * (cx * self.sin + cy * self.cos)
        reach = (radius * photo.scale) * half + 2
        left, top = (min(max(int((at + 1) * half - reach), 0), self.size) for at in (u, v))
        right, bottom = (min(max(int((at + 1) * half + reach + 1), 0), self.size) for at in (u, v))
        part = (slice(top, bottom), slice(left, right))
        return _Window(self.rgb[:, *part], self.x[part] - np.float32(cx), self.y[part] - np.float32(cy), self.pixel)

    def _at(self, x: float, y: float, depth: float) -> tuple[float, float]:
        """Where a point of the face lies when the head is turned; depth 0 at the ears, about .6 at the nose."""
        return x * float(np.cos(self.photo.yaw)) + depth * self.turn, y + depth * self.nod

    def _head_reach(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How far out a point lies: 1 on the outline of the head, 0 in its middle."""
        jaw, taper = self.person.measure("jaw"), self.person.measure("chin_taper")
        down = np.maximum(y, 0)
        across = (x / (self.width * (1 - taper * down * down))) ** 2
        along = y * y
        round_ = np.sqrt(across + along)
        square = np.sqrt(np.sqrt(across * across + along * along))
        mix = np.where(y > 0, (0.25 + 0.65 * jaw) * _unit(y * 3), 0.35 * _unit(-y * 3))
        return round_ + mix * (square - round_)

    # -- layers

    def _background(self) -> None:
        photo = self.photo
        self.rgb[:] = _rgb(*photo.background)
        for x, y, rx, ry, *tint in photo.clutter:
            reach = np.sqrt(((self.u - x) / rx) ** 2 + ((self.v - y) / ry) ** 2)
            self.rgb += _unit((1.1 - reach) * 4) * _rgb(*tint)
        shade = 1 - 0.35 * photo.gradient * self.v + 0.1 * photo.contrast * photo.light_x * self.u
        shade -= photo.vignette * (self.u * self.u + self.v * self.v) * 0.45
        self.rgb *= shade
        np.clip(self.rgb, 0.02, 1, out=self.rgb)

    def _hair_colours(self, at: _Window, stripes: float = 9.0, wave: float = 0.0) -> np.ndarray:
        """Hair colour for every pixel: strands, and a sheen where the light comes from."""
        photo = self.photo
        strands = 1 + 0.13 * np.sin(stripes * at.x + 2.2 * np.sin(2.1 * at.y) + wave * np.sin(9 * at.y))
        sheen = photo.contrast * (photo.light_x * at.x + photo.light_y * (at.y + 0.4)) * 0.55
        gloss = _unit(1 - 9 * (at.y + 0.82 - 0.3 * at.x * photo.light_x) ** 2) * 0.12
        return self.hair * np.clip(strands + sheen, 0.4, 1.7) + 0.6 * gloss

    def _hair_behind(self) -> None:
        style, at = self.person.choice("hair_style"), self._whole()
        volume, sway = self.person.measure("hair_volume"), 0.06 * self.photo.hair_sway
        if style in ("long", "bob"):
            length = (0.95 if style == "bob" else 1.35) + 0.3 * volume
            wide = self.width + 0.16 + 0.16 * volume
            x = at.x - sway * np.maximum(at.y, 0) + 0.1 * self.turn
            above = np.sqrt((x / wide) ** 2 + (np.minimum(at.y, 0) / 1.16) ** 2) - 1
            flare = np.maximum(at.y, 0) * (0.1 if style == "long" else 0.04)
            below = np.maximum(np.abs(x) / (wide + flare) - 1, (at.y - length) / wide)
            mask = at.inside(np.maximum(above * wide, below * wide))
            at.paint(mask, self._hair_colours(at) * np.float32(0.8))
        elif style == "curly":
            wide = self.width + 0.28 + 0.24 * volume
            angle = np.arctan2(at.x, -at.y - 0.1)
            reach = np.sqrt((at.x / wide) ** 2 + ((at.y + 0.22) / (1.08 + 0.14 * volume)) ** 2)
            reach += 0.04 * np.cos(15 * angle + self.person.index)
            at.paint(at.inside((reach - 1) * wide), self._curls(at) * np.float32(0.88))
        elif style == "bun":
            cy = -1.12 - 0.08 * volume
            ball = self._window(0.1 * self.turn, cy, 0.5)
            ball.paint(ball.ellipse(0.34 + 0.1 * volume, 0.28 + 0.08 * volume), self._hair_colours(ball, 14.0))
        elif style == "ponytail":
            side = 1 if self.person.index % 2 else -1
            cx = side * (self.width + 0.16) - 0.35 * self.turn
            tail = self._window(cx, 0.55, 1.3)
            x = tail.x - side * 0.12 * np.sin(2.2 * tail.y) - sway * tail.y
            reach = np.sqrt((x / (0.19 + 0.09 * volume)) ** 2 + (tail.y / 0.95) ** 2)
            tail.paint(tail.inside((reach - 1) * 0.2), self._hair_colours(tail, 16.0) * np.float32(0.9))

    def _curls(self, at: _Window) -> np.ndarray:
        curls = 1 + 0.2 * np.sin(13 * at.x + 2 * np.sin(5 * at.y)) * np.sin(13 * at.y + 2 * np.sin(5 * at.x))
        return self._hair_colours(at, 0.0) * curls

    def _neck_and_clothes(self) -> None:
        photo, at = self.photo, self._whole()
        y = at.y
        neck = 0.58 * self.width * (0.9 if self.person.choice("gender") == "woman" else 1.05)
        x = at.x - 0.05 * self.turn
        mask = at.inside(np.maximum(np.abs(x) - neck - 0.08 * np.maximum(y - 1.15, 0), 0.3 - y))
        light = 1 + 0.5 * photo.contrast * photo.light_x * x / neck
        shadow = 1 - 0.38 * np.clip(1.4 - y, 0, 0.8)
        at.paint(mask, self.skin * (light * shadow * 0.95))
        shoulders = 1.42 if self.person.choice("gender") == "woman" else 1.62
        drop = np.sqrt((x / shoulders) ** 2 + ((y - 2.35) / 1.13) ** 2) - 1
        body = at.inside(drop * 1.1)
        cloth = _rgb(*photo.cloth)
        second = _rgb(*photo.cloth_2)
        folds = 1 + 0.35 * photo.contrast * photo.light_x * x / shoulders - 0.12 * np.maximum(np.abs(x) - 0.7, 0)
        folds = folds + 0.03 * np.sin(7 * x + 3 * y)
        collar = photo.collar
        opening = np.maximum(np.abs(x) / 1.15 - neck - 0.02, -1)
        if collar == "tee":
            hole = at.ellipse(neck + 0.1, 0.3, 0.05 * self.turn, 1.22)
        elif collar == "sweater":
            hole = at.ellipse(neck + 0.02, 0.16, 0.05 * self.turn, 1.2)
        elif collar == "vneck":
            hole = at.inside(np.abs(x) - (neck + 0.12) * np.clip((1.85 - y) / 0.65, 0, 1.2))
        else:
            hole = at.inside(np.abs(x) - (neck + 0.06) * np.clip((1.55 - y) / 0.4, 0, 1.1))
        at.paint(body * (1 - hole), cloth * folds)
        if collar == "sweater":
            band = at.ellipse(neck + 0.14, 0.28, 0.05 * self.turn, 1.2) * (1 - hole) * body
            at.paint(band, cloth * np.float32(0.8))
        elif collar in ("shirt", "suit"):
            if collar == "suit":
                chest = np.abs(x) - np.clip(0.62 - 0.45 * (y - 1.2), 0.0, 0.8)
                at.paint(at.inside(chest) * body * (1 - hole), (0.92, 0.93, 0.95))
                tie = np.abs(x) - 0.09 - 0.05 * np.maximum(y - 1.5, 0)
                at.paint(at.inside(np.maximum(tie, 1.42 - y)) * body, second)
            flap = np.abs(np.abs(x) - 0.62 * neck - 0.38 * np.clip(1.75 - y, 0, 0.6)) - 0.1
            flaps = at.inside(np.maximum(np.maximum(flap, y - 1.68), opening)) * body * (1 - hole)
            at.paint(flaps, _unit((cloth if collar == "shirt" else _rgb(0.86, 0.86, 0.86)) * 1.22 + 0.06))

    def _ears(self) -> None:
        radius = self.person.measure("ear_size")
        for side in (-1, 1):
            cx, cy = self._at(side * self.width * 0.99, self.eye_y + 0.12, -0.25)
            at = self._window(cx, cy, 0.4)
            light = 0.9 + 0.6 * self.photo.contrast * self.photo.light_x * side
            at.paint(at.ellipse(radius * 0.72, radius * 1.3), self.skin * np.float32(light))
            at.tone(1 - 0.2 * at.glow(radius * 0.5, radius * 0.9, -side * 0.02))
            if self.person.choice("earrings") == "yes":
                at.paint(at.ellipse(0.055, 0.055, 0, radius * 1.35), (0.95, 0.82, 0.35))

    def _head(self) -> None:
        photo, at = self.photo, self._whole()
        reach = self._head_reach(at.x, at.y)
        self.reach = reach
        self.head = at.inside((reach - 1) * self.width)
        nx, ny = at.x / self.width - 0.4 * self.turn, at.y - 0.4 * self.nod
        light = 1 + photo.contrast * (0.75 * photo.light_x * nx + 0.4 * photo.light_y * ny)
        light -= 0.22 * np.maximum(reach - 0.55, 0) ** 2 * 4 * photo.contrast
        at.paint(self.head, self.skin * light)
        for side in (-1, 1):  # cheeks
            cx, cy = self._at(side * 0.42, self.eye_y + 0.38, 0.3)
            cheek = self._window(cx, cy, 0.3)
            cheek.paint(0.16 * cheek.glow(0.28, 0.22), self.skin * _rgb(1.05, 0.75, 0.72))

    def _eyes(self) -> None:
        person, photo = self.person, self.photo
        radius, tilt = person.measure("eye_size"), person.measure("eye_tilt")
        high = radius * 0.68 * photo.lids
        for side in (-1, 1):
            cx, cy = self._at(side * person.measure("eye_spacing"), self.eye_y, 0.42)
            at = self._window(cx, cy, 0.34)
            at.tone(1 - 0.2 * at.glow(0.28, 0.24, 0, -0.05))
            slant = at.y + side * tilt * at.x
            almond = np.sqrt((at.x / radius) ** 2 + (slant / high) ** 2)
            white = at.inside((almond - 1) * high)
            at.paint(white, (0.95, 0.94, 0.92))
            gx = 0.022 * photo.gaze + 0.02 * self.turn
            iris = np.sqrt((at.x - gx) ** 2 + at.y**2)
            at.paint(white * at.inside(iris - radius * 0.56), _IRIS[person.choice("eye_colour")])
            at.paint(white * at.inside(iris - radius * 0.28), (0.03, 0.03, 0.03))
            at.paint(
                at.ellipse(0.028, 0.028, gx + (0.03 if photo.light_x >= 0 else -0.03), -0.03) * white, (1.0, 1.0, 1.0)
            )
            lashes = 1.7 if person.choice("gender") == "woman" else 1.0
            rim = at.inside(np.abs(almond - 1.02) * high - 0.018 * lashes) * np.clip(0.6 - slant / high, 0.12, 1)
            at.paint(0.85 * rim, self.skin * np.float32(0.22))

    def _brows(self) -> None:
        person = self.person
        weight, tilt = person.measure("brow_weight"), person.measure("brow_tilt")
        colour = (
            self.hair * np.float32(0.62) if person.choice("hair_colour") != "grey" else self.hair * np.float32(0.75)
        )
        for side in (-1, 1):
            up = self.eye_y - 0.1 - person.measure("eye_size") - weight - 0.025 * self.photo.brow_raise
            cx, cy = self._at(side * person.measure("eye_spacing") * 1.04, up, 0.42)
            at = self._window(cx, cy, 0.3)
            arch = at.y + side * tilt * at.x + 1.3 * at.x * at.x - 0.02
            taper = weight * np.clip(1 - side * at.x * 1.7, 0.45, 1.2)
            at.paint(at.inside(np.maximum(np.abs(arch) - taper, np.abs(at.x) - 0.19)) * 0.92, colour)

    def _nose(self) -> None:
        person, photo = self.person, self.photo
        length, wide = person.measure("nose_length"), person.measure("nose_width")
        cx, cy = self._at(0.0, self.eye_y + length, 0.6)
        top_x, _ = self._at(0.0, self.eye_y, 0.42)
        at = self._window(cx, cy - 0.15, 0.5)
        y = at.y - 0.15
        bridge = at.x - (top_x - cx) * _unit(-y / length)
        side = 1.0 if photo.light_x >= 0 else -1.0
        along = _unit((y + length) / length) * _unit(1.15 - y / 0.1)
        edge = wide * (0.45 + 0.5 * _unit((y + length) / length))
        shadow = _unit(1 - np.abs(bridge + side * edge) / 0.09) * along
        shine = _unit(1 - np.abs(bridge - side * 0.2 * edge) / 0.06) * along
        at.tone(1 - (0.16 + 0.3 * photo.contrast) * shadow + 0.1 * shine)
        at.tone(1 - 0.28 * at.glow(wide * 1.35, 0.08, 0, 0.19))
        for nostril in (-1, 1):
            at.paint(0.62 * at.ellipse(wide * 0.34, 0.036, nostril * wide * 0.55, 0.155), self.skin * np.float32(0.34))

    def _mouth(self) -> None:
        person, photo = self.person, self.photo
        wide = person.measure("mouth_width") * (1 + 0.18 * photo.smile)
        full = person.measure("lip_fullness")
        cx, cy = self._at(0.0, self.mouth_y, 0.5)
        at = self._window(cx, cy, 0.5)
        curve = at.y + 0.14 * photo.smile * ((at.x / wide) ** 2 - 0.35)
        taper = np.sqrt(np.maximum(1 - (at.x / wide) ** 2, 0))
        gap = (0.012 + 0.075 * photo.mouth_open * (0.5 + 0.5 * max(photo.smile, 0))) * taper
        red = 0.25 + 0.5 * person.measure("lip_colour")
        lip = self.skin * _rgb(1 - 0.12 * red, 1 - 0.52 * red, 1 - 0.45 * red)
        ends = np.abs(at.x) - wide
        upper = at.inside(np.maximum(np.maximum(-curve - gap - full * 0.85 * taper, curve), ends))
        lower = at.inside(np.maximum(np.maximum(curve - gap - full * 1.2 * taper, -curve), ends))
        at.paint(upper, lip * np.float32(0.86))
        at.paint(lower, lip)
        inner = at.inside(np.maximum(np.abs(curve) - gap, ends))
        at.paint(inner, (0.22, 0.07, 0.07))
        if photo.mouth_open > 0.15:
            teeth = at.inside(
                np.maximum(np.maximum(np.abs(curve + 0.25 * gap) - 0.55 * gap, ends + 0.05), -gap + 0.015)
            )
            at.paint(teeth, (0.96, 0.95, 0.92))
        at.tone(1 - 0.16 * at.glow(wide * 0.8, 0.06, 0, full * 1.2 + 0.09))

    def _facial_hair(self) -> None:
        kind = self.person.choice("facial_hair")
        if kind == "none":
            return
        cx, cy = self._at(0.0, self.mouth_y, 0.45)
        at = self._window(0.0, 0.6, 0.95)
        x, y = at.x - cx, at.y + 0.6 - cy
        face_x, face_y = at.x, at.y + 0.6
        reach = self._head_reach(face_x, face_y)
        wide = self.person.measure("mouth_width")
        lips = np.sqrt((x / (wide * 1.12)) ** 2 + ((y - 0.01) / 0.13) ** 2)
        moustache = np.maximum(np.abs(x) - wide * 1.15, np.abs(y + 0.12 - 0.35 * x * x) - 0.065)
        chin = np.sqrt((x / (wide * 0.95)) ** 2 + ((y - 0.26) / 0.24) ** 2) - 1
        cheek_line = (self.mouth_y - 0.24) + 0.34 * (1 - _unit(np.abs(x) / self.width)) ** 2 - face_y
        full = np.maximum(cheek_line, (1 - lips) * 0.13)
        outline = 1.05 if kind == "beard" else 1.0
        on_face = at.inside((reach - outline) * self.width)
        colour = self._hair_colours(at, 22.0) * np.float32(0.85)
        if kind == "moustache":
            mask = at.inside(moustache)
        elif kind == "goatee":
            mask = np.maximum(at.inside(np.maximum(chin * 0.2, (1 - lips) * 0.13)), 0.9 * at.inside(moustache))
        elif kind == "stubble":
            mask = 0.4 * at.inside(full, 0.1)
        else:
            mask = at.inside(full, 0.05)
        at.paint(mask * on_face * 0.95, colour)

    def _marks(self) -> None:
        person = self.person
        if person.choice("freckles") == "yes":
            dots = np.random.Generator(np.random.PCG64(person.index + 17)).uniform(-1, 1, (14, 2))
            for dx, dy in dots:
                side = 0.4 if dx > 0 else -0.4
                cx, cy = self._at(side + 0.22 * dx - side * 0.4, self.eye_y + 0.3 + 0.12 * dy, 0.42)
                at = self._window(cx, cy, 0.03)
                at.paint(0.5 * at.ellipse(0.024, 0.024), self.skin * _rgb(0.75, 0.55, 0.42))
        if person.choice("mole") == "yes":
            cx, cy = self._at(person.measure("mole_x"), person.measure("mole_y"), 0.42)
            at = self._window(cx, cy, 0.08)
            at.paint(0.85 * at.ellipse(0.04, 0.04), self.skin * np.float32(0.28))

    def _hair_in_front(self) -> None:
        style, at = self.person.choice("hair_style"), self._whole()
        if style == "bald":
            shine_x, shine_y = self._at(0.25 * self.photo.light_x, -0.62, 0.1)
            shine = self._window(shine_x, shine_y, 0.4)
            shine.tone(1 + 0.16 * shine.glow(0.34, 0.24))
            return
        volume = self.person.measure("hair_volume")
        part = 0.32 if self.person.index % 3 else -0.32  # the side of the parting
        x = at.x - 0.28 * self.turn
        outset = {"short": 0.05, "spiky": 0.06, "curly": 0.1, "long": 0.1, "bob": 0.09, "bun": 0.03, "ponytail": 0.035}
        thick = outset[style] + 0.06 * volume
        across, along = (at.x / (self.width + thick)) ** 2, (at.y / (1 + 1.3 * thick)) ** 2
        skull = 0.65 * np.sqrt(across + along) + 0.35 * np.sqrt(np.sqrt(across * across + along * along))
        if style == "curly":
            skull = skull + 0.03 * np.cos(17 * np.arctan2(at.x, -at.y))
        if style == "spiky":
            angle = np.arctan2(at.x, -at.y + 0.2)
            saw = np.abs((angle * 2.6 + 100) % 1.0 - 0.5)
            skull = skull - (0.1 + 0.34 * saw * (0.6 + 0.5 * volume)) * _unit(-at.y * 1.6)
        outer = (skull - 1) * self.width
        line = self.person.measure("hairline")
        sides = {
            "short": 0.02,
            "spiky": -0.12,
            "curly": 0.42,
            "long": 0.95,
            "bob": 0.7,
            "bun": -0.02,
            "ponytail": -0.05,
        }
        open_x = self.width * {"long": 0.86, "bob": 0.9, "curly": 0.88}.get(style, 0.93)
        if style == "bob":  # a straight fringe
            brow = self.eye_y - 0.3 - 0.28 * (line - 0.4)
            hole = np.maximum(np.abs(x) - open_x, brow + 0.05 * x * x - at.y)
        else:
            shift = {"short": part, "long": 0.6 * part, "ponytail": part}.get(style, 0.0)
            lift = line + (0.1 if style in ("bun", "ponytail") else 0.0)
            ridge = np.sqrt(((x - 0.35 * shift) / open_x) ** 2 + ((at.y - 0.1) / (0.1 + lift + 0.25 * shift * x)) ** 2)
            hole = np.where(at.y < 0.1, (ridge - 1) * self.width, np.abs(x) - open_x)
        mask = at.inside(np.maximum(np.maximum(outer, -hole), at.y - sides[style] - self.eye_y))
        colours = self._curls(at) if style == "curly" else self._hair_colours(at, 9.0 if style != "spiky" else 16.0)
        at.tone(1 - 0.22 * self.head * _unit(1 - np.abs(hole + 0.05) / 0.09) * _unit(-3 * at.y))
        at.paint(mask, colours)

    def _glasses(self) -> None:
        kind = self.person.choice("glasses")
        if kind == "none":
            return
        colour = _FRAME[self.person.choice("frame")]
        spacing = self.person.measure("eye_spacing")
        lens = 0.215 if kind == "round" else 0.225
        for side in (-1, 1):
            cx, cy = self._at(side * max(spacing, lens + 0.05), self.eye_y + 0.02, 0.48)
            at = self._window(cx, cy, 0.36)
            if kind == "round":
                edge = np.sqrt(at.x**2 + at.y**2) - lens
            else:
                qx, qy = np.abs(at.x) - lens + 0.05, np.abs(at.y) - 0.165 + 0.05
                edge = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2) + np.minimum(np.maximum(qx, qy), 0)
                edge = edge - 0.05
            at.paint(0.1 * at.inside(edge), (0.9, 0.95, 1.0))
            at.paint(at.inside(np.abs(edge) - 0.03), colour)
            end_x, end_y = self._at(side * self.width * 0.98, self.eye_y, -0.1)
            arm = self._window((cx + side * lens + end_x) / 2, end_y, 0.4)
            reach = abs(end_x - cx - side * lens) / 2
            outward = side * (end_x - cx) > lens
            if outward:
                arm.paint(arm.inside(np.maximum(np.abs(arm.x) - reach, np.abs(arm.y) - 0.022)), colour)
        cx, cy = self._at(0.0, self.eye_y - 0.01, 0.52)
        bridge = self._window(cx, cy, 0.3)
        gap = max(spacing, lens + 0.05) - lens
        bridge.paint(bridge.inside(np.maximum(np.abs(bridge.x) - gap, np.abs(bridge.y + 0.02) - 0.022)), colour)

    def _develop(self) -> np.ndarray:
        """Exposure, white balance, blur and noise; then eight bits."""
        photo = self.photo
        gain = photo.exposure * _rgb(1 + 0.05 * photo.balance, 1.0, 1 - 0.06 * photo.balance)
        rgb = self.rgb * gain
        # blur is the weight of the neighbours at 64 pixels; larger pictures get it over as many more pixels
        step = max(1, round(self.size / 64))
        weight = 0.25 * photo.blur
        rgb[:, step:-step] += weight * (rgb[:, 2 * step :] + rgb[:, : -2 * step] - 2 * rgb[:, step:-step])
        rgb[:, :, step:-step] += weight * (rgb[:, :, 2 * step :] + rgb[:, :, : -2 * step] - 2 * rgb[:, :, step:-step])
        grain = np.random.Generator(np.random.PCG64(photo.noise_seed))
        rgb += photo.noise * grain.standard_normal(rgb.shape, dtype=np.float32)
        return np.rint(_unit(rgb) * 255).astype(np.uint8).transpose(1, 2, 0).copy()
