"""Write the tables and pictures of the documents DOCS from results/*.json; a table whose results are absent says so.

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import (
    canvas_oracle,
    canvas_tables,
    common,
    data_tables,
    layouts_tables,
    memorisation_table,
    rival_table,
    text_tables,
    word_tables,
)

DOCS = tuple(
    Path(__file__).parent.parent / "docs" / name
    for name in ("benchmarks.md", "text-to-picture.md", "words.md", "editing.md", "layouts.md", "guide.md")
)
Data = dict[str, Any]
PEERS = ("diffusers-recipe", "ddp-defaults", "diffusers-fair")
MAIN_BUDGET = 480.0
CHOOSING = 10  # seeds from here on are for ablation and tuning, and do not enter what is claimed
PICTURE = "quality_per_minute.png"
COMMANDS = {**data_tables.COMMANDS, "canvas": "canvas PART --run RUN --source SOURCE", "layouts": "layouts --run RUN"}


def rows_to_markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def show(spread: Data, form: str = "{:.2f}") -> str:
    """Median and range of a spread."""
    return f"**{form.format(spread['median'])}** ({form.format(spread['min'])} to {form.format(spread['max'])})"


def provenance(data: Data) -> str:
    """One line under every table: where, when, with what, how."""
    m = data["machine"]
    flags = f", {', '.join(m['flags'])}" if m.get("flags") else ""
    libraries = ", ".join(f"{k} {v}" for k, v in data["versions"].items())
    commands = " ; ".join(f"`{c}`" for c in dict.fromkeys(data.get("commands") or [data["command"]]))
    return f"{m.get('cpu', m['platform'])}, {m['cores']} cores{flags}; {libraries}; {data['when'][:10]}; {commands}"


def training_speed(data: Data) -> str:
    """Speeds, shares of the peak and ratios, one pair of tables per batch size."""
    parts = []
    for result in data["results"]:
        rows = []
        for name, row in result["rows"].items():
            cells = [name, f"{row['parameters'] / 1e6:.1f} M", f"{row['flops'] / 1e9:.2f}"]
            rows.append([*cells, show(row["images_per_second"], "{:.1f}"), show(row["share_of_bf16_peak"])])
        parts.append(
            f"Batch {result['batch']}:\n\n"
            + rows_to_markdown(["network, setting", "parameters", "GF/image", "images/s", "share of bf16 peak"], rows)
        )
        ratios = [[name, show(ratio)] for name, ratio in result["ratios"].items()]
        parts.append(rows_to_markdown(["ratio of speeds at equal operations, pair by pair", "median (range)"], ratios))
    return "\n\n".join(parts)


def solver_overhead(data: Data) -> str:
    """Microseconds per step."""
    libraries = ("sfumato", "diffusers", "k-diffusion")
    rows = []
    for solver, row in data["rows"].items():
        cells = [f"{row[name]['median']:.0f}" if name in row else "–" for name in libraries]
        ratio = row.get("ratio_to_best_peer")
        rows.append([solver, *cells, show(ratio) if ratio else "–"])
    return rows_to_markdown(["solver", *(f"{name}, µs" for name in libraries), "ours / best peer"], rows)


def import_time(data: Data) -> str:
    """Seconds and ratios to torch."""
    ratios = data.get("ratio_to_torch", {})
    rows = [
        [name, show(row), f"{ratios[name]['median']:.2f}" if name in ratios else "–"]
        for name, row in data["rows"].items()
    ]
    bound = (
        "" if "within_bound" not in data else f"\n\nWithin {data['bound']} times torch: {answer(data['within_bound'])}."
    )
    return rows_to_markdown(["process", "seconds", "ratio to torch"], rows) + bound


def answer(met: bool) -> str:
    return "yes" if met else "**no**"


def reported(data: Data) -> Data:
    """The same without the runs whose seeds are for choosing (CHOOSING and above)."""
    return {**data, "runs": [run for run in data["runs"] if run["seed"] < CHOOSING]}


def select(data: Data, budget: float | None = None) -> dict[str, list[Data]]:
    """Finite runs by contender, at one budget or all."""
    found: dict[str, list[Data]] = {}
    for run in data["runs"]:
        if run.get("fd") is not None and (budget is None or run["budget"] == budget):
            found.setdefault(run["contender"], []).append(run)
    return found


def over_seeds(runs: Sequence[Data], field: str, form: str = "{:.1f}") -> str:
    """Mean over seeds, and the range when there are several."""
    values = [run[field] for run in runs]
    text = f"**{form.format(mean(values))}**"
    return text if len(values) == 1 else f"{text} ({form.format(min(values))} to {form.format(max(values))})"


def quality(data: Data) -> str:
    """The main budget, one row per contender without changes."""
    rows = []
    for name, runs in select(reported(data), MAIN_BUDGET).items():
        if ":" in name:
            continue
        one = runs[0]
        rows.append(
            [
                name,
                f"{one['parameters'] / 1e6:.2f} M",
                f"{mean(r['images_seen'] for r in runs):,.0f}",
                over_seeds(runs, "fd"),
                over_seeds(runs, "kid", "{:.3f}"),
                f"{mean(r['precision'] for r in runs):.2f} / {mean(r['recall'] for r in runs):.2f}",
                f"{one['sampler']}: {mean(r['sampling_cpu_ms_per_picture'] for r in runs):.0f} ms",
                len(runs),
            ]
        )
    head = [
        "contender",
        "parameters",
        "images seen",
        "Fréchet distance",
        "KID",
        "precision / recall",
        "CPU per sample",
        "seeds",
    ]
    ends = [
        f"n = {n}: {e['train']['fd']:.2f} for training pictures, {e['noise']['fd']:.0f} for noise"
        for n, e in data.get("floor", {}).items()
    ]
    return rows_to_markdown(head, rows) + (f"\n\nEnds of the scale at {'; '.join(ends)}." if ends else "")


def budgets(data: Data) -> str:
    """Fréchet distance by contender and budget."""
    found = {name: runs for name, runs in select(reported(data)).items() if ":" not in name}
    steps = sorted({run["budget"] for runs in found.values() for run in runs})
    rows = []
    for name, runs in found.items():
        at = [[r for r in runs if r["budget"] == b] for b in steps]
        rows.append([name, *(over_seeds(part, "fd") if part else "–" for part in at)])
    return rows_to_markdown(["contender", *(f"{b:g} CPU-seconds" for b in steps)], rows)


def variants(data: Data, name: str) -> str:
    """A contender beside its changed versions: at each budget, on the seeds that a version and the original share."""
    rows = []
    for budget in sorted({run["budget"] for run in data["runs"]}):
        found = select(data, budget)
        base = {run["seed"]: run["fd"] for run in found.get(name, [])}
        for spec, runs in found.items():
            if not spec.startswith(f"{name}:"):
                continue
            pairs = [(run["fd"], base[run["seed"]]) for run in runs if run["seed"] in base]
            ratio = f"{mean(a / b for a, b in pairs):.2f} ({len(pairs)})" if pairs else "–"
            rows.append([f"`{spec.partition(':')[2]}`", f"{budget:g}", over_seeds(runs, "fd"), ratio])
    if not rows:
        return "_No changed versions have been run._"
    return rows_to_markdown(["change", "CPU-seconds", "Fréchet distance", "ratio to unchanged (seeds)"], rows)


def claims(data: Data) -> str:
    """What the project set itself at the main budget, and whether it holds."""
    found = select(reported(data), MAIN_BUDGET)
    if "sfumato" not in found:
        return "_No run of ours at the main budget yet._"
    ours = mean(run["fd"] for run in found["sfumato"])
    rows = [["Fréchet distance at most 15", f"{ours:.1f}", answer(ours <= 15)]]
    for peer, share in zip(PEERS, (1 / 6, 1 / 6, 1 / 2), strict=True):
        # the fair peer is its best version: tuning it is part of being fair
        versions = [mean(r["fd"] for r in runs) for name, runs in found.items() if name.split(":")[0] == peer]
        if versions:
            theirs = min(versions)
            rows.append([f"at most {share:.2f} of {peer}", f"{ours / theirs:.3f}", answer(ours <= share * theirs)])
    return rows_to_markdown(["claim", "measured", "holds"], rows)


def pictures(data: Data) -> str:
    """The link to what `side_by_side` draws."""
    if not any(run.get("grid") for runs in select(reported(data), MAIN_BUDGET).values() for run in runs):
        return "_No samples at the main budget yet._"
    return f"![100 samples of each contender](images/{PICTURE})"


def planted_faults(data: Data) -> str:
    """Precision and recall per kind, ours and cleanvision's; near-duplicates also per transformation (recall only)."""
    if "faults" not in data:
        return "_Not measured yet: `python -m benchmarks.planted_faults`._"
    found = data["faults"]
    scores, setting = found["scores"], found["setting"]

    def cells(who: str, kind: str) -> list[str]:
        one = scores.get(who, {}).get(kind)
        if one is None:
            return ["–", "–"]
        return ["–" if one[k] is None else f"{one[k]:.3f}" for k in ("precision", "recall")]

    rows = [
        [kind.replace(":", ": "), one["planted"], *cells("sfumato", kind), *cells("cleanvision", kind)]
        for kind, one in scores["sfumato"].items()
    ]
    head = ["kind", "planted", "precision", "recall", "cleanvision: precision", "recall"]
    times = ", ".join(f"{who} {s:.1f} s" for who, s in found["seconds"].items())
    about = f"{found['pictures']:,} files in {3 * len(setting['seeds'])} sets, seeds {setting['seeds']}; {times}."
    return f"{rows_to_markdown(head, rows)}\n\n{about}"


