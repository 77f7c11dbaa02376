"""Controls: what is derived from pictures, how a network is shown it, and models that go on with more slots."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from training import small_source

from sfumato.cli import main
from sfumato.core import Cond, Noise, SfumatoError
from sfumato.data import controls
from sfumato.data.canvas import CLASSES, NAMES, Controls
from sfumato.data.colours import NAMES as COLOURS
from sfumato.data.layout import Box
from sfumato.data.text import FEATURES, VOCABULARY, encode
from sfumato.denoiser import TransformerConfig, UNetConfig
from sfumato.denoiser.language import Language
from sfumato.tasks import load
from sfumato.train import Budget, Optimiser, Recipe, Setting, Trainer, pick_recipe, take_over

torch.set_num_threads(1)


def disc(side: int = 32, radius: float = 10.0) -> tuple[Tensor, Tensor]:
    """A red disc on white, x0 [1, 3, H, W], and every place's distance from its rim [H, W]."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    away = ((x - side / 2 + 0.5) ** 2 + (y - side / 2 + 0.5) ** 2).sqrt() - radius
    inside = (away < 0).float()
    return torch.stack([torch.ones_like(inside), 1 - 2 * inside, 1 - 2 * inside])[None], away.abs()


def test_known_holds_the_mask_and_what_it_shows() -> None:
    x0, keep = torch.rand(2, 3, 8, 8) * 2 - 1, torch.rand(2, 1, 8, 8) < 0.5
    value = controls.known_slot(x0, keep).value
    assert torch.equal(value[:, :1], keep.float()) and torch.equal(value[:, 1:], torch.where(keep, x0, 0.0))


def test_lowres_is_the_small_picture_and_its_level_of_noise() -> None:
    small = torch.rand(400, 3, 4, 4) * 2 - 1
    plain = controls.lowres_slot(small, (8, 8)).value
    assert torch.equal(plain[:, :3, ::2, 1::2], small) and not plain[:, 3].any()
    level = torch.linspace(0, 0.5, 400)
    noised = controls.lowres_slot(small, (8, 8), level, Noise.of(0, 400)).value
    assert torch.equal(noised[:, 3, 0, 0], level)
    rest = noised[:, :3] - plain[:, :3] * (1 - level).reshape(-1, 1, 1, 1)
    assert torch.allclose(rest[1:].flatten(1).std(1) / level[1:], torch.ones(399), atol=0.3)


def test_the_sketch_of_a_disc_is_its_rim_once() -> None:
    x0, away = disc()
    lines = controls.sketch_of(x0)[0, 0]
    assert away[lines > 0].max() < 1.5  # nothing but the rim
    near = torch.nn.functional.max_pool2d(lines[None, None], 3, 1, 1)[0, 0]
    assert near[away < 0.5].min() == 1  # all of it
    assert 0.7 < lines.sum() / (2 * np.pi * 10) < 1.5  # and thin
    assert not controls.sketch_of(torch.full((1, 3, 16, 16), 0.3)).any()


def test_a_hand_draws_near_the_rim_with_gaps_and_never_the_same() -> None:
    x0, away = disc()
    drawn = controls.sketch_of(x0.expand(64, -1, -1, -1), Noise.of(0, 64))[:, 0]
    assert away.expand(64, -1, -1)[drawn > 0].max() < 5 and len(drawn.unique(dim=0)) == 64
    assert drawn.flatten(1).sum(1).std() > 5 and drawn.flatten(1).sum(1).median() > 30


def test_areas_are_named_by_their_colours() -> None:
    found = controls.segments_of(disc()[0])[0]
    assert COLOURS[found[16, 16]] == "red" and COLOURS[found[0, 0]] == "white"
    one_hot = controls.classes_slot(found[None], CLASSES).value
    assert torch.equal(one_hot.argmax(1)[0], found) and torch.equal(one_hot.sum(1), torch.ones(1, 32, 32))
    assert not controls.classes_slot(torch.full((1, 2, 2), -1), 3).value.any()


