"""The benchmarks' own machinery: writing, resuming, tables and stand-ins, on made-up results; no peer is needed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import common, contenders, peers, quality_per_minute, solver_overhead, tables, training_speed
from sfumato.core import Cond
from sfumato.data import Source

MODULES = (
    "agreement",
    "canvas",
    "common",
    "contenders",
    "data_matters",
    "data_tables",
    "import_time",
    "inception_peer",
    "measure_speed",
    "peers",
    "quality_per_minute",
    "rival",
    "solver_overhead",
    "sources",
    "tables",
    "text_peer",
    "text_to_picture",
    "training_speed",
    "word_tables",
    "words",
)


def run(contender: str, fd: float, seed: int = 0, budget: float = 480.0) -> dict:
    return {
        "contender": contender, "budget": budget, "seed": seed, "n": 100, "fd": fd, "kid": 0.01, "precision": 0.8,
        "recall": 0.5, "parameters": 5_000_000, "images_seen": 40_000, "sampler": "dpmpp2m, karras, 18 steps",
        "sampling_cpu_ms_per_picture": 30.0, "settings": {},
    }  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    runs = [run("sfumato", 12.0), run("sfumato", 14.0, seed=1), run("sfumato", 40.0, budget=60.0)]
    runs += [run("diffusers-recipe", 130.0), run("diffusers-fair", 30.0), run("diffusers-fair:batch=64", 20.0)]
    runs += [run("sfumato:batch=64", 24.0), run("sfumato", 1.0, seed=10)]  # a seed for choosing enters no result
    floor = {"100": {"train": {"fd": 0.6}, "noise": {"fd": 246.0}}}
    common.write("quality_per_minute", common.envelope(runs=runs, floor=floor, commands=["python -m x"]), tmp_path)
    return tmp_path


def test_every_benchmark_imports_without_its_peers() -> None:
    code = f"""
import importlib, sys
for name in {MODULES}:
    importlib.import_module("benchmarks." + name)