def audit_speed(data: Data) -> str:
    """Pictures per second and greatest memory of whole audits."""
    if "speed" not in data:
        return "_Not measured yet: `python -m benchmarks.planted_faults --speed`._"
    sizes = (("64x64 PNG", "small"), ("1 megapixel JPEG", "large"))
    rows = [
        [what, f"{run['pictures']:,}", f"{run['per_second']:.0f}", f"{run['peak_mb']:.0f} MB"]
        for what, key in sizes
        for run in data["speed"][key]
    ]
    return rows_to_markdown(["pictures", "number", "per second", "greatest memory, all processes"], rows)


TABLES: dict[str, tuple[str, Callable[[Data], str]]] = {
    "training_speed": ("training_speed", training_speed),
    "solver_overhead": ("solver_overhead", solver_overhead),
    "import_time": ("import_time", import_time),
    "quality": ("quality_per_minute", quality),
    "samples": ("quality_per_minute", pictures),
    "budgets": ("quality_per_minute", budgets),
    "ablation": ("quality_per_minute", lambda data: variants(data, "sfumato")),
    "tuning": ("quality_per_minute", lambda data: variants(data, "diffusers-fair")),
    "claims": ("quality_per_minute", claims),
    **data_tables.TABLES,
    **memorisation_table.TABLES,
    **rival_table.TABLES,
    **text_tables.TABLES,
    **word_tables.TABLES,
    **canvas_tables.TABLES,
    **layouts_tables.TABLES,
    canvas_oracle.NAME: (canvas_oracle.NAME, canvas_oracle.table),
    "planted_faults": ("planted_faults", planted_faults),
    "audit_speed": ("planted_faults", audit_speed),
}