def test_random_masks_keep_something_and_hide_something_in_every_way() -> None:
    keep = controls.random_keep(Noise.of(0, 500), (32, 32))
    share = keep.flatten(1).float().mean(1)
    assert share.min() >= 0 and (share > 0.98).float().mean() < 0.05 and (share < 0.01).float().mean() < 0.03
    border = torch.ones(32, 32, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    whole_border = keep[:, 0, border].all(1).float().mean()
    assert 0.3 < whole_border < 0.75  # holes within, and pictures to be continued outwards


def test_words_of_boxes_carry_their_places_and_boxes_stand_apart() -> None:
    slot = controls.boxes_slot([[Box(0, 0, 0.5, 1, "red apple"), Box(0.5, 0, 1, 0.25, "cat")], []])
    assert slot.value.shape == (2, 5, FEATURES + 4) and slot.mask.tolist() == [
        [True, True, False, False, True],
        [False] * 5,
    ]
    assert torch.equal(slot.value[0, :2, :-4], encode(["red apple"])[0][0])
    assert slot.value[0, 0, -4:].tolist() == [0, 0, 500, 1000] and slot.value[0, 4, -4:].tolist() == [500, 0, 1000, 250]


def test_no_layer_carries_words_of_one_box_into_another() -> None:
    language = Language(VOCABULARY, 16)
    for layer in language.layers:
        torch.nn.init.normal_(layer.out.weight, generator=torch.Generator().manual_seed(0))
    boxes = [Box(0, 0, 0.5, 1, "red apple"), Box(0.5, 0, 1, 1, "cat"), Box(0, 0, 1, 1, "an old tree")]

    def read(some: list[Box]) -> Tensor:
        slot = controls.boxes_slot([some])
        return language(slot.value[..., :FEATURES], slot.present())

    assert torch.allclose(read(boxes), torch.cat([read([box]) for box in boxes]), atol=1e-6)


def test_any_subset_is_shown_and_a_picture_gets_the_same_alone() -> None:
    rule, x0 = Controls(NAMES), torch.rand(200, 3, 16, 16) * 2 - 1
    boxes = [[[0, 0, 1, 1, f"thing {k}"]] for k in range(200)]
    noise = Noise.of(0, 200)
    cond = rule(x0, boxes, noise)
    shown = torch.stack([s.present().reshape(200, -1).any(1) for s in cond.values()], 1)
    assert 0.35 < (~shown.any(1)).float().mean() < 0.6 and len(shown.unique(dim=0)) > 20
    for k in (3, 77):
        alone = rule(x0[k : k + 1], boxes[k : k + 1], Noise(noise.seeds[k : k + 1]))
        for name, slot in alone.items():
            there, here = cond[name].value[k], cond[name].present()[k]
            if name == "boxes":  # as many words as the longest of the batch has
                there, here = there[: slot.value.shape[1]], here[: slot.value.shape[1]]
            assert torch.equal(slot.value[0], there) and torch.equal(slot.present()[0], here), name
    with pytest.raises(SfumatoError, match="no control is named 'skech'"):
        Controls(("skech",))
    for wrong in ([[0, 0, 1]], ["cat"], [[0, 0, "a", 1, "cat"]]):
        with pytest.raises(SfumatoError, match="column boxes holds"):
            rule(x0[:1], [wrong], Noise.of(0, 1))


def coloured(n: int = 24):
    source = small_source(n)
    pixels = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    boxes = [[[0.0, 0.0, 0.5, 0.5, "dot"]] for _ in range(n)]
    return dataclasses.replace(
        source, pixels=pixels, captions=[f"thing {k}" for k in range(n)], columns={"boxes": boxes}
    )


NETS = {
    "unet": UNetConfig(widths=(16, 32), blocks=(1, 1), attention=(1,), embedding=32, head=16),
    "transformer": TransformerConfig(patch=4, width=32, depth=1, head=16, bottleneck=16),
}


@pytest.mark.parametrize("kind", NETS)
def test_a_model_with_more_slots_begins_as_the_old_one(kind: str) -> None:
    source = coloured()
    before = Recipe(net=NETS[kind], controls=Controls(("sketch",))).fit_to(source)
    after = dataclasses.replace(before, controls=Controls(("known", "lowres", "sketch", "boxes"))).fit_to(source)
    old, new = before.build(), after.build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in (*old.parameters(), *new.parameters()):
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)
        for name, p in new.named_parameters():
            if name.endswith("place.weight") and "encoders" not in name:
                p.zero_()  # as it is built
    take_over(new, dict(old.named_parameters()), before.net, after.net)
    batch = before.look(source, torch.arange(6), Noise.of(1, 6))
    assert batch.cond["sketch"].present().any()
    x, t = batch.x0 + 0.1, torch.full((6,), 0.5)
    assert torch.allclose(old(x, t, batch.cond).x0, new(x, t, batch.cond).x0, atol=1e-5)
    known = controls.known_slot(batch.x0, torch.ones(6, 1, 16, 16, dtype=torch.bool))
    assert torch.allclose(new(x, t, batch.cond | {"known": known}).x0, new(x, t, batch.cond).x0, atol=1e-5)
    wider = dataclasses.replace(after, net=dataclasses.replace(NETS[kind], channels=3)).fit_to(source)
    changed = {"embedding": 64} if kind == "unet" else {"width": 48}
    wider = dataclasses.replace(wider, net=dataclasses.replace(wider.net, **changed))
    with pytest.raises(SfumatoError, match="cannot begin with that model"):
        take_over(wider.build(), dict(old.named_parameters()), before.net, wider.net)


