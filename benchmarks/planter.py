"""Folders of real pictures with faults planted at known places and clean look-alikes left in; a seed makes fresh ones."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, PngImagePlugin
from torch.nn import functional as F

from benchmarks.transformations import TRANSFORMATIONS

SETS = ("emoji", "garments", "photographs")
PHOTOGRAPHS = (  # without cell.png, which is out of focus: a blurred picture, not a clean one
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
TWIN = 40.0  # levels: pictures that differ less over every 3x3 place at 64 pixels cannot be told apart by eye
ONE_FLAG = {  # of another land by law: of the United States, Norway, France, Australia, British Indian Ocean Territory
    "flag of U.S. Outlying Islands", "flag of Svalbard & Jan Mayen", "flag of Bouvet Island", "flag of St. Martin",
    "flag of Clipperton Island", "flag of Heard & McDonald Islands", "flag of Diego Garcia",
}  # fmt: skip
DECLARATION = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType='
    '"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>'
)
PARAMETERS = "a photo of a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234, Size: 512x512, Model: sd15"


@dataclass
class Truth:
    """What was planted: files by kind; copies as (transformation, original, copy); set-wide kinds; files with a fault."""

    files: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    copies: list[tuple[str, str, str]] = field(default_factory=list)
    whole: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    clean: int = 0
    captioned: bool = False


class Planter:
    """Writes one folder: clean pictures first taken from a shuffled pool, then each fault on pictures of its own."""

    def __init__(self, root: Path, what: str, seed: int, clean: int, each: int) -> None:
        self.root, self.what, self.each = root, what, each
        self.draw = np.random.default_rng([seed, SETS.index(what)])
        self.truth = Truth()
        self.n = 0
        self.pool = _pool(what, self.draw)
        self.labels: dict[str, str] = {}
        self.blanks: set[bytes] = set()
        self.captions: dict[str, str | None] = {}
        clean = min(clean, len(self.pool) - 13 * each)  # there are about 280 tiles of photographs
        if clean < 10 * each:
            raise ValueError(f"{what}: {len(self.pool)} pictures are too few for {each} per fault")
        self.originals = [self._clean() for _ in range(clean)]
        self.truth.clean = clean

    def _name(self, suffix: str, label: str = "") -> str:
        self.n += 1
        name = f"{self.n:05d}{suffix}"
        return f"{label}/{name}" if label else name

    def _take(self) -> tuple[Image.Image, str, str]:
        return self.pool.pop()

    def _write(self, picture: Image.Image, label: str, caption: str | None, suffix: str = ".png", **how: Any) -> str:
        name = self._name(suffix, label)
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **how)
        self.captions[name], self.labels[name] = caption, label
        return name

    def _clean(self) -> str:
        return self._write(*self._take())

    def fault(self, kind: str, name: str) -> None:
        self.truth.files[kind].add(name)
        self.truth.touched.add(name)

    def pictures(self) -> None:
        """Faults of single pictures: each on `each` pictures that were clean."""
        makers = {
            "dark": self._dark, "blown_out": self._light, "blurred": self._blurred, "tiny": self._tiny,
            "odd_aspect": self._odd, "blank": self._blank, "low_information": self._smooth, "mixed_modes": self._mode,
            "alpha": self._alpha,
        }  # fmt: skip
        for kind, make in makers.items():
            if kind == "alpha" and self.what == "garments":
                continue  # grey with transparency would be a mixed mode as well
            for _ in range(self.each):
                picture, label, caption = self._take()
                self.fault(kind, self._write(make(picture), label, caption))
        for k in range(self.each):
            picture, label, caption = self._take()
            if k % 2:
                about = PngImagePlugin.PngInfo()
                about.add_text("parameters", PARAMETERS)
                name = self._write(picture, label, caption, pnginfo=about)
            else:
                name = self._write(picture, label, caption, ".jpg", quality=95, xmp=DECLARATION.encode())
            self.fault("ai_made", name)

    def _levels(self, picture: Image.Image, low: float, high: float) -> Image.Image:
        values = np.asarray(picture, np.float32) / 255 * (high - low) + low
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))

    def _dark(self, picture: Image.Image) -> Image.Image:
        return self._levels(picture, 0, self.draw.uniform(15, 45))

    def _light(self, picture: Image.Image) -> Image.Image:
        return self._levels(picture, self.draw.uniform(200, 235), 262)

    def _blurred(self, picture: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(max(2.0, min(picture.size) * self.draw.uniform(0.03, 0.05))))

    def _tiny(self, picture: Image.Image) -> Image.Image:
        side = int(self.draw.integers(8, 13))
        return picture.resize((side, side), Image.Resampling.LANCZOS)

    def _odd(self, picture: Image.Image) -> Image.Image:
        ratio = self.draw.uniform(4, 8)
        size = (picture.width, max(round(picture.width / ratio), 4))
        wide = picture.resize((size[0] * 3, size[1] * 3), Image.Resampling.LANCZOS)
        return wide if self.draw.random() < 0.5 else wide.rotate(90, expand=True)

    def _blank(self, picture: Image.Image) -> Image.Image:
        shape = np.asarray(picture).shape
        colour = self.draw.integers(70, 190, shape[2:] or ())
        while colour.tobytes() in self.blanks:  # two of one colour would be copies
            colour = self.draw.integers(70, 190, shape[2:] or ())
        self.blanks.add(colour.tobytes())
        return Image.fromarray(np.broadcast_to(colour, shape).astype(np.uint8))

    def _smooth(self, picture: Image.Image) -> Image.Image:
        """A slope from one tone to another: a lens cap in twilight, a failed gradient."""
        shape = np.asarray(picture).shape
        angle = self.draw.uniform(0, 2 * np.pi)
        y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / max(shape[:2])
        slope = (x * np.cos(angle) + y * np.sin(angle))[(...,) + (None,) * (len(shape) - 2)]
        start, rise = self.draw.uniform(90, 160, shape[2:]), self.draw.uniform(20, 50)
        return Image.fromarray((start + slope * rise).clip(0, 255).astype(np.uint8))

    def _mode(self, picture: Image.Image) -> Image.Image:
        if picture.mode == "L":
            return picture.convert("RGB")
        return picture.convert("L") if self.draw.random() < 0.5 else picture.quantize(64)

    def _alpha(self, picture: Image.Image) -> Image.Image:
        picture = picture.convert("RGBA")
        y, x = np.mgrid[-1 : 1 : picture.height * 1j, -1 : 1 : picture.width * 1j]
        picture.putalpha(
            Image.fromarray(np.where(x * x + y * y < self.draw.uniform(0.7, 1.2), 255, 0).astype(np.uint8))
        )
        return picture

    def broken(self) -> None:
        """Files that cannot be decoded: cut short, empty, something else by that name, overwritten in the middle."""
        for k in range(self.each):
            picture, label, _ = self._take()
            file = io.BytesIO()
            picture.save(file, "PNG")
            data = file.getvalue()
            spoilt = [data[: len(data) // 2], b"", b"<html>404 not found</html>", data[:20] + self.draw.bytes(200)][
                k % 4
            ]
            name = self._name(".png", label)
            (self.root / name).write_bytes(spoilt)
            self.fault("corrupt", name)

    def exact(self) -> None:
        """Copies: half byte for byte, half saved anew without loss."""
        for k, original in enumerate(self._chosen(self.each)):
            with Image.open(self.root / original) as picture:
                name = self._write(
                    picture.copy(), self.labels[original], self.captions[original], compress_level=k % 10
                )
            if k % 2:
                (self.root / name).write_bytes((self.root / original).read_bytes())
            self.truth.touched.add(name)
            self.truth.copies.append(("exact", original, name))

    def near(self, each: int) -> None:
        """`each` near-duplicates by each of TRANSFORMATIONS, of originals that stay."""
        for kind, transform in TRANSFORMATIONS.items():
            if kind == "grey" and self.what == "garments":
                continue  # they are grey
            for original in self._chosen(each, coloured=kind == "grey"):
                with Image.open(self.root / original) as picture:
                    mode = picture.mode
                    copy = transform(picture.copy(), self.draw).convert(mode)
                    named = _kind_of_copy(kind, picture, copy)
                name = self._write(copy, self.labels[original], self.captions[original])
                self.truth.touched.add(name)
                self.truth.copies.append((named, original, name))

    def _chosen(self, n: int, coloured: bool = False) -> list[str]:
        """n originals that no copy was made of yet."""
        taken = {original for _, original, _ in self.truth.copies}
        found = []
        for name in self.draw.permutation(self.originals):
            if name in taken or len(found) == n:
                continue
            if coloured:
                with Image.open(self.root / name) as picture:
                    if np.ptp(np.asarray(picture.convert("RGB")).astype(int), axis=2).max() < 40:
                        continue
            found.append(str(name))
        return found

    def strangers(self, others: dict[str, list[Image.Image]]) -> None:
        """Outliers: pictures of another kind, in the size and mode of this set."""
        size, mode = self.pool[-1][0].size, self.pool[-1][0].mode
        for k in range(self.each):
            kinds = sorted(others)
            kind = kinds[k % len(kinds)]
            picture = others[kind].pop().convert(mode).resize(size, Image.Resampling.LANCZOS)
            self.fault("outlier", self._write(picture, self.pool[-1][1], f"a stranger, {kind} {k}"))

    def captions_and_classes(self) -> None:
        """Emoji: captions with faults. Garments: one class made rare."""
        if self.what == "garments":
            self.truth.whole.add("class_imbalance")
            return
        if self.what != "emoji":
            return
        self.truth.captioned = True
        clean = [str(n) for n in self.draw.permutation([n for n in self.originals])]
        for kind, make in (
            ("caption_missing", lambda name, k: None),
            ("caption_empty", lambda name, k: ""),
            ("caption_boilerplate", lambda name, k: [f"IMG_{k:04d}.jpg", Path(name).name, "image", "n/a"][k % 4]),
            ("caption_long", lambda name, k: " ".join([self.captions[name] or "a picture", *["and so on"] * 60])),
        ):
            for k in range(self.each):
                name = clean.pop()
                self.captions[name] = make(name, k)
                self.truth.files[kind].add(name)
        for _ in range(max(4 * self.each, len(self.captions) // 20)):
            name = clean.pop()
            self.captions[name] = "a nice little picture for you"
            self.truth.files["caption_duplicated"].add(name)
        rows = [(n, c) for n, c in self.captions.items() if c is not None]
        for k in range(self.each):
            rows.append((f"lost-{k}.png", f"a picture that nobody has seen, number {k}"))
            self.truth.files["caption_without_picture"].add(f"lost-{k}.png")
        with open(self.root / "metadata.csv", "w", newline="") as file:
            csv.writer(file).writerows([("file_name", "text"), *rows])


def plant(root: Path, what: str, seed: int, clean: int, each: int, near: int) -> Truth:
    """One folder of SETS under `root`: `clean` pictures stay clean, `each` faults of every kind, `near` copies per kind."""
    root.mkdir(parents=True, exist_ok=True)
    planter = Planter(root, what, seed, clean, each)
    planter.pictures()
    planter.broken()
    planter.exact()
    planter.near(near)
    draw = np.random.default_rng([seed, 99])
    others: dict[str, list[Image.Image]] = {}  # photographs of everything have no strangers
    if what == "emoji":
        others["photograph"] = [p for p, _, _ in _photographs(draw)]
    elif what == "garments":
        others["emoji"] = [p for p, _, _ in _emoji(draw)]
        others["noise"] = [
            Image.fromarray(draw.integers(0, 256, (28, 28)).astype(np.uint8)) for _ in range(planter.each)
        ]
    if others:
        planter.strangers(others)
    planter.captions_and_classes()
    return planter.truth


def _kind_of_copy(kind: str, picture: Image.Image, copy: Image.Image) -> str:
    """ "exact" where a transformation changes nothing: a symmetric drawing, mirrored, has the very same pixels."""
    same = (picture.mode, picture.size, picture.tobytes()) == (copy.mode, copy.size, copy.tobytes())
    return "exact" if same else kind


def _pool(what: str, draw: np.random.Generator) -> list[tuple[Image.Image, str, str]]:
    return {"emoji": _emoji, "garments": _garments, "photographs": _photographs}[what](draw)


def _emoji(draw: np.random.Generator) -> list[tuple[Image.Image, str, str]]:
    """Emoji of every kind and 200 of people in several skin tones, 64x64, without twins."""
    from sfumato import data

    every, people = data.open("emoji", 64), data.open("emoji-people", 64)
    chosen = list(draw.permutation(len(people))[:200])
    pixels = np.concatenate([every.pixels, people.pixels[chosen]])
    captions = [*every.captions, *(people.captions[k] for k in chosen)]
    twice = _drawn_twice(captions)
    keep = [k for k in _without_twins(pixels) if k not in twice]
    return [(Image.fromarray(pixels[k]), "", captions[k]) for k in draw.permutation(keep)]


def _drawn_twice(captions: list[str]) -> set[int]:
    """Rows of drawings that are there under another name too: "man swimming" beside "person swimming", one flag of two lands.

    OpenMoji draws the former alike, one a little larger or aside, which `_without_twins` does not see.
    """
    names = set(captions)

    def again(name: str) -> bool:
        who, _, does = name.partition(" ")
        other = {"man": "person", "men": "people"}.get(who)
        return name in ONE_FLAG or (other is not None and bool(names & {f"{other} {does}", does}))

    return {k for k, name in enumerate(captions) if again(name)}


def _without_twins(pixels: np.ndarray) -> list[int]:
    """Rows of uint8 [N, 64, 64, 3], one of each group that cannot be told apart by eye, as it is or mirrored.

    OpenMoji has many (flags of territories, "man" and "person", arrows to the left and to the right): they are true
    duplicates, and calling them so is right.
    """
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    small = F.avg_pool2d(x, 4).flatten(1)
    gone: set[int] = set()
    for turned in (False, True):
        other = x.flip(3) if turned else x
        away = torch.cdist(small, F.avg_pool2d(other, 4).flatten(1))
        near = away.topk(16, 1, largest=False).indices
        for i in range(len(x)):
            if i in gone:
                continue
            gap = F.avg_pool2d((x[i] - other[near[i]]).abs(), 3).flatten(1).amax(1)
            gone |= {j for j in near[i][gap < TWIN].tolist() if j > i}
    return [k for k in range(len(x)) if k not in gone]


def _garments(draw: np.random.Generator) -> list[tuple[Image.Image, str, str]]:
    """Fashion-MNIST at its own 28x28, by class; one class eight times rarer than the others."""
    from sfumato import data

    source = data.open("fashion-mnist", 28)
    rare = int(draw.integers(10))
    labels = source.labels.numpy()
    order = draw.permutation(len(source))[:4000]
    rows = [k for k in order if labels[k] != rare or draw.random() < 0.12]
    return [(Image.fromarray(source.pixels[k, :, :, 0]), source.classes[labels[k]].replace(" ", "-"), "") for k in rows]


def _photographs(draw: np.random.Generator) -> list[tuple[Image.Image, str, str]]:
    """Tiles of scikit-image's photographs that touch but do not overlap, of 96 to 144 pixels."""
    import skimage

    found = []
    for name in PHOTOGRAPHS:
        with Image.open(Path(skimage.__file__).parent / "data" / name) as picture:
            whole = picture.convert("RGB")
        side = int(draw.integers(72, 97))
        left, top = draw.integers(0, side // 3, 2)
        for y in range(top, whole.height - side + 1, side):
            for x in range(left, whole.width - side + 1, side):
                tile = whole.crop((x, y, x + side, y + side))
                values = np.asarray(tile.convert("L"), np.float32)
                if values.std() >= 15 and 40 < values.mean() < 215:  # sky and darkness are faults, not look-alikes
                    found.append((tile, "", name.partition(".")[0]))
    return [found[k] for k in draw.permutation(len(found))]
