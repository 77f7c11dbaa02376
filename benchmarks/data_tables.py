"""The tables and pictures of `data_matters`: what balancing, cleaning and a cap on AI-made pictures change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import common

Data = dict[str, Any]
Runs = dict[str, list[Data]]
COLOURS = ("#3b82c4", "#d9822b", "#3a9a5b", "#a24fa8", "#8a8a8a")


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def by_variant(data: Data) -> Runs:
    """Runs of the size that was run last, by variant."""
    last = data["runs"][-1]
    found: Runs = {}
    for run in data["runs"]:
        if (run["steps"], run["n"]) == (last["steps"], last["n"]):
            found.setdefault(run["variant"], []).append(run)
    return found


def class_mean(runs: list[Data], key: str, rare: bool) -> float:
    """Mean over seeds and over the classes that were cut (or were not)."""
    return mean(facts[key] for run in runs for name, facts in run["classes"].items() if (name in run["rare"]) == rare)


def where_rare(runs: list[Data]) -> dict[str, float]:
    """Recall of each class in the runs where it was the rare one."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for name in run["rare"]:
            found.setdefault(name, []).append(run["classes"][name]["recall"])
    return {name: mean(values) for name, values in found.items()}


def over_runs(runs: list[Data], key: str) -> list[float]:
    """A score of each generation, mean over seeds."""
    return [mean(values) for values in zip(*([g[key] for g in run["generations"]] for run in runs), strict=True)]


def imbalance(data: Data) -> str:
    """Recall and precision of rare and frequent classes by rule, and of each rare class."""
    found, rows = by_variant(data), []
    for variant, runs in found.items():
        cells = [f"{class_mean(runs, key, rare):.3f}" for key in ("recall", "precision") for rare in (True, False)]
        shown = {"full": "all classes whole", "none": "cut"}.get(variant, f"cut, `--balance {variant}`")
        rows.append([shown, *cells, str(len(runs))])
    head = ["data", "recall, rare", "recall, frequent", "precision, rare", "precision, frequent", "seeds"]
    each = {variant: where_rare(runs) for variant, runs in found.items()}
    names = list(dict.fromkeys(name for values in each.values() for name in values))
    cells = [[name, *(f"{v[name]:.3f}" if name in v else "–" for v in each.values())] for name in names]
    return f"{markdown(head, rows)}\n\nRecall of each class where it was rare:\n\n" + markdown(["class", *each], cells)


def clean(data: Data) -> str:
    """KID and copies with and without cleaning."""
    rows = []
    for variant, runs in by_variant(data).items():
        cells = [
            f"{mean(r['pictures'] for r in runs):,.0f}",
            f"{mean(r['kid'] for r in runs):.4f} ± {mean(r['kid_se'] for r in runs):.4f}",
            f"{mean(r['copies'] for r in runs):.2%}",
            f"{mean(r['near_copied'] for r in runs):.2%}",
        ]
        rows.append([variant, *cells, str(len(runs))])
    head = ["folder", "pictures read", "KID", "copies", "nearest to a duplicated one", "seeds"]
    text = markdown(head, rows)
    cleaned = by_variant(data).get("cleaned")
    if cleaned:
        left, planted, share = (cleaned[-1][key] for key in ("left", "planted", "share_copied"))
        text += (
            f"\n\nPlanted: {planted['copy']} copies of {planted['copied']} pictures, and {planted['corrupted']} corrupted "
            f"files, beside {planted['original']} originals. Read after cleaning: {left['copy']} copies, "
            f"{left['corrupted']} corrupted, {left['original']} originals (of a picture and its copies one stays, whichever "
            f"comes first). If none were preferred, {share:.2%} of the samples would be nearest to a duplicated picture."
        )
    return text


def collapse(data: Data) -> str:
    """Recall, precision and KID by generation and share."""
    found = by_variant(data)
    generations = [str(k) for k in range(len(over_runs(next(iter(found.values())), "recall")))]
    return "\n\n".join(
        markdown(
            [f"{label}, share replaced", *generations],
            [[variant, *(f"{v:.3f}" for v in over_runs(runs, key))] for variant, runs in found.items()],
        )
        for key, label in (("recall", "recall"), ("precision", "precision"), ("kid", "KID"))
    )


def tidy(axes: Any, label: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(label)
    axes.grid(axis="y", alpha=0.2)


def draw_imbalance(figure: Any, found: Runs) -> None:
    axes, width = figure.add_subplot(), 0.8 / len(found)
    each = {variant: where_rare(runs) for variant, runs in found.items()}
    names = list(dict.fromkeys(name for values in each.values() for name in values))
    for v, (variant, values) in enumerate(each.items()):
        places = [k + (v - (len(each) - 1) / 2) * width for k in range(len(names))]
        heights = [values.get(name, 0.0) for name in names]
        axes.bar(places, heights, width, label=variant, color=COLOURS[v % len(COLOURS)])
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axes.legend(frameon=False, ncols=len(each), loc="upper center", bbox_to_anchor=(0.5, 1.15), fontsize=8)
    tidy(axes, "recall where rare")


def draw_clean(figure: Any, found: Runs) -> None:
    for k, (key, label) in enumerate((("kid", "KID"), ("near_copied", "share nearest to a duplicated picture"))):
        axes = figure.add_subplot(1, 2, k + 1)
        heights = [mean(r[key] for r in runs) for runs in found.values()]
        axes.bar(list(found), heights, color=COLOURS[: len(found)], width=0.6)
        tidy(axes, label)


def draw_collapse(figure: Any, found: Runs) -> None:
    for k, key in enumerate(("recall", "precision")):
        axes = figure.add_subplot(1, 2, k + 1)
        for v, (variant, runs) in enumerate(found.items()):
            values, style = over_runs(runs, key), "--" if "cap" in variant else "-"
            axes.plot(
                range(len(values)), values, style, marker="o", ms=3, color=COLOURS[v % len(COLOURS)], label=variant
            )
        axes.set_xlabel("generation")
        tidy(axes, key)
    figure.axes[0].legend(frameon=False, fontsize=8, title="own samples in the data", title_fontsize=8)


DRAWN: dict[str, Callable[[Any, Runs], None]] = {
    "data_imbalance": draw_imbalance,
    "data_clean": draw_clean,
    "data_collapse": draw_collapse,
}


def pictures(results: Path, images: Path) -> list[Path]:
    """Draw what has been measured into the folder `images`; needs matplotlib."""
    made = []
    for name, draw in DRAWN.items():
        data = common.read(name, results)
        if data is not None and data["runs"]:
            from matplotlib.figure import Figure

            figure = Figure(figsize=(7.2, 3.4), layout="constrained", facecolor="white")
            draw(figure, by_variant(data))
            images.mkdir(parents=True, exist_ok=True)
            made.append(images / f"{name}.png")
            figure.savefig(made[-1], dpi=120, metadata={"Software": None})
    return made


def with_picture(name: str, table: Callable[[Data], str]) -> Callable[[Data], str]:
    return lambda data: f"![{name.replace('_', ': ')}](images/{name}.png)\n\n{table(data)}"


# the table's name in the document -> results file, table
TABLES: dict[str, tuple[str, Callable[[Data], str]]] = {
    "imbalance": ("data_imbalance", with_picture("data_imbalance", imbalance)),
    "clean": ("data_clean", with_picture("data_clean", clean)),
    "collapse": ("data_collapse", with_picture("data_collapse", collapse)),
}
COMMANDS = {name: name.replace("data_", "data_matters ") for name in DRAWN}