def test_the_network_learns_to_show_what_is_known() -> None:
    """Pictures of one of two colours everywhere: with two rows known, the rest follows."""
    source = small_source(40)
    pixels = np.where(np.arange(40)[:, None, None, None] % 2, 255, 0).astype(np.uint8) * np.ones((1, 8, 8, 1), np.uint8)
    source = dataclasses.replace(source, pixels=pixels, classes=(), labels=None)
    net = UNetConfig(widths=(16, 32), blocks=(1, 1), embedding=32)
    rule = Controls(("known",), none=0.2, each=1.0)
    recipe = Recipe(net=net, controls=rule, batch=16, optimiser=Optimiser(rate=4e-3, warmup=10)).fit_to(source)
    trainer = Trainer(recipe.build(), recipe, source, Budget(steps=150), Setting(None, False))
    for _ in trainer.steps():
        pass
    noise = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    keep = torch.zeros(20, 1, 8, 8, dtype=torch.bool)
    keep[..., :2, :] = True
    drawn = []
    for value in (-1.0, 1.0):
        cond = Cond({"known": controls.known_slot(torch.full((20, 1, 8, 8), value), keep)})
        with torch.no_grad():
            drawn.append(trainer.denoiser(noise, torch.full((20,), 0.98), cond).x0[:, :, 3:].mean())
    assert drawn[1] - drawn[0] > 0.4  # where nothing is known, of the same noise


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows = []
    for k in range(24):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path / f"{k:02d}.png")
        rows.append(json.dumps({"file_name": f"{k:02d}.png", "text": f"thing {k}", "boxes": [[0, 0, 0.5, 0.5, "dot"]]}))
    (path / "metadata.jsonl").write_text("\n".join(rows))
    return path


SMALL = ["--set", "net.widths=[16,32]", "--set", "net.blocks=[1,1]", "--set", "net.attention=[1]", "--set", "batch=4"]


def test_a_run_that_starts_with_a_model_at_another_size_with_more_slots_and_resumes(
    folder: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    # what takes its time is tested elsewhere: the report, and the meter beside the training
    monkeypatch.setattr("sfumato.cli.train.build_report", lambda run, source: run.path / "report.html")
    monkeypatch.setattr("sfumato.cli.train.metering", lambda *about: None)
    first, second = tmp_path / "first", tmp_path / "second"
    told = ["--slots", "text,sketch", "--steps", "3", "--size", "16", *SMALL]
    assert main(["train", str(folder), "--run", str(first), *told]) == 0
    more = [
        "--slots",
        "text,known,sketch,boxes",
        "--steps",
        "2",
        "--size",
        "32",
        "--set",
        "batch=4",
        "--start",
        str(first),
    ]
    assert main(["train", str(folder), "--run", str(second), *more]) == 0
    model = load(second)
    assert [s.name for s in model.denoiser.net.config.slots] == ["text", "known", "sketch", "boxes"]
    assert model.codec.spec == (3, 32, 32) and model.facts["began"] == {"how": "train", "from": "first"}
    assert main(["train", str(folder), "--run", str(second), "--resume", "--steps", "4"]) == 0
    assert main(["train", str(folder), "--run", str(second), "--resume", "--slots", "text"]) == 2
    # pictures that have no boxes teach a model that knows boxes other things
    plain = shutil.copytree(folder, tmp_path / "plain")
    rows = [json.loads(line) for line in (plain / "metadata.jsonl").read_text().splitlines()]
    told = [json.dumps({name: row[name] for name in ("file_name", "text")}) for row in rows]
    (plain / "metadata.jsonl").write_text("\n".join(told))
    monkeypatch.setattr("sfumato.cli.adapt.REHEARSED", 8)
    assert main(["adapt", str(second), str(plain), "--run", str(tmp_path / "third"), "--steps", "1"]) == 0
    assert load(tmp_path / "third").conditioned_on("boxes")
    assert main(["train", str(folder), "--run", str(tmp_path / "x"), "--slots", "text,skech", "--steps", "1"]) == 2
    assert "no slot is named 'skech'; known: class, style, text, " in capsys.readouterr().err
    assert main(["train", "digits", "--run", str(tmp_path / "z"), "--slots", "class,boxes", "--steps", "1"]) == 2
    assert "needs a column boxes" in capsys.readouterr().err
    for slots, lacked in (("class,text", "captions"), ("style", "styles")):
        assert main(["train", "digits", "--run", str(tmp_path / "z"), "--slots", slots, "--steps", "1"]) == 2
        assert f"this data has no {lacked}" in capsys.readouterr().err and not (tmp_path / "z").exists()
    wrong = ["--start", str(first), "--steps", "1", "--set", "net.widths=[16,48]"]
    assert main(["train", str(folder), "--run", str(tmp_path / "y"), *wrong]) == 2
    assert "cannot begin with that model" in capsys.readouterr().err


def test_the_recipe_of_the_canvas_has_every_control_that_pictures_teach() -> None:
    assert pick_recipe("canvas", 64).controls.names == ("known", "lowres", "sketch", "boxes")