print(sorted({{"diffusers", "denoising_diffusion_pytorch", "k_diffusion", "accelerate"}} & set(sys.modules)))
"""
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stdout.strip() == "[]"


def test_results_are_written_whole_with_machine_and_versions(tmp_path: Path) -> None:
    path = common.write("x", common.envelope(rows=[1]), tmp_path)
    data = json.loads(path.read_text())
    assert data["rows"] == [1] and data["machine"]["cores"] >= 1 and "torch" in data["versions"] and data["command"]
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert common.read("absent", tmp_path) is None


def test_ratios_are_taken_pair_by_pair() -> None:
    ratio = common.ratios([2.0, 30.0, 400.0], [1.0, 10.0, 100.0])
    assert ratio == {"median": 3.0, "min": 2.0, "max": 4.0, "n": 3}


def test_alternating_turns_the_order_round() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    common.alternate(2, runs, say=lambda text: None)
    assert "".join(order) == "abccba"


def test_quality_table_has_means_over_seeds_of_the_main_budget(results: Path) -> None:
    text = tables.render("quality", results)
    ours = next(line for line in text.splitlines() if line.startswith("| sfumato "))
    assert "**13.0** (12.0 to 14.0)" in ours and ours.rstrip(" |").endswith("2")
    assert ":" not in ours.split("|")[1] and "batch=64" not in text
    assert "0.60 for training pictures" in text


def test_claims_use_the_best_version_of_the_fair_peer(results: Path) -> None:
    lines = tables.render("claims", results).splitlines()
    assert any("at most 15" in line and "13.0" in line and "yes" in line for line in lines)
    assert any("diffusers-recipe" in line and "0.100" in line and "yes" in line for line in lines)
    assert any("diffusers-fair" in line and "0.650" in line and "**no**" in line for line in lines)


def test_ablation_compares_on_shared_seeds(results: Path) -> None:
    line = next(line for line in tables.render("ablation", results).splitlines() if "batch=64" in line)
    assert "2.00 (1)" in line  # 24 against seed 0's 12, not against the mean


def test_budget_table_has_a_column_per_budget(results: Path) -> None:
    text = tables.render("budgets", results)
    assert "60 CPU-seconds | 480 CPU-seconds" in text
    assert "**40.0** | **13.0**" in next(line for line in text.splitlines() if line.startswith("| sfumato "))


def test_filling_a_document_twice_changes_nothing_more(results: Path) -> None:
    empty = "<!-- table:{} -->\n{}<!-- /table -->\n"
    text = "before\n" + empty.format("quality", "old\n") + "between\n" + empty.format("import_time", "") + "after\n"
    once = tables.fill(text, results)
    assert "old" not in once and once.startswith("before") and once.endswith("after\n") and "between" in once
    assert "Not measured yet: `python -m benchmarks.import_time`" in once
    assert tables.fill(once, results) == once


def test_the_documents_marks_are_known_tables(tmp_path: Path) -> None:
    text = "".join(doc.read_text() for doc in tables.DOCS)
    assert tables.fill(text, tmp_path).count("Not measured yet") == len(tables.TABLES)


def test_speed_tables_from_measurements_of_every_kind(tmp_path: Path) -> None:
    shape = {"shape": {}, "flops": 3e9, "parameters": 5_000_000}
    names = ("sfumato U-Net | tuned", "diffusers | default", "diffusers | tuned")
    answers = {
        name: [{"images_per_second": speed * k, "bf16_peak": 400.0} for k in (1.0, 1.1, 0.9)]
        for name, speed in zip(names, (80.0, 40.0, 64.0), strict=True)
    }
    summary = training_speed.summarise({"sfumato U-Net": shape, "diffusers": shape}, answers)
    assert summary["ratios"]["sfumato U-Net | tuned / diffusers | default"]["median"] == pytest.approx(2.0)
    assert summary["rows"][names[0]]["share_of_bf16_peak"]["median"] == pytest.approx(80 * 3 / 400)
    common.write("training_speed", common.envelope(results=[{"batch": 64, **summary}]), tmp_path)
    assert "Batch 64" in tables.render("training_speed", tmp_path)

    times = {
        ("euler", "sfumato"): [10.0, 12.0],
        ("euler", "diffusers"): [40.0, 60.0],
        ("euler", "k-diffusion"): [20.0, 24.0],
    }
    rows = solver_overhead.table(times)
    assert rows["euler"]["ratio_to_best_peer"] == {"peer": "k-diffusion", "median": 0.5, "min": 0.5, "max": 0.5, "n": 2}
    common.write("solver_overhead", common.envelope(rows=rows), tmp_path)
    assert "| euler | 11 | 50 | 22 |" in tables.render("solver_overhead", tmp_path)

    imports = {"rows": {"torch": common.spread([1.0])}, "ratio_to_torch": {}}
    common.write("import_time", common.envelope(**imports, bound=1.5, within_bound=True), tmp_path)
    assert "Within 1.5 times torch: yes" in tables.render("import_time", tmp_path)


def test_our_solvers_run_with_a_constant_in_place_of_the_network() -> None:
    for solver, (process, _, _) in solver_overhead.SOLVERS.items():
        out = solver_overhead.ours(solver, process, steps=4)()()
        assert out.shape == solver_overhead.SHAPE and torch.isfinite(out).all(), solver


def test_grid_places_pictures_in_reading_order(tmp_path: Path) -> None:
    from PIL import Image

    x = torch.full((100, 1, 4, 4), -1.0)
    x[1] = 1.0
    quality_per_minute.save_grid(x, tmp_path / "grids" / "a.png")
    picture = Image.open(tmp_path / "grids" / "a.png")
    assert picture.size == (40, 40) and picture.getpixel((5, 2)) == 255 and picture.getpixel((2, 5)) == 0


def test_side_by_side_needs_grids(results: Path, tmp_path: Path) -> None:
    data = common.read("quality_per_minute", results)
    assert not tables.side_by_side(data, results, tmp_path / "out.png")
    data["runs"][0]["grid"] = "a.png"
    quality_per_minute.save_grid(torch.zeros(100, 1, 4, 4), results / "grids" / "a.png")
    assert tables.side_by_side(data, results, tmp_path / "out.png") and (tmp_path / "out.png").exists()


def test_stand_ins_vanish_again() -> None:
    with peers.stand_ins(("no_such_package",)):
        from no_such_package.deep import thing

        with pytest.raises(RuntimeError, match="stand-in"):
            thing()
    assert not [name for name in sys.modules if name.startswith("no_such_package")]
    with pytest.raises(ImportError):
        importlib.import_module("no_such_package")


def test_operations_are_counted_as_two_per_multiply_and_add() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(1, 8, 1, bias=False), torch.nn.Conv2d(8, 1, 1, bias=False)

        def forward(self, x, t):
            return self.b(self.a(x))

    # forward of both, both weight gradients, and the gradient of the middle: five products of 32*32*8 multiply-adds
    assert peers.training_flops(Net(), channels=1) == 5 * 2 * 32 * 32 * 8


def test_runs_of_another_recipe_are_not_taken_for_ours() -> None:
    """The results in the repository belong to today's recipe; a changed number, sampler or network makes a run stale."""
    runs = [r for r in common.read("quality_per_minute")["runs"] if r["contender"] in ("sfumato", "diffusers-fair")]
    assert len(runs) >= 2 and all(contenders.current(r) for r in runs)
    ours = next(r for r in runs if r["contender"] == "sfumato")
    for change in (
        lambda r: r["settings"]["recipe"]["optimiser"].update(rate=0.001),
        lambda r: r["settings"]["recipe"]["net"].update(widths=[32, 64, 128]),
        lambda r: r["settings"]["recipe"].update(balance={"is": "Balance"}),
        lambda r: r.update(sampler="heun, flow, 18 steps"),
    ):
        other = json.loads(json.dumps(ours))
        change(other)
        assert not contenders.current(other)


