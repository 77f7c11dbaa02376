"""AI-made pictures: refused, capped or allowed, counted in the run's summary and in its model card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sfumato.cli import main
from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.data import open as open_source
from sfumato.data.hygiene import Policy, ai_marks, parse_policy, with_declared
from sfumato.train import Run
from sfumato.train.card import card

TINY = ["--set", "net.widths=[8,16]", "--set", "net.blocks=[1,1]", "--set", "net.patch=1", "--set", "net.embedding=32"]
MADE, TOTAL = 12, 48


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """48 pictures of 8x8, of which 12 say in a PNG chunk that a generator made them."""
    root = tmp_path / "pictures"
    root.mkdir()
    rng = np.random.default_rng(0)
    for k in range(TOTAL):
        info = PngInfo()
        if k < MADE:
            info.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 8x8")
        else:
            info.add_text("Comment", "from my camera; not AI")
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / f"{k:02d}.png", pnginfo=info)
    return root


def source_with(values: list) -> Source:
    pixels = np.zeros((len(values), 2, 2, 1), np.uint8)
    return Source("s", pixels, tuple(f"{k}\n'.png" for k in range(len(values))), columns={"ai_made": values})


def test_marks_in_the_metadata_are_read_in_every_usual_form() -> None:
    marks = ai_marks(source_with([True, False, None, "yes", "No", "TRUE", "0", 1, 0, ""]))
    assert marks.tolist() == [True, False, False, True, False, True, False, True, False, False]
    assert not ai_marks(Source("s", np.zeros((3, 2, 2, 1), np.uint8), ("a", "b", "c"))).any()
    with pytest.raises(SfumatoError, match="write true or false") as error:
        ai_marks(source_with(["perhaps"]))
    assert "\n" not in str(error.value), "names are escaped"


def test_a_refusal_says_how_many_and_which() -> None:
    with pytest.raises(SfumatoError) as error:
        Policy(refuse=True).check(source_with([True] * 5 + [False] * 5))
    line = str(error.value)
    assert "5 of 10 pictures" in line and "\n" not in line and line.count(".png") == 3
    Policy(refuse=True).check(source_with([False] * 4))
    Policy(cap=0.0).check(source_with([True]))


@pytest.mark.parametrize("text", ["refuse", "allow", "cap=0.2", "cap=0"])
def test_a_policy_reads_as_it_is_written(text) -> None:
    assert str(parse_policy(text)) == text


@pytest.mark.parametrize("text", ["", "cap", "cap=2", "cap=-1", "cap=nan", "Refuse", "cap=0.2,allow"])
def test_what_is_no_policy_is_refused(text) -> None:
    with pytest.raises(SfumatoError, match="refuse, allow, or cap=SHARE"):
        parse_policy(text)


def test_what_files_declare_joins_what_the_metadata_say(folder: Path) -> None:
    rows = ["file_name,ai_made", "20.png,true", "00.png,false"]
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    source = with_declared(open_source(folder, 8), folder)
    marked = {source.keys[k] for k in ai_marks(source).nonzero()[:, 0].tolist()}
    assert marked == {f"{k:02d}.png" for k in range(MADE)} | {"20.png"}


def test_training_refuses_before_anything_is_written(folder: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["train", str(folder), "--run", str(run), "--steps", "2", "--ai-made", "refuse", *TINY]) == 2
    error = capsys.readouterr().err
    assert f"{MADE} of {TOTAL}" in error and "'00.png', '01.png', '02.png'" in error and not run.exists()


@pytest.mark.parametrize("rule", ["allow", "cap=0.1"])
def test_the_share_is_written_into_the_run_and_its_card(rule: str, folder: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["train", str(folder), "--run", str(run), "--steps", "2", "--ai-made", rule, "--json", *TINY]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["ai_made_share"] == MADE / TOTAL
    facts = Run(run).describe()["data"]["ai_made"]
    source = with_declared(open_source(folder, 8), folder)
    made = ai_marks(source)[source.train_index].double().mean()
    assert facts["pictures"] == MADE and facts["rule"] == rule
    assert facts["drawn"] == pytest.approx(float(made) if rule == "allow" else 0.1, abs=1e-4)
    page = Path(told["card"]).read_text()
    assert "12 pictures (25.0%)" in page and f"rule: {rule}" in page


def test_a_capped_run_draws_what_it_says_and_goes_on_only_with_the_same_marks(
    folder: Path, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    command = ["train", str(folder), "--run", str(run)]
    assert main([*command, "--steps", "2", "--ai-made", "cap=0.1", *TINY]) == 0
    source = with_declared(open_source(folder, 8), folder)
    recipe = Run(run).recipe()
    order, n = recipe.order(source), len(source.train_index)
    drawn = torch.cat([order.at(k) for k in range(n)])  # whole epochs
    made = ai_marks(source)[source.train_index][drawn]
    assert abs(int(made.sum()) - 0.1 * len(drawn)) <= len(drawn) / n
    assert main([*command, "--steps", "4", "--resume"]) == 0
    assert Run(run).describe()["data"]["ai_made"]["rule"] == "cap=0.1"
    for flags in (["--ai-made", "allow"], ["--balance", "equal"]):
        assert main([*command, "--resume", *flags]) == 2
        assert "resumed run keeps" in capsys.readouterr().err
    Image.open(folder / "00.png").save(folder / "00.png")  # the mark is washed off
    assert main([*command, "--steps", "6", "--resume"]) == 2
    assert "are not those that the run began with" in capsys.readouterr().err


def test_a_run_balanced_by_a_column_goes_on_only_with_the_same_weights(folder: Path, tmp_path: Path, capsys) -> None:
    def weigh(first: float) -> None:
        rows = [f"{k:02d}.png,{first if k == 20 else 1}" for k in range(TOTAL)]
        (folder / "metadata.csv").write_text("\n".join(["file_name,stars", *rows]) + "\n")

    weigh(5)
    command = ["train", str(folder), "--run", str(tmp_path / "run")]
    assert main([*command, "--steps", "2", "--balance", "column=stars", *TINY]) == 0
    assert main([*command, "--steps", "3", "--resume"]) == 0
    weigh(6)
    assert main([*command, "--steps", "4", "--resume"]) == 2
    assert "are not those that the run began with" in capsys.readouterr().err


def test_a_cap_without_other_pictures_is_an_error(folder: Path, tmp_path: Path, capsys) -> None:
    for k in range(MADE, TOTAL):
        (folder / f"{k:02d}.png").unlink()
    command = ["train", str(folder), "--run", str(tmp_path / "run"), "--steps", "2", *TINY]
    assert main([*command, "--ai-made", "cap=0.5"]) == 2
    assert "--ai-made allow" in capsys.readouterr().err
    assert main([*command, "--ai-made", "allow"]) == 0


def test_a_name_cannot_break_out_of_the_card(tmp_path: Path) -> None:
    described = {
        "data": {"name": "x | <script>\n# y", "pictures": 1, "width": 8, "height": 8, "train": 1, "validation": 1}
        | {"classes": ["a|b"], "captioned": False},
        "recipe": {"process": {"is": "P"}, "net": {"is": "N"}, "seed": 0},
        "versions": {"sfumato": "0"},
    }
    lines = card("run\n## no", described, []).splitlines()
    assert lines[0] == r"# Model card: run\\n\#\# no"
    row = next(line for line in lines if line.startswith("| data |"))
    assert r"x \| \<script\>\\n\# y" in row and row.replace(r"\|", "").count("|") == 3
