"""The page of a comparison: one HTML file with the numbers, the pictures side by side, the curves and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.files import write_text
from sfumato.measure import page
from sfumato.measure.compare import NAMES, SCORES, WORSENED, mode_facts, sentences, summary
from sfumato.measure.page import text
from sfumato.measure.plots import line_chart
from sfumato.measure.words import number

LOSS_NAMES = {
    "validation_loss": "validation loss",
    "training_loss": "training loss",
    "d_loss": "discriminator's loss",
    "g_loss": "generator's loss",
    "loss": "training loss",
}
FIGURES = {
    "gap": "logit of real minus generated",
    "d_gradient": "gradient norm, discriminator",
    "g_gradient": "gradient norm, generator",
    "penalty": "mean squared input gradient",
}
MODES = {"modes": "modes made", "kl": "KL to uniform, nats (less is better)", "outside": "pictures in no mode"}
SHEETS = 2  # seeds whose pictures are shown


def spread(found: Mapping[str, Any] | None) -> str:
    """A mean with its interval; a dash for nothing."""
    if found is None:
        return "–"
    return number(found["mean"]) + ("" if found["half"] is None else f" ± {number(found['half'])}")


def write_page(folder: Path, terms: Mapping[str, Any], runs: Sequence[Any], modes: Sequence[Any] = ()) -> Path:
    """Write `report.html` into the folder and return its path.

    terms: what the comparison was begun with; its "source", "budget", "n", "n_reference", "features" and, where
    there are any, "floor", "noise" and "modes_of_real" are shown beside the contenders. Raises SfumatoError
    when the folder cannot be written to or matplotlib is absent.
    """
    facts = summary(runs)
    title = f"Diffusion and a GAN on {terms['source']}"
    seeds = len({run["seed"] for run in runs})
    told = f"{terms['budget']} of training each, {seeds} seed{'' if seeds == 1 else 's'}, in turns on one machine."
    head = f'<h1>{text(title)}</h1><p class="soft">{text(told)}</p>'
    said = "".join(f"<p{'' if k else ' class=lead'}>{text(s)}</p>" for k, s in enumerate(sentences(runs, modes)))
    parts = [
        head,
        page.section("Who is better at what", said),
        _quality(facts, terms),
        _sheets(folder, runs),
        _curves(runs),
        _stability(facts),
        _meaning(facts),
        _modes(modes, terms),
        page.section("Terms", page.details("All of them", page.facts_table(terms))),
    ]
    try:
        write_text(folder / "report.html", page.document(title, "".join(parts)))
    except OSError as error:
        raise SfumatoError(f"the report cannot be written to {folder}: {error.strerror or error}") from error
    return folder / "report.html"


def _head(facts: Mapping[str, Any], *more: str) -> list[str]:
    return ["", *(NAMES[name].removeprefix("the ") for name in facts), *more]


def _quality(facts: Mapping[str, Any], terms: Mapping[str, Any]) -> str:
    ends = {name: terms[key] for key, name in (("floor", "real pictures"), ("noise", "pure noise")) if key in terms}
    rows = []
    for key, (name, less) in SCORES.items():
        label = f"{name} ({'less' if less else 'more'} is better)"
        rows.append(
            [label, *(spread(one[key]) for one in facts.values()), *(number(e.get(key)) for e in ends.values())]
        )
    for key, name in (
        ("parameters", "weights of what is shipped"),
        ("trained_parameters", "weights trained"),
        ("images", "pictures seen"),
    ):
        rows.append([name, *(number(one[key]) for one in facts.values()), *("" for _ in ends)])
    lead = (
        f"Mean over seeds ± half of the 95 % interval. {terms['n']:,} pictures each against {terms['n_reference']:,} that "
        f"none was trained on, seen through {terms['features']}."
    )
    return page.section("Quality and speed", page.table(_head(facts, *ends), rows), lead)


def _sheets(folder: Path, runs: Sequence[Any]) -> str:
    figures = []
    for seed in sorted({run["seed"] for run in runs})[:SHEETS]:
        for name in [name for name in NAMES if any(run["contender"] == name for run in runs)]:
            path = folder / f"seed-{seed}" / name / "sample.png"
            label = f"{NAMES[name].removeprefix('the ')}, seed {seed}"
            if path.exists():
                with Image.open(path) as sheet:
                    shown = page.picture(sheet.copy(), label, None)
            else:
                shown = "<p>no pictures: the run diverged</p>"
            figures.append(f"<figure>{shown}<figcaption>{text(label)}</figcaption></figure>")
    sheet = f'<div class="sheet" style="--tile: 300px">{"".join(figures)}</div>'
    return page.section("What they make", sheet, "The first pictures of each, none chosen.")


def _mean_line(runs: Sequence[Any], name: str, key: str) -> tuple[list[float], list[float]]:
    """Minutes and mean over the seeds of a contender at every report that all of its curves have."""
    curves = [run["rows"] for run in runs if run["contender"] == name and run["rows"]]
    n = min((len(rows) for rows in curves), default=0)
    if not n or any(key not in row for rows in curves for row in rows):
        return [], []
    minutes = [fmean(rows[k]["seconds"] for rows in curves) / 60 for k in range(n)]
    return minutes, [fmean(rows[k][key] for rows in curves) for k in range(n)]


def _curves(runs: Sequence[Any]) -> str:
    def chart(title: str, wanted: Mapping[str, tuple[str, str]], axis: str, log: bool = False) -> str:
        lines = {label: _mean_line(runs, *which) for label, which in wanted.items()}
        lines = {label: line for label, line in lines.items() if len(line[0]) > 1}
        if log and any(v <= 0 for _, values in lines.values() for v in values):
            log = False
        return f"<div><h3>{text(title)}</h3>{line_chart(lines, ('minutes', axis), log=log)}</div>" if lines else ""

    every = {NAMES[name].removeprefix("the "): name for name in NAMES}
    charts = [chart("Kernel distance (KID)", {k: (v, "kid") for k, v in every.items()}, "KID", log=True)]
    charts.append(chart("Recall", {k: (v, "recall") for k, v in every.items()}, "share"))
    diffusion = {LOSS_NAMES[key]: ("diffusion", key) for key in ("training_loss", "validation_loss")}
    charts.append(chart("Loss of diffusion", diffusion, "loss"))
    charts.append(chart("Losses of the GAN", {LOSS_NAMES[k]: ("gan", k) for k in ("d_loss", "g_loss")}, "loss"))
    body = f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""
    return page.section("Along training", body, "Means over seeds, with fewer pictures than at the end.")


def _stability(facts: Mapping[str, Any]) -> str:
    rows = [
        ["runs", *(str(one["runs"]) for one in facts.values())],
        ["diverged (NaN or infinite)", *(str(one["diverged"]) for one in facts.values())],
        [f"ended at over {WORSENED:g} times their best KID", *(str(one["worsened"]) for one in facts.values())],
    ]
    for key in ("fd", "kid"):
        cells = []
        for one in facts.values():
            values = one[key]["values"] if one[key] else []
            cells.append(f"{number(min(values))} to {number(max(values))}" if values else "–")
        rows.append([f"{SCORES[key][0]}, range over seeds", *cells])
    for key, name in FIGURES.items():
        if any(key in one["figures"] for one in facts.values()):
            rows.append([f"{name}, at the end", *(spread(one["figures"].get(key)) for one in facts.values())])
    return page.section("Stability", page.table(_head(facts), rows), "Runs that failed are counted, not left away.")


def _meaning(facts: Mapping[str, Any]) -> str:
    rows = []
    for name, one in facts.items():
        for loss, found in one["loss_to_kid"].items():
            each = ", ".join(f"{v:.2f}" for v in found["values"]) if found else "–"
            rows.append([f"{NAMES[name].removeprefix('the ')}: {LOSS_NAMES[loss]}", spread(found), each])
    lead = (
        "Spearman's rank correlation of a loss with KID along training, per run. 1: the loss falls when pictures become "
        "better. 0: it tells nothing. Below 0: it misleads."
    )
    return page.section("Does the loss mean something?", page.table(["", "mean", "each seed"], rows), lead)


def _modes(modes: Sequence[Any], terms: Mapping[str, Any]) -> str:
    facts = mode_facts(modes)
    if not facts:
        return ""
    real = {"real pictures": terms["modes_of_real"]} if "modes_of_real" in terms else {}
    rows = [
        [label, *(spread(one[key]) for one in facts.values()), *(number(one[key]) for one in real.values())]
        for key, label in MODES.items()
    ]
    rows.append(["runs that diverged", *(str(one["diverged"]) for one in facts.values()), *("" for _ in real)])
    some = next(one for one in facts.values())
    lead = "Trained anew on pictures whose three colour channels are three pictures of the source"
    lead += f": {some['of']:,} modes, {some['n']:,} pictures drawn from each." if "of" in some else "."
    return page.section("Many modes", page.table(_head(facts, *real), rows), lead)
