"""sfumato compare: fair turns, truthful words, failures counted, exact resume, clear refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from training import small_source

from benchmarks import rival_table
from sfumato.cli.main import main
from sfumato.core import SfumatoError
from sfumato.denoiser import UNetConfig
from sfumato.measure import arena, modes
from sfumato.measure.compare import correlation, differences, mode_facts, sentences, summary, worsened
from sfumato.measure.compare_page import write_page
from sfumato.measure.duel import Judge, fight, results
from sfumato.measure.ranks import interval, spearman
from sfumato.measure.rival import GanRecipe, VaeRecipe
from sfumato.train import Budget, Diverged, EMAConfig, Progress, Recipe, Setting

# --- statistics


@pytest.mark.parametrize("seed", range(4))
def test_spearman_is_that_of_scipy_ties_included(seed) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 6, 15).astype(float), rng.normal(size=15).round(1)
    assert spearman(list(a), list(b)) == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)


def test_spearman_says_nothing_where_nothing_can_be_said() -> None:
    assert spearman([1.0, 2.0], [1.0, 2.0]) is None
    assert spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


@pytest.mark.parametrize("n", [2, 3, 5, 12, 31])
def test_the_interval_is_students(n) -> None:
    values = np.random.default_rng(n).normal(size=n)
    low, high = scipy.stats.t.interval(0.95, n - 1, values.mean(), scipy.stats.sem(values))
    found = interval(list(values))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-3)
    assert interval([3.0]) == (3.0, None) and not interval([3.0]).apart_from_zero


# --- modes


def level(x: torch.Tensor) -> torch.Tensor:
    """A perfect classifier of flat grey pictures: -1, 0 and 1 are classes 0, 1, 2, anything above is class 3."""
    return (x.mean((1, 2, 3)) + 1).round().long()


def flat(*channels: float) -> torch.Tensor:
    return torch.tensor(channels, dtype=torch.float32)[:, None, None].expand(3, 4, 4).clone()


def test_modes_are_counted_exactly() -> None:
    kinds = torch.arange(3)
    every = [flat(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]
    even = modes.count_modes(torch.stack(every), level, kinds)
    assert (even["modes"], even["of"], even["outside"]) == (27, 27, 0) and even["kl"] == pytest.approx(0, abs=1e-12)
    one = modes.count_modes(torch.stack([every[5]] * 40), level, kinds)
    assert one["modes"] == 1 and one["kl"] == pytest.approx(math.log(27))
    seven = modes.count_modes(torch.stack(every[:7] * 3), level, kinds)
    assert seven["modes"] == 7 and seven["kl"] == pytest.approx(math.log(27 / 7))
    some = modes.count_modes(torch.stack([every[0], flat(0, 2, 0)]), level, kinds)
    assert (some["modes"], some["outside"]) == (1, 1)
    assert modes.count_modes(flat(2, 2, 2)[None], level, kinds)["kl"] is None
    assert modes.count_modes(torch.stack(every), level, torch.tensor([0, 2]))["modes"] == 8


def test_stacked_pictures_hold_every_mode_alike_and_only_training_pictures() -> None:
    source = small_source(80)
    kinds = modes.kinds_of(source)
    laid = modes.stack(source, kinds)
    known = {picture.tobytes(): row for row, picture in enumerate(source.pixels)}
    training = set(source.train_index.tolist())
    counts = dict.fromkeys(range(8), 0)
    for picture in laid.pixels:
        rows = [known[np.ascontiguousarray(picture[..., k : k + 1]).tobytes()] for k in range(3)]
        assert training.issuperset(rows)
        counts[sum(int(source.labels[row]) << place for place, row in enumerate(rows))] += 1
    assert max(counts.values()) - min(counts.values()) <= 1


def test_colour_sources_are_counted_in_grey_and_classless_ones_refused() -> None:
    source = small_source(20)
    colour = replace(source, pixels=np.repeat(source.pixels, 3, axis=3))
    assert np.array_equal(modes.grey(colour).pixels, source.pixels)
    with pytest.raises(SfumatoError, match="leave --modes away"):
        modes.grey(replace(source, classes=(), labels=None))


# --- turns


class Clocked:
    """A trainer whose steps take a told time, on a clock of its own; draws noise."""

    def __init__(self, name: str, cost: float, seconds: float, log: list[tuple[str, float]], fails: int = 0) -> None:
        self.name, self.cost, self.total, self.log, self.fails = name, cost, seconds, log, fails
        self.trainer, self.parameters, self.trained = self, 10, 20
        self.step, self.seconds, self.setting = 0, 0.0, Setting(None, False)
        self.source, self.recipe = small_source(), replace(GanRecipe(), batch=2)

    @property
    def share(self) -> float:
        return min(1.0, self.seconds / self.total)

    def steps(self):
        while self.share < 1:
            if self.step + 1 == self.fails:
                raise Diverged("training stopped at step 3: d_loss is not finite")
            self.step, self.seconds = self.step + 1, self.seconds + self.cost
            self.log.append((self.name, self.seconds))
            yield Progress(self.step, self.share, self.seconds, 2 * self.step, 1.0)

    def sample(self, n: int, seed: int) -> torch.Tensor:
        return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    def losses(self) -> dict[str, float]:
        return {"d_loss": 1 / self.step, "g_loss": float(self.step)}

    def state(self):
        return {name: {"x": torch.ones(1)} for name in ("weights", "ema", "optimiser")}, {"step": self.step}


class Stub:
    """Two contenders of different speed; the second may fail at a step, in the seeds told."""

    def __init__(self, fails: dict[int, int] | None = None) -> None:
        self.log: list[tuple[str, float]] = []
        self.fails = fails or {}

    def makers(self, seed: int):
        return {
            "diffusion": lambda setting: Clocked("diffusion", 0.7, 60, self.log),
            "gan": lambda setting: Clocked("gan", 0.2, 60, self.log, self.fails.get(seed, 0)),
        }


class NoJudge:
    n, few, reports = 16, 16, 4

    def curve(self, x):
        return {"kid": float(x.std()), "kid_se": 0.1, "fd": 2.0, "precision": 0.5, "recall": 0.5}

    def final(self, x):
        return self.curve(x) | {"density": 1.0, "coverage": 0.5}


def test_turns_give_equal_time_all_along(tmp_path) -> None:
    stub = Stub()
    list(fight(tmp_path, stub, NoJudge(), range(1), slices=10))
    spent = {"diffusion": 0.0, "gan": 0.0}
    switches = sum(a[0] != b[0] for a, b in zip(stub.log, stub.log[1:], strict=False))
    for name, seconds in stub.log:
        spent[name] = seconds
        assert abs(spent["diffusion"] - spent["gan"]) <= 6 + 0.7 + 1e-9  # a turn and a step
    assert spent == pytest.approx({"diffusion": 60, "gan": 60}, abs=0.7)
    assert switches >= 2 * 10 - 2
    assert [run["seconds"] for run in results(tmp_path)] == pytest.approx([60, 60], abs=0.7)


def test_a_run_that_diverges_is_counted_and_the_other_goes_on(tmp_path) -> None:
    list(fight(tmp_path, Stub({1: 3}), NoJudge(), range(3)))
    runs = results(tmp_path)
    assert len(runs) == 6 and sum(run["diverged"] is not None for run in runs) == 1
    facts = summary(runs)
    assert facts["gan"]["diverged"] == 1 and facts["gan"]["runs"] == 3 and len(facts["gan"]["fd"]["values"]) == 2
    assert facts["diffusion"]["diverged"] == 0 and len(facts["diffusion"]["fd"]["values"]) == 3
    told = "1 of 3 runs of the GAN diverged; its means are over 2."
    assert told in sentences(runs)
    terms = {"source": "<b>bars</b>", "budget": "1 min", "n": 16, "n_reference": 20, "features": "none"}
    page = write_page(tmp_path, terms, runs).read_text()
    assert told in page and "the run diverged" in page and "<b>bars" not in page


def test_pictures_that_are_not_finite_are_a_diverged_run(tmp_path) -> None:
    class Bad(Clocked):
        def sample(self, n: int, seed: int) -> torch.Tensor:
            raise Diverged("the generator's pictures are not finite")

    stub = Stub()
    both = {"diffusion": lambda s: Clocked("diffusion", 5, 60, []), "gan": lambda s: Bad("gan", 5, 60, [])}
    stub.makers = lambda seed: both
    list(fight(tmp_path, stub, NoJudge(), range(1)))
    assert {run["contender"]: run["diverged"] is not None for run in results(tmp_path)} == {
        "diffusion": False,
        "gan": True,
    }


# --- words


def run(name: str, seed: int, kid: float, speed: float, rows=(), **final) -> dict:
    scores = {"kid": kid, "fd": 10 * kid, "precision": 0.5, "recall": 0.5, "density": 1.0, "coverage": 0.5} | final
    facts = {"parameters": 5, "trained_parameters": 9, "images": 100, "seconds": 60.0, "setting": "float32"}
    return {"contender": name, "seed": seed, "diverged": None, "final": scores, "rows": list(rows), **facts} | {
        "pictures_per_second": speed
    }


def test_words_say_where_each_wins_and_claim_nothing_within_the_spread() -> None:
    runs = []
    for seed, wobble in enumerate((0.0, 0.01, -0.01)):
        runs.append(run("diffusion", seed, 1.0 + wobble, 20.0 + wobble, recall=0.5 + wobble))
        runs.append(run("gan", seed, 3.0 - wobble, 900.0 + wobble, recall=0.5 - wobble / 2))
    said = sentences(runs)
    assert said[0].startswith("Diffusion is ahead of the GAN in kernel distance (KID) (1 ± 0.02")
    assert said[1] == "The GAN is ahead of diffusion in pictures drawn per second (900 ± 0.0248 against 20 ± 0.0248)."
    settled, unsettled = " ".join(said[:2]), said[2]
    assert unsettled.startswith("Not settled (3 seeds do not tell them apart") and "recall" in unsettled
    assert "recall" not in settled
    assert differences(runs)["kid"].mean == pytest.approx(-2.0)
    losing = sentences(
        [one if one["contender"] == "diffusion" else {**one, "pictures_per_second": 1.0} for one in runs]
    )
    assert "The GAN wins nowhere beyond the spread over seeds." in losing


def test_one_seed_settles_nothing() -> None:
    said = sentences([run("diffusion", 0, 1.0, 20.0), run("gan", 0, 3.0, 900.0)])
    assert not any("is ahead" in s for s in said) and any("one seed has no spread" in s for s in said)


def test_correlation_of_loss_with_quality_and_runs_that_worsen() -> None:
    def rows(kids, losses):
        return [{"kid": k, "kid_se": 0.01, "d_loss": v} for k, v in zip(kids, losses, strict=True)]

    falling = run("gan", 0, 1.0, 1.0, rows([5, 4, 3, 2, 1], [1, 0.9, 0.8, 0.7, 0.6]))
    against = run("gan", 1, 1.0, 1.0, rows([5, 4, 3, 2, 1], [1, 2, 3, 4, 5]))
    assert correlation(falling, "d_loss") == pytest.approx(1) and correlation(against, "d_loss") == pytest.approx(-1)
    assert summary([falling, against])["gan"]["loss_to_kid"]["d_loss"]["mean"] == pytest.approx(0)
    assert not worsened(falling) and worsened(run("gan", 0, 1.0, 1.0, rows([5, 1, 2.5], [1, 1, 1])))
    assert not worsened(run("gan", 0, 1.0, 1.0, [{"kid": 0.01, "kid_se": 0.1}, {"kid": 0.03, "kid_se": 0.1}]))


# --- the whole


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


def tiny_terms(**changes) -> arena.Terms:
    net = UNetConfig(widths=(8, 16), blocks=(1, 1), embedding=32)
    recipe = Recipe(net=net, batch=8, ema=EMAConfig(snapshots=2))
    made = {"steps": 8, "seeds": 1, "n": 16, "few": 16, "reports": 4, "slices": 4}
    return arena.Terms(recipe, gan=GanRecipe(z=8, batch=8, group=8, every=2), **(made | changes))


def test_a_comparison_that_is_broken_off_goes_on_as_if_it_had_not_been(tmp_path, cache) -> None:
    source = small_source(500)
    terms = tiny_terms(vae=VaeRecipe(z=8, batch=8, group=8), modes=True)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    shares = [share for share, _ in arena.compare(whole, source, terms)]
    assert shares == sorted(shares) and shares[-1] <= 1
    for share, _ in arena.compare(broken, source, terms):
        if share > 0.2:
            break
    with pytest.raises(SfumatoError, match="already holds a comparison"):
        list(arena.compare(broken, source, terms))
    list(islice(arena.compare(broken, source, terms, resume=True), 5))
    list(arena.compare(broken, source, terms, resume=True))
    a, b = (arena.outcome(folder) for folder in (whole, broken))
    assert a["modes"].keys() == b["modes"].keys() == {"diffusion", "gan", "vae"}
    for name in a["contenders"]:
        one, other = ([r for r in results(f) if r["contender"] == name][0] for f in (whole, broken))
        assert one["steps"] == other["steps"] == 8 and len(one["rows"]) == len(other["rows"]) == 4
        if one["setting"] == other["setting"]:  # what the probe found fastest; another one rounds otherwise
            assert (
                one["final"].get("kid") == other["final"].get("kid")
                and one["rows"][-1]["kid"] == other["rows"][-1]["kid"]
            )
    page = (broken / "report.html").read_text()
    assert all(word in page for word in ("recall", "Many modes", "the loss mean something", "Stability"))
    assert a["contenders"]["diffusion"]["parameters"] == pytest.approx(a["contenders"]["gan"]["parameters"], rel=0.12)
    told = {"source": "bars", "minutes": 1.0, "threads": 1, "seeds": 1, "n": 16, "n_reference": 25, "features": "own"}
    table = rival_table.compared({"comparisons": [{**told, **b, "modes_of_real": arena.read(broken)["modes_of_real"]}]})
    assert all(word in table for word in ("| diffusion | GAN | VAE |", "| recall |", "modes made", *b["said"]))
    with pytest.raises(SfumatoError, match="begun with steps 8, not 9"):
        list(arena.compare(broken, source, replace(terms, steps=9), resume=True))
    with pytest.raises(SfumatoError, match="begun with other pictures"):
        list(arena.compare(broken, replace(source, name="others"), terms, resume=True))


def test_the_command(tmp_path, cache, capsys) -> None:
    folder = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for k in range(500):
        path = folder / f"kind{k % 2}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 120 + 60 * (k % 2), (8, 8), dtype=np.uint8)).save(path)
    out = tmp_path / "out"
    tiny = ["--set", "net.widths=[8,16]", "--set", "net.blocks=[1,1]", "--set", "net.embedding=32", "--gan", "group=8"]
    words = ["compare", str(folder), "--size", "8", "--minutes", "0.01", "--seeds", "1", "--n", "16", "--out", str(out)]
    assert main([*words, *tiny, "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out.splitlines()[-1])
    assert found["contenders"]["gan"]["runs"] == 1 and (out / "report.html").exists()
    assert found["contenders"]["gan"]["seconds"] == pytest.approx(0.6, abs=0.5)
    assert "report:" in told.err
    assert main([*words, *tiny]) == 2 and "already holds a comparison" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--minutes", "0"], "--minutes 0"),
        (["--seeds", "0"], "--seeds 0"),
        (["--n", "3"], "16 are the least"),
        (["--gan", "gamma=0"], "gan.gamma"),
        (["--gan", "gama=1"], "has no 'gama'"),
        (["--resume"], "no comparison to go on with"),
        ([], "too few to judge by"),
    ],
)
def test_bad_input_is_told_in_one_line(tmp_path, capsys, more, message) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for k in range(30 if not more else 500):
        Image.new("L", (8, 8), k % 256).save(folder / f"{k}.png")
    words = ["compare", str(folder), "--minutes", "1", "--out", str(tmp_path / "out"), "--set", "net.widths=[8,16]"]
    assert main([*words, "--set", "net.blocks=[1,1]", *more]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert message in told[-1]
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(SfumatoError, match="holds something else"):
        list(arena.compare(tmp_path, small_source(500), tiny_terms()))
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_classes_are_needed_for_modes_before_anything_is_made(tmp_path) -> None:
    plain = replace(small_source(500), classes=(), labels=None)
    with pytest.raises(SfumatoError, match="leave --modes away"):
        list(arena.compare(tmp_path / "out", plain, tiny_terms(modes=True)))
    assert not (tmp_path / "out").exists()


def test_mode_facts_without_a_finished_run() -> None:
    failed = {**run("gan", 0, 1.0, 1.0), "diverged": "nan", "final": None}
    assert mode_facts([failed])["gan"]["modes"] is None
    assert Judge(None, torch.zeros(0)).n == 1000 and Budget(steps=1).steps == 1