def render(name: str, results: Path) -> str:
    """The text between the marks of table NAME."""
    if name not in TABLES:
        raise ValueError(f"unknown table {name!r}: one of {', '.join(TABLES)}")
    file, make = TABLES[name]
    data = common.read(file, results)
    if data is None:
        return f"_Not measured yet: `python -m benchmarks.{COMMANDS.get(file, file)}`._"
    text = make(data)
    # one line of provenance per results file, under the first of its tables
    first = next(other for other, (source, _) in TABLES.items() if source == file)
    return f"{text}\n\n<sub>{provenance(data)}</sub>" if name == first else text


def fill(text: str, results: Path) -> str:
    """The document with every table renewed; all else is untouched."""
    mark = re.compile(r"(<!-- table:([a-z_]+) -->\n).*?(<!-- /table -->)", re.DOTALL)
    return mark.sub(lambda m: f"{m[1]}{render(m[2], results)}\n{m[3]}", text)


def side_by_side(data: Data, results: Path, out: Path, budget: float = MAIN_BUDGET) -> bool:
    """The grids of the contenders at one budget in one picture, names above; False when there is none."""
    from PIL import Image, ImageDraw

    grids = [
        (
            f"{name}: FD {mean(r['fd'] for r in runs):.1f}",
            results / "grids" / next(r["grid"] for r in runs if r.get("grid")),
        )
        for name, runs in select(reported(data), budget).items()
        if ":" not in name and any(r.get("grid") for r in runs)
    ]
    images = [(label, Image.open(path)) for label, path in grids if path.exists()]
    if not images:
        return False
    width, height, gap, head = images[0][1].width, images[0][1].height, 12, 18
    sheet = Image.new("L", (len(images) * (width + gap) - gap, height + head), 255)
    for i, (label, image) in enumerate(images):
        ImageDraw.Draw(sheet).text((i * (width + gap), 2), label, fill=0)
        sheet.paste(image, (i * (width + gap), head))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    parser.add_argument("--docs", type=Path, nargs="+", default=DOCS)
    args = parser.parse_args()
    data, images = common.read("quality_per_minute", args.results), args.docs[0].parent / "images"
    if data is not None:
        side_by_side(data, args.results, images / PICTURE)
    data_tables.pictures(args.results, images)
    text_tables.pictures(args.results, images)
    word_tables.pictures(args.results, images)
    for sheets in (canvas_tables, layouts_tables):
        common.copy_sheets(sheets.NAME, sheets.SHEETS, args.results, images)
    for doc in args.docs:
        doc.write_text(fill(doc.read_text(), args.results))
        print(doc)


if __name__ == "__main__":
    main()
