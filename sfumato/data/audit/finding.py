"""What an audit says: findings, their fixes, and the whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]

FIXES = {
    "quarantine": "move these files out of the set, into quarantine",
    "quarantine-others": "keep the first file and move the others into quarantine",
    "convert": "rewrite as upright 8-bit sRGB, transparency laid on white",
    "drop-rows": "drop these rows of the metadata",
    "balance": "train with --balance",
    "caption": "write captions for these files",
    "review": "look yourself; nothing is done automatically",
}

# kind -> what a person calls it, in the order of the report
KINDS = {
    "corrupt": "Cannot be read",
    "exact_duplicate": "The same picture more than once",
    "near_duplicate": "Nearly the same picture",
    "ai_made": "Declared as made by AI",
    "blank": "Blank",
    "dark": "Too dark",
    "blown_out": "Blown out",
    "blurred": "Blurred",
    "low_information": "Almost nothing in it",
    "tiny": "Tiny beside the others",
    "odd_aspect": "Odd proportions",
    "outlier": "Unlike the rest",
    "text_or_watermark": "Text or a watermark",
    "mixed_modes": "Another colour mode than the others",
    "alpha": "See-through parts",
    "class_imbalance": "Unbalanced classes",
    "caption_missing": "No caption",
    "caption_empty": "Empty caption",
    "caption_duplicated": "One caption for many pictures",
    "caption_boilerplate": "Caption that says nothing of the picture",
    "caption_long": "Caption longer than is read",
    "caption_without_picture": "Caption for a picture that is not there",
    "bucket_waste": "Cut away by the crop",
}


@dataclass(frozen=True)
class Finding:
    """One fault: its kind (of KINDS), the files it is about, what was seen, how grave it is, and a fix (of FIXES)."""

    kind: str
    files: tuple[str, ...]
    evidence: str
    severity: Severity
    fix: str


@dataclass(frozen=True)
class Audit:
    """All that one pass found. `classes`: pictures per class; `captions`: counts; `ai_made_share`: 0 ... 1 of `images`."""

    source: str
    images: int
    findings: tuple[Finding, ...]
    classes: dict[str, int] = field(default_factory=dict)
    captions: dict[str, int] = field(default_factory=dict)
    ai_made_share: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing graver than a note was found."""
        return all(f.severity == "note" for f in self.findings)

    @property
    def verdict(self) -> str:
        """One sentence: can this be trained on?"""
        files = {s: {n for f in self.findings if f.severity == s for n in f.files} for s in ("error", "warning")}
        errors, warnings = len(files["error"]), len(files["warning"] - files["error"])
        if not self.images:
            return "nothing to train on: no picture can be read"
        if self.clean:
            return f"clean: {_count(self.images, 'picture')}, nothing found that harms training"
        told = [f"{_count(errors, 'file')} to take out"] if errors else []
        told += [f"{_count(warnings, 'file')} to look at"] if warnings else []
        about = sorted({KINDS[f.kind].lower() for f in self.findings if f.severity != "note" and not f.files})
        return f"{_count(self.images, 'picture')} can be read; " + ", ".join(told + about)

    def to_json(self) -> dict[str, Any]:
        """`images, faults {kind: [{files, evidence, severity, fix}]}, classes, captions, ai_made_share, verdict`."""
        faults: dict[str, list[dict[str, Any]]] = {}
        for kind in KINDS:
            for found in self.findings:
                if found.kind == kind:
                    entry = {k: v for k, v in asdict(found).items() if k != "kind"}
                    faults.setdefault(kind, []).append({**entry, "files": list(found.files)})
        return {
            "source": self.source,
            "images": self.images,
            "faults": faults,
            "classes": self.classes,
            "captions": self.captions,
            "ai_made_share": self.ai_made_share,
            "verdict": self.verdict,
        }


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
