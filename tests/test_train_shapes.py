"""Training on pictures of several shapes: resumed bit for bit, sampled, measured and reported in every shape."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_train_resume import BASE, assert_same, everything, train_until
from training import FLOAT32, tiny_recipe

from sfumato.cli import main
from sfumato.core import Noise, SfumatoError
from sfumato.data import Source, Standard
from sfumato.data.ragged import Ragged
from sfumato.denoiser import TransformerConfig
from sfumato.tasks import Request, by_shape, generate, load
from sfumato.train import Budget, Run, Trainer, averaged_weights, make_plan, resume, validation_losses
from sfumato.train.machine import saved_bytes

SHAPES = ((8, 8), (8, 12), (16, 4))


def shapes_source(n: int = 90, seed: int = 0) -> Source:
    """Grey pictures of three shapes, half, a third and a sixth of the set: noise round a brightness of their own."""
    rng = np.random.default_rng(seed)
    bucket = rng.permutation(np.repeat([0, 1, 2], [n // 2, n // 3, n - n // 2 - n // 3]))
    parts = tuple(
        rng.integers(60 * k, 60 * k + 90, ((bucket == k).sum(), *s, 1), np.uint8) for k, s in enumerate(SHAPES)
    )
    return Source("shapes", Ragged(parts, bucket), tuple(f"{k}.png" for k in range(n)))


def trainer(folder: Path, begin: bool, net: TransformerConfig | None = None) -> tuple[Run, Trainer]:
    """What a new process makes to begin a run or to go on with it."""
    source, run = shapes_source(), Run(folder)
    if begin:
        recipe = (BASE if net is None else tiny_recipe(source, net=net)).fit_to(source)
        made = Trainer(recipe.build(), recipe, source, Budget(steps=200), FLOAT32)
        run.begin(recipe, source, made.budget, made.setting)
    else:
        made = Trainer(run.recipe().build(), run.recipe(), source, run.budget(), FLOAT32)
        resume(run, made)
    return run, made


def test_80_and_70_and_50_steps_are_200_steps(tmp_path: Path) -> None:
    run, made = trainer(tmp_path / "straight", True)
    train_until(run, made, 200, reports=5)
    straight = everything(run, made)
    for stop in (80, 150, 200):
        torch.manual_seed(stop)  # a new process has another global generator
        run, made = trainer(tmp_path / "run", stop == 80)
        train_until(run, made, stop, reports=5)
    assert_same(everything(run, made), straight)


@pytest.mark.parametrize(
    "net", [None, TransformerConfig(patch=4, width=32, depth=1, head=16)], ids=["unet", "transformer"]
)
def test_both_networks_learn_all_shapes(tmp_path: Path, net: TransformerConfig | None) -> None:
    run, made = trainer(tmp_path / "run", True, net)
    before, u = validation_losses(made)
    train_until(run, made, 60)
    after, _ = validation_losses(made)
    kinds = made.source.bucket[made.source.validation_index[torch.arange(len(u)) % len(made.source.validation_index)]]
    for kind in kinds.unique().tolist():
        assert after[kinds == kind].mean() < before[kinds == kind].mean(), SHAPES[kind]
    model = load(run.path)
    drawn = by_shape(model, Request(n=10, steps=3))
    assert Counter(im.size for r in drawn for im in r.images) == {(8, 8): 6, (12, 8): 3, (4, 16): 1}
    one = generate(model, Request(n=2, steps=3, shape=(8, 12)))
    assert torch.equal(one.x0, drawn[1].x0[:2]), "picture k of a shape is the same whatever n"
    assert generate(model, Request(n=1, steps=2)).images[0].size == (8, 8)
    with pytest.raises(SfumatoError, match="multiples of 4 pixels, not 10x8"):
        generate(model, Request(n=1, shape=(8, 10)))


def test_the_fixed_pairs_do_not_depend_on_the_shapes_beside(tmp_path: Path) -> None:
    """Each pair's loss is that of the pair alone, whatever else is validated with it."""
    _, made = trainer(tmp_path / "run", True)
    losses, u = validation_losses(made)
    rows = made.source.validation_index[torch.arange(len(u)) % len(made.source.validation_index)]
    with averaged_weights(made), torch.no_grad():
        for k in (0, 7, len(u) - 1):
            alone = made.losses(made.look(rows[k : k + 1]), u[k : k + 1], Noise([Noise.of(20260101, len(u)).seeds[k]]))
            assert losses[k].item() == pytest.approx(alone.item(), rel=1e-4)


def test_the_plan_is_that_of_the_largest_shape() -> None:
    source = shapes_source()
    recipe = tiny_recipe(source)
    denoiser = recipe.build()
    plan, _ = make_plan(denoiser, recipe, source, Budget(steps=5))
    fresh = recipe.build()  # the plan's own may have been left in another precision by the probe
    assert plan.activation_bytes == 8 * saved_bytes(
        fresh, torch.zeros(1, 1, 8, 12), source.batch(torch.tensor([0])).cond
    )
    assert plan.data_bytes == source.pixels.nbytes == sum(part.nbytes for part in source.pixels.parts)


