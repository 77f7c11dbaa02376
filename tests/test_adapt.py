"""A trained model goes on learning from other pictures: it learns them, keeps what it knew, and refuses what cannot be."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training import small_source, tiny_recipe

from sfumato.cli import adapt as adapt_command
from sfumato.cli import main
from sfumato.cli import train as training
from sfumato.cli.adapt import KNOWN, REHEARSED
from sfumato.core import Batch, Cond, Noise, Slot
from sfumato.data import Source
from sfumato.data import open as open_source
from sfumato.data.balance import Balance
from sfumato.data.hygiene import ai_marks
from sfumato.settings import to_dict
from sfumato.tasks import Model, load
from sfumato.tasks.rehearse import DRAWN, joined
from sfumato.tasks.widen import aligned, widened
from sfumato.train import Run, SquaredError

SMALL = [
    "net.widths=[16,32]",
    "net.blocks=[1,1]",
    "net.patch=1",
    "net.embedding=32",
    "batch=16",
    "optimiser.rate=0.004",
]


def bars(folder: Path, n: int, dark: bool, seed: int, channels: int = 1) -> Path:
    """n pictures of 8x8 with a bar across or down: bright on dark ground, or the reverse; captions say which."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = ["file_name,text"]
    for k in range(n):
        picture = rng.integers(0, 40, (8, 8), dtype=np.uint8)
        across, place = rng.integers(2), rng.integers(8)
        picture[(place,) if across else (slice(None), place)] = rng.integers(180, 256)
        picture = 255 - picture if dark else picture
        if channels == 3:
            picture = np.stack([picture, picture // 2, picture], 2)
        Image.fromarray(picture).save(folder / f"{seed}-{k}.png")
        lines.append(f"{seed}-{k}.png,{'dark' if dark else 'bright'} bar {'across' if across else 'down'}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of pictures and a model trained on the first."""
    root = tmp_path_factory.mktemp("adapt")
    bars(root / "bright", 300, False, 0)
    bars(root / "dark", 60, True, 1)
    sets = [a for s in SMALL for a in ("--set", s)]
    assert (
        main(["train", str(root / "bright"), "--run", str(root / "base"), "--steps", "300", "--size", "8", *sets]) == 0
    )
    return root


@pytest.fixture(scope="module")
def adapted(made: Path) -> Path:
    told = ["adapt", str(made / "base"), str(made / "dark"), "--run", str(made / "new"), "--steps", "150"]
    assert main(told) == 0
    return made / "new"


@torch.no_grad()
def loss(model: Model, source: Source, rows: torch.Tensor) -> float:
    """Mean loss at fixed noise and times, the pictures told by their captions."""
    batch, n = source.batch(rows), len(rows)
    t = (torch.arange(n) + 0.5) / n
    cond = Cond({"text": batch.cond["text"]})
    return float(SquaredError().losses(model.denoiser, Batch(batch.x0, cond), t, Noise.of(5, n), 1.0).mean())


def test_it_learns_the_new_pictures_and_keeps_the_old(made: Path, adapted: Path) -> None:
    """On held-out pictures of both sets; without rehearsal the loss on the old ones rose more than tenfold here."""
    base, new = load(made / "base"), load(adapted)
    dark, bright = open_source(made / "dark", 8), open_source(made / "bright", 8)
    held_out = torch.cat([dark.validation_index] * 20)
    assert loss(new, dark, held_out) < 0.2 * loss(base, dark, held_out)
    assert loss(new, bright, bright.validation_index) < 1.3 * loss(base, bright, bright.validation_index)


def test_what_is_rehearsed_is_half_of_what_is_seen_and_never_held_out(made: Path, adapted: Path) -> None:
    dark = open_source(made / "dark", 8)
    both = joined(dark, adapted / KNOWN)
    rows = torch.arange(len(both))
    own = rows[rows < len(dark)]
    assert set(both.validation_index.tolist()) == set(dark.validation_index.tolist())
    assert 0.9 * REHEARSED < len(both) - len(dark) <= REHEARSED
    weights = Balance(column=DRAWN).weights(both, rows)
    assert float(weights[own].sum()) == pytest.approx(0.5)
    assert ai_marks(both)[len(dark) :].all() and not ai_marks(both)[: len(dark)].any()
    # they are of the captions they carry: bright bars that lie as they are told
    told = [c.split()[-1] for c in both.captions[len(dark) :]]
    x0 = both.batch(rows[len(dark) :]).x0[:, 0]
    lies = ["across" if a > d else "down" for a, d in zip(x0.mean(2).std(1), x0.mean(1).std(1), strict=True)]
    assert sum(a == b for a, b in zip(told, lies, strict=True)) > 0.8 * len(told)
    assert {c.split()[0] for c in both.captions[len(dark) :]} == {"bright"}


@pytest.mark.slow
def test_a_stopped_adaptation_goes_on_bit_for_bit(made: Path) -> None:
    command = ["adapt", str(made / "base"), str(made / "dark"), "--run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_preview", lambda *a: os.kill(os.getpid(), signal.SIGINT))
        assert main([*command, str(made / "one"), "--steps", "24"]) == 0
        shutil.copytree(made / "one", made / "two")
        assert main([*command, str(made / "two"), "--resume"]) == 0
    assert main([*command, str(made / "two"), "--resume"]) == 0
    assert main([*command, str(made / "one"), "--resume"]) == 0
    one, two = Run(made / "one").averaged(), Run(made / "two").averaged()
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_an_adapted_file_is_adapted_again(made: Path, adapted: Path, tmp_path: Path) -> None:
    """From one exported file, which says where it comes from."""
    file = tmp_path / "new.safetensors"
    assert main(["export", str(adapted), "--to", str(file)]) == 0
    assert load(file).facts["began"] == {"how": "adapt", "from": "base"}
    told = ["adapt", str(file), str(made / "dark"), "--run", str(tmp_path / "again"), "--steps", "2"]
    assert main(told) == 0
    assert load(tmp_path / "again").facts["began"]["from"] == "new.safetensors"


def test_what_cannot_be_adapted_is_one_line(made: Path, adapted: Path, tmp_path: Path, capsys) -> None:
    base, new = str(made / "base"), ["--run", str(tmp_path / "new"), "--steps", "2"]
    bars(tmp_path / "colour", 8, False, 2, channels=3)
    (bars(tmp_path / "mute", 8, False, 3) / "metadata.csv").unlink()

    def refused(*command: str) -> str:
        capsys.readouterr()
        assert main(["adapt", *command]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    dark = str(made / "dark")
    assert "grey" in refused(base, str(tmp_path / "colour"), *new)
    assert "metadata.csv" in refused(base, str(tmp_path / "mute"), *new)
    assert "no folder" in refused(base, str(tmp_path / "nothing"), *new)
    assert "no run folder" in refused(str(tmp_path / "nothing"), dark, *new)
    assert "already holds a run" in refused(base, dark, "--run", str(adapted))
    assert "keeps its process" in refused(base, dark, *new, "--set", "process=EDM")
    assert "keeps its seed" in refused(base, dark, "--run", str(adapted), "--resume", "--seed", "3")
    assert "began with" in refused(base, str(made / "bright"), "--run", str(adapted), "--resume")
    assert not (tmp_path / "new" / "run.json").exists()


# --- names ----------------------------------------------------------------------------------------------------------


def styled(source: Source, styles: tuple[str, ...], labels: list[int]) -> Source:
    return dataclasses.replace(source, styles=styles, style_labels=torch.tensor(labels))


def test_names_are_numbered_as_the_model_does() -> None:
    source = dataclasses.replace(small_source(4), labels=torch.tensor([0, 1, -1, 1]))  # classes down, across
    got = aligned(source, {"class": ("across", "round", "down")})
    assert got.classes == ("across", "round", "down") and got.labels.tolist() == [2, 0, -1, 0]
    got = aligned(source, {"class": ("round",)})
    assert got.classes == ("round", "down", "across") and got.labels.tolist() == [1, 2, -1, 2]
    got = aligned(source, {"style": ("a", "b")})  # no style is told: one new style
    assert got.styles == ("a", "b", "bars") and got.style_labels.tolist() == [2] * 4
    got = aligned(dataclasses.replace(source, columns={"style": ["mine"] * 4}), {"style": ("a",)})
    assert got.styles == ("a", "mine")
    mute = dataclasses.replace(source, classes=(), labels=None)
    assert aligned(mute, {"class": ("round",)}).classes == ("round", "bars")
    assert aligned(dataclasses.replace(mute, captions=["x"] * 4), {"class": ("round",)}).labels is None


def test_a_model_with_more_names_draws_the_same_as_before() -> None:
    """Known styles and no style, bit for bit; a new style is like none until it is learned."""
    source = styled(small_source(8), ("a", "b"), [0, 1] * 4)
    recipe = tiny_recipe(source)
    denoiser = recipe.build()
    with torch.no_grad():
        for k, p in enumerate(denoiser.parameters()):
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(k)), alpha=0.1)
    model = Model(
        denoiser.eval(), source.codec, {"recipe": to_dict(recipe), "classes": ["down", "across"], "styles": ["a", "b"]}
    )
    wide = widened(model, aligned(styled(small_source(4), ("c", "b"), [0, 1, 0, 1]), {"style": ("a", "b")}))
    assert wide.styles == ("a", "b", "c") and wide.classes == ("down", "across")
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def says(model: Model, ids: list[int], present: bool = True) -> torch.Tensor:
        cond = Cond({"style": Slot(torch.tensor(ids), "vector", torch.full((3,), present))})
        with torch.no_grad():
            return model.denoiser(x, 0.5, cond).x0

    assert torch.equal(says(model, [0, 1, 0]), says(wide, [0, 1, 0]))
    absent = says(model, [0, 0, 0], False)
    assert torch.equal(absent, says(wide, [0, 0, 0], False)) and torch.equal(absent, says(wide, [2, 2, 2]))
    assert not torch.equal(absent, says(model, [0, 1, 0]))


@pytest.mark.slow
def test_without_rehearsal_the_old_is_forgotten(made: Path, adapted: Path) -> None:
    """What rehearsal is for: the same steps on the new pictures alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapt_command, "joined", lambda source, path: source)
        told = ["adapt", str(made / "base"), str(made / "dark"), "--run", str(made / "alone"), "--steps", "150"]
        assert main([*told, "--set", "balance=null"]) == 0
    base, new, alone = load(made / "base"), load(adapted), load(made / "alone")
    dark, bright = open_source(made / "dark", 8), open_source(made / "bright", 8)
    held_out = torch.cat([dark.validation_index] * 20)
    for name, model in (("base", base), ("adapted", new), ("alone", alone)):
        print(name, "old", loss(model, bright, bright.validation_index), "new", loss(model, dark, held_out))
    assert loss(alone, bright, bright.validation_index) > 3 * loss(new, bright, bright.validation_index)
