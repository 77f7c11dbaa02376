"""A trained model, ready to be asked: built from a run folder or from one exported file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sfumato.core import SfumatoError
from sfumato.data import PixelCodec, StandardCodec
from sfumato.data.shapes import Shape
from sfumato.denoiser import Denoiser
from sfumato.guide import Guide
from sfumato.settings import from_dict
from sfumato.tasks.generate import Request, Result, generate
from sfumato.train import Recipe, Run, load_weights

WEAK = "weak/"  # before the names of the early weights in an exported file
KEPT = ("recipe", "data", "codec", "classes", "styles", "captions", "caption_styles", "versions", "training")
KEPT += ("began", "sampling", "calibrated")  # what came after a training


@dataclass(frozen=True)
class Model:
    """A denoiser with its codec and what `run.json` tells; `generate` makes pictures. `weak` reads its early self, `watch`
    is a guide that sees every guided belief, for previews."""

    denoiser: Denoiser
    codec: PixelCodec | StandardCodec
    facts: dict[str, Any]
    weak: Callable[[], Denoiser] | None = None
    watch: Guide | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.facts["classes"]) if self.conditioned_on("class") else ()

    @property
    def styles(self) -> tuple[str, ...]:
        return tuple(self.facts["styles"]) if self.conditioned_on("style") else ()

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """(height, width) of the pictures it learned from, the one of most pictures first."""
        told = self.facts["codec"].get("shapes", [self.codec.spec[1:]])
        return tuple((int(h), int(w)) for h, w in told)

    def codec_of(self, shape: Shape | None) -> PixelCodec | StandardCodec:
        """The codec of pictures of this shape (None: the first of `shapes`); SfumatoError for what cannot be made."""
        if shape is None:
            return self.codec
        multiple = self.denoiser.net.config.multiple
        if min(shape) < 1 or any(side % multiple for side in shape):
            raise SfumatoError(
                f"this model makes pictures whose sides are multiples of {multiple} pixels, not {shape[1]}x{shape[0]}"
            )
        codec = self.codec.sized(*shape)
        if isinstance(codec, StandardCodec) and codec.standard.per == "element" and codec.spec != self.codec.spec:
            raise SfumatoError(
                f"this model standardises every element of {self.codec.spec[2]}x{self.codec.spec[1]} pictures: "
                "it makes no other shape"
            )
        return codec

    def conditioned_on(self, name: str) -> bool:
        """Whether the network was built for the condition of this name."""
        return any(spec.name == name for spec in self.denoiser.net.config.slots)

    def generate(self, n: int = 16, seed: int = 0, **options: Any) -> Result:
        """n pictures; `options` are the fields of `Request` (steps, solver, grid, guidance, class_name, prompt, ...)."""
        return generate(self, Request(n=n, seed=seed, **options))

    def export(self, path: str | Path, with_weak: bool = False, half: bool = False) -> Path:
        """Write one .safetensors file that `sfumato.load` reads anywhere: weights, and the facts in its header;
        `with_weak` the early self too, in half precision, for autoguidance; `half` the weights in bfloat16, half the size."""
        path = Path(path)
        if path.suffix != ".safetensors":
            raise SfumatoError(f"export to a .safetensors file, not {path.name!r}")
        kind = torch.bfloat16 if half else torch.float32
        weights = {k: p.detach().to(kind).contiguous() for k, p in self.denoiser.named_parameters()}
        facts = {k: self.facts[k] for k in KEPT if k in self.facts} | {"half": half}
        if with_weak:
            if self.weak is None:
                raise SfumatoError("--with-weak: this model has no early average; export it from its run folder")
            weights |= {WEAK + k: p.detach().half().contiguous() for k, p in self.weak().named_parameters()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(weights, path, metadata={"sfumato": json.dumps(facts)})
        except (OSError, SafetensorError) as error:
            raise SfumatoError(f"cannot write {path}: {error}") from error
        return path


def load(path: str | Path, ema: float | None = None) -> Model:
    """The model of a run folder (averages of relative width `ema`) or of an exported .safetensors file.

    Raises SfumatoError when the path holds neither or is damaged.
    """
    path = Path(path)
    if path.is_file():
        if ema is not None:
            raise SfumatoError(
                "an exported file holds one average: choose its width when exporting from the run folder"
            )
        facts, weights = _read(path)
        early = {k.removeprefix(WEAK): weights.pop(k).float() for k in [*weights] if k.startswith(WEAK)}
    else:
        run = Run(path)
        facts, weights, early = run.describe(), run.averaged(ema), run.early
    try:
        recipe, codec = from_dict(Recipe, facts["recipe"]), facts["codec"]
        denoiser = _loaded(recipe, weights)
        codec = recipe.codec(PixelCodec(codec["height"], codec["width"], codec["channels"]))
    except KeyError as error:
        raise SfumatoError(f"{path} lacks {error}: it was damaged or written by another version") from error
    weak = (lambda: _loaded(recipe, early() if callable(early) else early)) if early else None
    return Model(denoiser, codec, facts, weak)


def _loaded(recipe: Recipe, weights: dict[str, torch.Tensor]) -> Denoiser:
    denoiser = recipe.build()
    load_weights(denoiser, weights)
    denoiser.eval().requires_grad_(False)
    denoiser.steady = True  # a picture is the same alone, in a grid of four and among strangers
    for p in denoiser.parameters():
        if p.ndim == 4:
            p.data = p.data.to(memory_format=torch.channels_last)
    return denoiser


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get("sfumato")
            if told is None:
                raise SfumatoError(
                    f"{path} holds no Sfumato model: export one with 'sfumato export RUN --to {path.name}'"
                )
            return json.loads(told), {k: file.get_tensor(k) for k in file.keys()}
    except (OSError, SafetensorError, ValueError) as error:
        raise SfumatoError(f"{path} cannot be read as a model: {error}") from error