def test_means_and_deviations_are_those_of_all_pixels() -> None:
    source = shapes_source()
    recipe = tiny_recipe(source, standard=Standard())
    rows = source.train_index
    pixels = np.concatenate([source.batch(rows[k : k + 1]).x0.double().numpy().ravel() for k in range(len(rows))])
    assert recipe.standard.mean[0] == pytest.approx(pixels.mean(), abs=1e-9)
    assert recipe.standard.std[0] == pytest.approx(pixels.std(), abs=1e-9)
    assert recipe.sigma_data == pytest.approx(1, abs=2e-3)
    with pytest.raises(SfumatoError, match="no elements in common: set standard.per=channel"):
        tiny_recipe(source, standard=Standard("element"))
    plain = tiny_recipe(source)
    assert plain.sigma_data == pytest.approx(pixels.std(ddof=1), abs=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 wide pictures and 40 tall ones."""
    root = tmp_path_factory.mktemp("wide-and-tall") / "set"
    root.mkdir()
    rng = np.random.default_rng(0)
    for k in range(120):
        size = (40, 30) if k % 3 else (30, 40)
        Image.fromarray(rng.integers(0, 256, size[::-1], dtype=np.uint8)).save(root / f"{k:03d}.png")
    return root


CHANGES = ("net.patch=2", "net.widths=[8,16]", "net.blocks=[1,1]", "net.embedding=32", "batch=8")
TINY = [word for change in CHANGES for word in ("--set", change)]


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    call = ["train", str(folder), "--run", str(run), "--size", "16", "--buckets", "2", "--steps", "24"]
    assert main([*call, *TINY, "--set", "optimiser.rate=0.01"]) == 0
    return run


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_run_says_its_shapes(trained: Path) -> None:
    described = json.loads((trained / "run.json").read_text())
    assert described["codec"]["shapes"] == [[12, 16], [16, 12]] == [s[:2] for s in described["data"]["shapes"]]
    assert [n for *_, n in described["data"]["shapes"]] == [80, 40] and described["data"]["crop"] == 0
    assert "16x12 / 12x16" in (trained / "card.md").read_text()
    assert "16×12 / 12×16 pixels" in (trained / "report.html").read_text(encoding="utf-8")
    for preview in (trained / "previews").iterdir():
        assert Image.open(preview).size[1] > 0


def test_samples_come_out_in_each_shape(trained: Path, tmp_path: Path, capsys) -> None:
    for shape in ((12, 16), (16, 12)):
        out = tmp_path / f"{shape[0]}"
        assert told(capsys, "sample", str(trained), "--n", "8", "--shape", "{1}x{0}".format(*shape), "--out", str(out))
        pictures = [Image.open(p) for p in sorted(out.iterdir())]
        assert len(pictures) == 8 and {p.size for p in pictures} == {shape[::-1]}
    assert main(["sample", str(trained), "--out", str(tmp_path / "x.png"), "--shape", "12"]) == 2
    assert "write width x height" in capsys.readouterr().err
    assert main(["sample", str(trained), "--out", str(tmp_path / "x.png"), "--shape", "13x12"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1  # the error alone
    assert main(["sample", str(trained), "--n", "2", "--out", str(tmp_path / "x.png"), "--shape", "12x12"]) == 0
    assert "learned from pictures of 16x12, 12x16" in capsys.readouterr().err


def test_doctor_reads_a_run_of_several_shapes(trained: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sfumato.cli.doctor._machine", dict)
    assert told(capsys, "doctor", str(trained))["run"]["step"] == 24


def test_measure_compares_squares(trained: Path, folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sfumato.measure.features._train", lambda *a: None)  # an untrained extractor is one too
    for k in range(20):
        Image.fromarray(np.random.default_rng(99 + k).integers(0, 256, (40, 30), dtype=np.uint8)).save(
            tmp_path / f"{k}.png"
        )
    found = told(capsys, "measure", str(trained), "--against", str(tmp_path), "--n", "16")
    assert found["n"] == 16 and found["n_reference"] == 20 and found["floor"]["n"] == 16
    assert "-12-" in found["features"]


def test_going_on_needs_the_same_shapes_and_the_same_format(
    trained: Path, folder: Path, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert main(["train", str(folder), "--run", str(run), "--resume", "--buckets", "3"]) == 2
    assert "keeps its buckets" in capsys.readouterr().err
    assert told(capsys, "train", str(folder), "--run", str(run), "--resume", "--steps", "28")["steps"] == 28
    other = tmp_path / "set"
    shutil.copytree(folder, other)
    turned = Image.open(other / "000.png").transpose(Image.Transpose.ROTATE_90)
    turned.save(other / "000.png")
    assert main(["train", str(other), "--run", str(run), "--resume"]) == 2
    assert "read in another order" in capsys.readouterr().err
    described = json.loads((run / "run.json").read_text())
    described["data"]["window"] = [8192, 64]  # as if it had been begun on demand
    (run / "run.json").write_text(json.dumps(described))
    assert main(["train", str(folder), "--run", str(run), "--resume"]) == 2
    assert "give it in the format it had" in capsys.readouterr().err