def test_contenders_take_changes_and_refuse_mistakes() -> None:
    ours = contenders.make("sfumato:batch=64;precision=float32;steps=5")
    assert ours.recipe.batch == 64 and ours.running["precision"] == "float32" and "5 steps" in ours.sampler
    assert contenders.make("diffusers-fair:widths=[32,32,64,64];batch=16").widths == (32, 32, 64, 64)
    for spec in ("nobody", "ddp-defaults:batch=3"):
        with pytest.raises(ValueError, match="unknown contender"):
            contenders.make(spec)


@pytest.mark.parametrize("spec", contenders.ABLATION)
def test_every_change_of_the_ablation_can_be_built(spec: str) -> None:
    """As a worker would build it: a change that no network has must not be found out after hours."""
    made = contenders.make(spec)
    few = Source("few", np.zeros((8, 32, 32, 1), np.uint8), tuple("abcdefgh"))
    recipe = made.recipe.fit_to(few)
    with torch.device("meta"):
        denoiser = recipe.build()
        assert denoiser.net(torch.zeros(2, 1, 32, 32), torch.zeros(2), Cond()).shape == (2, 1, 32, 32)


class Slow:
    """A contender whose steps cost processor time."""

    images = 0

    def step(self) -> float:
        self.images += 3
        for _ in range(20):
            torch.ones(200, 200) @ torch.ones(200, 200)
        return 0.5


def test_training_stops_when_the_processor_time_is_spent() -> None:
    done = contenders.train(Slow(), budget=0.2)
    assert 0.2 <= done["cpu_seconds"] < 2 and done["images_seen"] == 3 * done["steps"] and done["loss"] == 0.5
