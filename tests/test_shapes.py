"""Picture shapes: the choice that cuts least, against every choice; crops against plain loops; batches of one shape."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sfumato.data as data
from sfumato.core import SfumatoError
from sfumato.data import Buckets
from sfumato.data import source as source_module
from sfumato.data.audit import audit
from sfumato.data.balance import Balance, Temperature, order_of
from sfumato.data.lazy import Lazy
from sfumato.data.order import Order
from sfumato.data.picture import crop, read_shape
from sfumato.data.ragged import Ragged, square_x0
from sfumato.data.shapes import candidates, least_cut, nearest


def kept_by(aspect: float, shape: tuple[int, int]) -> float:
    """The largest share of a picture 1 high and `aspect` wide that a frame of these proportions can hold, by trying."""
    best = 0.0
    for height in np.linspace(0, 1, 2001).tolist():
        width = height * shape[1] / shape[0]
        if width <= aspect:
            best = max(best, height * width / aspect)
    return best


def test_the_share_cut_away_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    aspects, shapes = np.exp(rng.normal(0, 0.5, 40)), [(64, 32), (48, 64), (64, 64), (32, 96)]
    index, cut = nearest(aspects, shapes)
    for k, aspect in enumerate(aspects.tolist()):
        lost = [1 - kept_by(aspect, shape) for shape in shapes]
        assert cut[k] == pytest.approx(min(lost), abs=2e-3) and lost[index[k]] <= min(lost) + 2e-3


@pytest.mark.parametrize("size, multiple", [(32, 8), (64, 16), (64, 8), (24, 8), (8, 8), (256, 64)])
def test_candidates_are_what_a_network_takes_and_cost_about_the_same(size: int, multiple: int) -> None:
    found = candidates(size, multiple)
    assert (size, size) in found and len(set(found)) == len(found)
    for height, width in found:
        assert height % multiple == width % multiple == 0 and max(height, width) <= 3 * min(height, width)
        assert abs(height * width - size * size) <= size * multiple
        assert (width, height) in found
    with pytest.raises(SfumatoError, match="multiples of 16, 40 is none: use --size 48"):
        candidates(40, 16)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_choice_of_shapes_cuts_away_less(seed: int) -> None:
    rng = np.random.default_rng(seed)
    aspects = np.exp(rng.normal(rng.normal(0, 0.3), 0.1 + rng.random() * 0.5, 60))
    shapes = candidates(64, 16)
    for most in (1, 2, 3, 4):
        found = least_cut(aspects, shapes, most)
        best = min(nearest(aspects, some)[1].sum() for n in range(1, most + 1) for some in combinations(shapes, n))
        assert len(found) <= most and nearest(aspects, found)[1].sum() == pytest.approx(best, abs=1e-9)


def test_squares_stay_squares_and_rare_shapes_are_given_up() -> None:
    assert Buckets(5).shapes(64, np.ones(50)) == ((64, 64),)
    aspects = np.r_[np.ones(300), np.full(100, 4 / 3), np.full(31, 0.6)]
    assert Buckets(5).shapes(64, aspects) == ((64, 64), (48, 64))
    assert Buckets(5).shapes(64, np.r_[aspects, 0.6]) == ((64, 64), (48, 64), (80, 48))
    assert Buckets(5, fixed=((8, 24), (8, 8))).shapes(64, aspects) == ((8, 24), (8, 8))
    with pytest.raises(SfumatoError, match="1 shape or more"):
        Buckets(0)


def test_a_crop_has_the_proportions_and_the_middle() -> None:
    for size, shape, want in (((90, 30), (30, 60), (60, 30)), ((30, 91), (64, 48), (30, 40)), ((7, 7), (2, 2), (7, 7))):
        picture = Image.new("L", size)
        picture.putpixel((size[0] // 2, size[1] // 2), 255)
        found = crop(picture, shape)
        assert found.size == want and found.getextrema()[1] == 255
        middle = np.argwhere(np.asarray(found))[0]
        assert np.abs(middle - np.array([want[1] // 2, want[0] // 2])).max() <= 1


SIZES = ((40, 30), (30, 40), (36, 36))  # width, height


def make(root: Path, n: int = 90) -> Path:
    """Pictures of three proportions; the place in the set is written into every pixel's red and green."""
    root.mkdir(parents=True, exist_ok=True)
    for k in range(n):
        Image.new("RGB", SIZES[min(k % 4, 2)], (k, 255 - k, 7 * (k % 4))).save(root / f"{k:03d}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("shapes") / "set")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["memory", "demand"])
def opened(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> data.Source:
    if request.param == "demand":
        monkeypatch.setattr(source_module, "LIMIT_BYTES", 1)
    return data.open(folder, size=32, buckets=3)


def test_every_picture_lies_in_the_shape_that_cuts_least(opened: data.Source) -> None:
    assert opened.shapes == ((32, 32), (32, 24), (24, 32)) and isinstance(opened.pixels, Ragged)
    assert opened.notes["crop"] == 0.0 and opened.size == 32 and opened.codec.spec == (3, 32, 32)
    for row in range(len(opened)):
        picture = opened.images(torch.tensor([row]))
        width, height = SIZES[min(row % 4, 2)]
        assert picture.shape == (1, height * 32 // max(width, height), width * 32 // max(width, height), 3)
        assert (picture == (row, 255 - row, 7 * (row % 4))).all()
    told = opened.summary()
    assert sorted(told["shapes"]) == [[24, 32, 23], [32, 24, 23], [32, 32, 44]]
    assert told["in_memory"] is not any(isinstance(part, Lazy) for part in opened.pixels.parts)


def test_a_batch_of_two_shapes_is_refused(opened: data.Source) -> None:
    with pytest.raises(SfumatoError, match="one batch holds pictures of one shape; these rows are of 24x32, 32x24"):
        opened.batch(torch.tensor([0, 1]))
    batch = opened.batch(torch.tensor([0, 4, 0]))
    assert batch.x0.shape == (3, 3, 24, 32)


def test_taking_some_keeps_each_picture(opened: data.Source) -> None:
    rows = torch.tensor([9, 0, 8, 2, 1])
    some = opened.take(rows)
    for k, row in enumerate(rows.tolist()):
        assert (some.images(torch.tensor([k])) == opened.images(torch.tensor([row]))).all()
    assert [part.tolist() for part in some.alike(torch.arange(5), 1)] == [[3], [0], [4], [1], [2]]
    grey = opened.with_pixels(opened.pixels.with_channels(1))
    assert grey.batch(torch.tensor([0])).x0.shape == (1, 1, 24, 32)


def test_a_headers_turn_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        Image.new("RGB", (60, 20)).save(tmp_path / name, exif=exif)
        assert read_shape(tmp_path / name) == (60, 20), name
    Image.new("RGB", (60, 20)).save(tmp_path / "b.png")
    assert read_shape(tmp_path / "b.png") == (20, 60)


def test_pictures_without_readable_headers_are_skipped_with_their_reason(tmp_path: Path) -> None:
    root = make(tmp_path / "set", 70)
    (root / "000.png").write_bytes(b"no picture")
    whole = (root / "001.png").read_bytes()
    (root / "001.png").write_bytes(whole[: len(whole) // 2])
    opened = data.open(root, size=32, buckets=3)
    assert len(opened) == 68 and [entry["file"] for entry in opened.notes["skipped"]] == ["000.png", "001.png"]
    for row in range(68):
        assert (opened.images(torch.tensor([row]))[..., 0] == row + 2).all()


def test_named_sets_are_squares() -> None:
    with pytest.raises(SfumatoError, match="those of digits are squares"):
        data.open("digits", buckets=3)


def test_one_shape_need_not_be_the_square(tmp_path: Path) -> None:
    for k in range(20):
        Image.new("L", (40, 30), k).save(tmp_path / f"{k}.png")
    wide = data.open(tmp_path, size=32, buckets=1)
    assert wide.shapes == ((24, 32),) and isinstance(wide.pixels, np.ndarray) and wide.notes["crop"] == 0
    assert wide.squares().codec.spec == (1, 24, 24)
    again = data.open_as(tmp_path, {"height": 24, "width": 32, "channels": 1, "shapes": [[24, 32]]})
    assert (again.pixels == wide.pixels).all()


# --- the order -----------------------------------------------------------------------------------------------------------


def of_shapes(counts: tuple[int, ...], labels: torch.Tensor | None = None) -> data.Source:
    """A source of as many pictures of each shape, mixed."""
    bucket = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = tuple(np.zeros((n, 8, 8 * (k + 1), 1), np.uint8) for k, n in enumerate(counts))
    pixels = Ragged(parts, bucket) if len(counts) > 1 else parts[0]
    keys = tuple(f"{k}.png" for k in range(sum(counts)))
    classes = () if labels is None else tuple(map(str, range(int(labels.max()) + 1)))
    return data.Source("shapes", pixels, keys, classes, labels)


def test_one_shape_is_the_order_of_the_set() -> None:
    source = of_shapes((50,))
    dealt, plain = order_of(source, 8, 3), Order(len(source.train_index), 8, 3)
    assert all(torch.equal(dealt.at(step), plain.at(step)) for step in (0, 1, 5, 49, 50, 51, 1000))
    assert dealt.epoch(7) == plain.epoch(7)


@pytest.mark.parametrize("counts", [(40, 40), (90, 7), (60, 25, 3), (5, 1)], ids=str)
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_every_picture_comes_as_often_as_batches_allow(counts: tuple[int, ...], batch: int) -> None:
    source = of_shapes(counts)
    rows, order = source.train_index, order_of(source, batch, 5)
    n = len(rows)
    own = torch.bincount(source.bucket[rows], minlength=len(counts)).tolist()
    seen, steps = torch.zeros(n, dtype=torch.int64), [0] * len(counts)
    for step in range(2 * n):
        positions = order.at(step)
        assert len(positions) == batch
        kinds = source.bucket[rows[positions]].unique().tolist()
        assert len(kinds) == 1, "one shape to a batch"
        seen += torch.bincount(positions, minlength=n)
        steps[kinds[0]] += 1
        for k, count in enumerate(own):
            share = count / n
            assert abs(steps[k] - (step + 1) * share) <= 0.5 + share * len(own) / 2 + 1e-9
            mine = seen[source.bucket[rows] == k]
            assert not count or int(mine.max() - mine.min()) <= 1, "once per pass of its own shape"
        if step + 1 in (n, 2 * n):
            assert (seen == batch * (step + 1) // n).all(), "exact after as many steps as there are pictures"


def test_the_order_is_a_function_of_seed_and_step_alone() -> None:
    source = of_shapes((30, 20))
    straight = [order_of(source, 8, 1).at(step) for step in range(120)]
    order = order_of(source, 8, 1)
    for step in reversed(range(120)):
        assert torch.equal(order.at(step), straight[step])
    assert not all(torch.equal(order_of(source, 8, 2).at(s), straight[s]) for s in range(5))
    same = of_shapes((25, 25))
    one, two = (own.seed for own in order_of(same, 5, 0).orders)
    assert not torch.equal(Order(25, 25, one).at(0), Order(25, 25, two).at(0)), "not shuffled alike"


def test_a_balance_holds_over_all_shapes() -> None:
    labels = torch.tensor([0] * 160 + [1] * 40)
    source = of_shapes((120, 80), labels)
    order, rows = order_of(source, 10, 0, Balance(Temperature(0.0))), source.train_index
    drawn = Counter(labels[rows[torch.cat([order.at(step) for step in range(len(rows))])]].tolist())
    assert abs(drawn[0] - drawn[1]) <= 0.03 * drawn.total()
    assert all(len(source.bucket[rows[order.at(step)]].unique()) == 1 for step in range(50))


# --- squares, and the audit ----------------------------------------------------------------------------------------------


def test_as_squares_all_shapes_are_one_size(opened: data.Source) -> None:
    squares = opened.squares()
    rows = torch.tensor([3, 0, 1, 2])
    assert squares.images(rows).shape == (4, 24, 24, 3) and squares.batch(rows).x0.shape == (4, 3, 24, 24)
    assert (squares.images(rows)[:, 5, 5, 0] == rows.numpy()).all()
    assert len(squares.take(rows)) == 4
    plain = data.Source("plain", np.zeros((3, 8, 8, 1), np.uint8), ("a", "b", "c"))
    assert plain.squares() is plain


def test_generated_pictures_go_the_same_way_as_real_ones(opened: data.Source) -> None:
    rows = torch.tensor([0, 4])
    x0 = opened.batch(rows).x0
    assert torch.equal(square_x0(x0, 24), opened.squares().batch(rows).x0)
    ramp = torch.linspace(-1, 1, 32).expand(1, 3, 24, 32)
    inside = square_x0(ramp, 24)
    assert (inside - ramp[..., 4:28]).abs().max() <= 1 / 127.5, "the middle, nothing enlarged"
    assert square_x0(ramp[..., :24], 24) is not None and torch.equal(square_x0(ramp[..., :24], 24), ramp[..., :24])


def test_the_audit_says_what_training_would_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(60):
        size = (64, 44) if k % 3 else (40, 64)
        noise = Image.fromarray(rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8))
        noise.resize(size, Image.Resampling.BICUBIC).save(tmp_path / f"{k}.png")
    told = [f.evidence for f in audit(str(tmp_path)).findings if f.kind == "bucket_waste"]
    opened = data.open(tmp_path, buckets=5)
    aspects = [64 / 44 if k % 3 else 40 / 64 for k in range(60)]
    square = np.mean([1 - min(a, 1 / a) for a in aspects])
    assert len(told) == 1 and f"a square crop cuts away {square:.0%}" in told[0]
    assert f"--buckets {len(opened.shapes)} {opened.notes['crop']:.0%}" in told[0]
    for height, width, n in opened.summary()["shapes"]:
        assert f"{width}x{height}: {n} pictures" in told[0]


def test_going_on_elsewhere_opens_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = data.open(folder, size=32, buckets=3)
    codec = {"height": 32, "width": 32, "channels": 3, "shapes": [list(s) for s in opened.shapes]}
    monkeypatch.chdir(folder.parent)
    where = data.located("set")
    monkeypatch.chdir("/")
    again = data.open_as(where, codec)
    assert again.shapes == opened.shapes and torch.equal(again.bucket, opened.bucket)
    assert data.located("emoji") == "emoji" and data.located("fashion-mnist:x") == f"fashion-mnist:{Path('/x')}"
    assert replace(again, notes={}).size == 32
