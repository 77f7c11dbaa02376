"""Tables of when copies begin and of where the stop lands."""

from __future__ import annotations

from typing import Any

from benchmarks.data_tables import markdown

Data = dict[str, Any]


def law(data: Data) -> str:
    """Onset by the size of the set, and the line through it."""
    rows = []
    for run in sorted((r for r in data["runs"] if r["kind"] == "law"), key=lambda r: (r["trained"], r["seed"])):
        begun = run["onset"]
        if begun is None:
            rows.append([f"{run['trained']:,}", f"none in {run['steps']:,}", "–", "–"])
            continue
        seen = next(r["images"] for r in run["readings"] if r["step"] == begun)
        rows.append(
            [
                f"{run['trained']:,}",
                f"{begun:,}",
                f"{seen / run['trained']:,.0f}",
                f"{run['readings'][-1]['copies']:.2f}",
            ]
        )
    if not rows:
        return "_Not run yet._"
    head = ["training pictures", "onset (step)", "passes over the set until then", "copied at the last reading"]
    text = markdown(head, rows)
    if data.get("law"):
        line = data["law"]
        text += (
            f"\n\nLine through the logarithms: onset = c n^s with s = {line['slope']:.2f} "
            f"({line['low']:.2f} to {line['high']:.2f}); s = 1 is growth in proportion."
        )
    return text


def stop(data: Data) -> str:
    """KID by held-out pictures where the stop lands, beside the best of the whole curve."""
    rows = []
    for run in (r for r in data["runs"] if r["kind"] == "stop"):
        steps, scores = [r["step"] for r in run["readings"]], run["held_out_kid"]
        best = min(scores)
        cell = [run["set"], f"{run['trained']:,}", f"{run['onset'] or '–'}", f"{run['chosen'] or 'no stop'}"]
        if run["chosen"] is None:
            rows.append([*cell, "–", f"{best:.3f} (step {steps[scores.index(best)]:,})", "–"])
        else:
            here = scores[steps.index(run["chosen"])]
            rows.append(
                [*cell, f"{here:.3f}", f"{best:.3f} (step {steps[scores.index(best)]:,})", f"{here / best:.2f}"]
            )
    if not rows:
        return "_Not run yet._"
    head = ["set", "training pictures", "onset (step)", "step chosen", "its KID", "best KID of the curve", "ratio"]
    return markdown(head, rows)


TABLES = {"memorisation_law": ("memorisation", law), "memorisation_stop": ("memorisation", stop)}
