"""The extractor: what it must rank, that it is one and the same wherever it is made, and what it leaves alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.measure import features as room
from sfumato.measure import features_for, frechet_distance, kid, manifold, measure
from sfumato.measure.pretext import blur

SIZE = 16


@dataclass(frozen=True)
class Drawn:
    """Pictures of crosses, rings and bars of random place, width and brightness."""

    name: str = "shapes"
    n: int = 640
    seed: int = 1
    classes: tuple[str, ...] = ("cross", "ring", "bar")
    unknown: int = 0

    def __len__(self) -> int:
        return self.n

    @property
    def codec(self) -> Any:
        return SimpleNamespace(spec=(1, SIZE, SIZE))

    @property
    def labels(self) -> Tensor | None:
        if not self.classes:
            return None
        labels = torch.arange(self.n) % 3
        labels[: self.unknown] = -1
        return labels

    @property
    def train_index(self) -> Tensor:
        return torch.arange(self.n // 20, self.n)

    @property
    def validation_index(self) -> Tensor:
        return torch.arange(self.n // 20)

    def batch(self, index: Tensor) -> Any:
        return SimpleNamespace(x0=self.pictures[index])

    @property
    def pictures(self) -> Tensor:
        u = torch.rand(4, self.n, 1, 1, generator=torch.Generator().manual_seed(self.seed))
        cx, cy = 5 + 6 * u[0], 5 + 6 * u[1]
        half, light = 0.6 + u[2], 0.4 + 0.6 * u[3]
        y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        dx, dy = (x - cx).abs(), (y - cy).abs()
        cross = ((torch.minimum(dx, dy) < half) & (torch.maximum(dx, dy) < 5)).float()
        ring = (((dx**2 + dy**2).sqrt() - 4).abs() < half).float()
        bar = ((dy < half) & (dx < 5)).float()
        kind = (torch.arange(self.n) % 3)[:, None, None]
        shape = torch.where(kind == 0, cross, torch.where(kind == 1, ring, bar))
        return (shape * light * 2 - 1)[:, None]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(cache))


@pytest.mark.parametrize("classes", [Drawn.classes, ()], ids=["classes", "none"])
def test_worse_pictures_get_worse_numbers(classes: tuple[str, ...]) -> None:
    features = features_for(replace(Drawn(), classes=classes))
    assert features.name == f"{'classifier' if classes else 'turns'}-shapes-{SIZE}-v1"
    real, other = Drawn(seed=2).pictures, Drawn(seed=3).pictures
    noise = torch.randn(other.shape, generator=torch.Generator().manual_seed(4))
    ladder = [other, blur(other, 0.45), (other + 0.5 * noise).clamp(-1, 1), noise.clamp(-1, 1)]
    seen = features(real)
    distances = [frechet_distance(features(x), seen) for x in ladder]
    kernels = [kid(features(x), seen).value for x in ladder]
    assert distances == sorted(distances) and distances[1] > 1.5 * distances[0]
    assert kernels == sorted(kernels)
    precisions = [manifold(seen, features(x)).precision for x in ladder]
    assert precisions[0] > 0.7 and precisions[3] < 0.05
    one_kind = other[::3].repeat(3, 1, 1, 1)
    assert manifold(seen, features(one_kind)).recall < 0.6 * manifold(seen, features(other)).recall


def test_classes_are_learned_and_unknown_ones_are_skipped() -> None:
    assert features_for(Drawn()).accuracy > 0.9
    partly, fresh = features_for(Drawn(unknown=200)), Drawn(seed=21)
    guesses = partly.net(fresh.pictures)[:, :3].argmax(1)
    assert partly.name.startswith("classifier") and (guesses == fresh.labels).float().mean() > 0.9
    assert features_for(Drawn(unknown=600)).name.startswith("turns")


def test_same_source_same_extractor_and_the_global_generator_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = features_for(Drawn())
    torch.manual_seed(7)
    before = torch.get_rng_state()
    x = Drawn(seed=5).pictures[:70]
    cached = features_for(Drawn())
    assert torch.equal(first(x), cached(x)) and cached.seconds == first.seconds
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path))
    again = features_for(Drawn())
    assert torch.equal(torch.get_rng_state(), before)
    assert again.fingerprint == first.fingerprint
    assert torch.allclose(again(x), first(x), atol=1e-4)
    assert torch.allclose(first(x)[11:12], first(x[11:12]), atol=1e-4)


def test_other_pictures_other_extractor() -> None:
    ours = features_for(Drawn()).fingerprint
    assert room.fingerprint(Drawn(seed=9)) != ours
    assert room.fingerprint(Drawn(classes=("a", "b", "c"))) != ours


def test_a_torn_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path))
    monkeypatch.setattr(room, "_fit", lambda source: (room._build(1, SIZE, SIZE, 7).eval(), 0.5))
    features_for(Drawn())
    (weights,) = tmp_path.rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    x = Drawn().pictures[:3]
    assert torch.isfinite(features_for(Drawn())(x)).all()
    weights.with_suffix(".json").write_text("{")
    assert torch.isfinite(features_for(Drawn())(x)).all()
    assert not [p for p in (tmp_path / "features").iterdir() if p.is_dir()]


@pytest.mark.parametrize("spec", [(1, 8, 8), (3, 28, 28), (3, 33, 20), (1, 64, 64), (3, 1, 1), (1, 128, 96)])
def test_any_size_has_features(spec: tuple[int, int, int]) -> None:
    net = room._build(*spec, outputs=5).eval()
    assert net.features(torch.zeros(2, *spec)).shape == (2, room.WIDTH)


def test_scores_come_with_floor_and_noise() -> None:
    features = features_for(Drawn())
    made, reference, real = (Drawn(seed=s).pictures for s in (11, 12, 13))
    result = measure(blur(made, 0.5)[:300], reference, features, real)
    assert result["n"] == result["floor"]["n"] == result["noise"]["n"] == 300
    assert result["floor"]["fd"] < result["fd"] < result["noise"]["fd"]
    assert result["features"] == features.name and not result["notes"]
    assert result["fd"] == pytest.approx(frechet_distance(features(blur(made, 0.5)[:300]), features(reference)))
    few = measure(made[:20], reference, features)
    assert few["fd"] is None and "needs 256 pictures" in few["notes"][0] and "floor" not in few


def test_bad_pictures_are_named() -> None:
    features = features_for(Drawn())
    x = Drawn().pictures
    with pytest.raises(SfumatoError, match="these are"):
        features(torch.zeros(2, 3, SIZE, SIZE))
    with pytest.raises(SfumatoError, match="NaN"):
        features(torch.full((2, 1, SIZE, SIZE), float("nan")))
    with pytest.raises(SfumatoError, match="16 are the least"):
        measure(x[:5], x, features)
    with pytest.raises(SfumatoError, match="64 are needed"):
        features_for(Drawn(n=60))
