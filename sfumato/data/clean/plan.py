"""What is to be done to a set, file by file: made from an audit, written as JSON to be read and edited, read back."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.audit.finding import FIXES, KINDS, Finding
from sfumato.data.records import shown

ACTIONS = {
    "quarantine": "the file goes into .quarantine, its row out of the metadata",
    "convert": "the picture is rewritten as upright 8-bit sRGB on white, the original goes into .quarantine",
    "drop-row": "the row goes out of the metadata",
    "keep": "nothing is done; it is here for you to look at",
}
STRENGTH = ("quarantine", "convert", "drop-row", "keep")  # of several entries for one file, the first of these counts
KNOWN = {"file", "action", "kind", "reason", "copy_of"}


@dataclass(frozen=True)
class Action:
    """One entry: what is done to one file and why; `copy_of` is the file that stays in the place of this one."""

    file: str
    action: str
    kind: str
    reason: str
    copy_of: str = ""


@dataclass(frozen=True)
class Plan:
    """`fingerprint` ties the plan to the files that were looked at; `link`: hard links instead of copies."""

    source: str
    fingerprint: str
    actions: tuple[Action, ...]
    advice: tuple[str, ...] = ()
    link: bool = False

    def chosen(self, only: Collection[str]) -> Plan:
        """The same plan with the entries of these kinds only (of all when empty)."""
        kept = tuple(a for a in self.actions if not only or a.kind in only)
        return Plan(self.source, self.fingerprint, kept, self.advice, self.link)

    def files(self, action: str) -> set[str]:
        """The files to which this is done, stronger entries for the same file taken into account."""
        stronger = STRENGTH[: STRENGTH.index(action)]
        return {a.file for a in self.actions if a.action == action} - {
            a.file for a in self.actions if a.action in stronger
        }

    def text(self) -> bytes:
        """JSON with one entry a line."""
        head = {
            "about": "What 'sfumato clean' does to the source. Delete entries, or change their action, and run the same "
            "command again. The last thing done stands in manifest.json of the cleaned set.",
            "actions_known": ACTIONS,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "link": self.link,
            "advice": list(self.advice),
        }
        entries = [{k: v for k, v in asdict(a).items() if v or k != "copy_of"} for a in self.actions]

        def told(value: Any, **form: Any) -> str:
            plain = json.dumps(value, ensure_ascii=False, **form)
            return plain if _encodes(plain) else json.dumps(value, **form)

        lines = ",\n".join("    " + told(e) for e in entries)
        body = f'  "actions": [\n{lines}\n  ]' if entries else '  "actions": []'
        return (told(head, indent=2)[: -len("\n}")] + ",\n" + body + "\n}\n").encode()


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no UTF-8: written with escapes
        return False
    return True


def check_kinds(kinds: Iterable[str]) -> None:
    """Raise SfumatoError for a kind that no audit knows."""
    for kind in kinds:
        if kind not in KINDS:
            near = get_close_matches(kind, KINDS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise SfumatoError(f"no fault is called {shown(kind)!r}; {hint}the kinds are: {', '.join(KINDS)}")


def make_plan(
    findings: Iterable[Finding], source: str, fingerprint: str, names: Collection[str], rows: Collection[str]
) -> Plan:
    """Findings -> plan. What needs a person (`review`) is listed with the action "keep", the rest as advice.

    Of copies the first is kept that nothing else takes out, one with a row of metadata (`rows`) before one without: its
    caption would be lost. A picture that declares itself AI-made is not converted:
    the new file would lose the declaration.
    """
    names, findings = set(names), list(findings)
    order = list(KINDS)
    findings.sort(key=lambda f: order.index(f.kind))
    out = {n for f in findings if f.fix == "quarantine" for n in f.files}
    made = {n for f in findings if f.kind == "ai_made" for n in f.files}
    actions: list[Action] = []
    advice: list[str] = []
    for found in findings:
        files = [n for n in found.files if n in names]
        if found.fix == "quarantine":
            actions += [Action(n, "quarantine", found.kind, found.evidence) for n in files]
        elif found.fix == "quarantine-others":
            left = sorted((n for n in files if n not in out), key=lambda n: n not in rows)
            out.update(left[1:])
            actions += [Action(n, "quarantine", found.kind, found.evidence, left[0]) for n in left[1:]]
        elif found.fix == "drop-rows":
            actions += [Action(n, "drop-row", found.kind, found.evidence) for n in found.files]
        elif found.fix == "convert":
            actions += [Action(n, "convert", found.kind, found.evidence) for n in files if n not in made]
            if kept := [n for n in files if n in made]:
                actions += [
                    Action(n, "keep", found.kind, "declares itself AI-made, which a new file would not") for n in kept
                ]
        elif found.fix == "review" and files:
            actions += [Action(n, "keep", found.kind, found.evidence) for n in files]
        else:
            count = f" ({len(found.files):,} files)" if found.files else ""
            advice.append(f"{KINDS[found.kind]}: {found.evidence}{count}; {FIXES[found.fix]}")
    # a picture kept among its copies may itself be a near copy of another: all of them then stand in for that one
    copies = {a.file: a.copy_of for a in actions if a.copy_of}
    actions = [replace(a, copy_of=_kept(a.copy_of, copies)) for a in actions]
    return Plan(source, fingerprint, tuple(dict.fromkeys(actions)), tuple(advice))


def _kept(name: str, copies: dict[str, str]) -> str:
    while name in copies:
        name = copies[name]
    return name


def read_plan(path: Path) -> Plan:
    """The plan of a file, edited or not; SfumatoError with the place of the first mistake."""
    at = shown(path)
    try:
        told = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SfumatoError(f"{at} is not UTF-8 text; save it as UTF-8, or delete it to audit anew") from error
    except json.JSONDecodeError as error:
        raise SfumatoError(
            f"{at} line {error.lineno}, column {error.colno}: {error.msg}; mend it (a comma stands between two entries, "
            "none after the last), or delete the file to audit anew"
        ) from error
    except (OSError, RecursionError) as error:
        raise SfumatoError(f"{at} cannot be read ({error}); delete it to audit anew") from error
    wanted = {"source": str, "fingerprint": str, "link": bool, "actions": list}
    for name, kind in wanted.items():
        if not isinstance(told, dict) or not isinstance(told.get(name), kind):
            raise SfumatoError(f"{at} has no {name!r} as 'sfumato clean' writes it; put it back, or delete the file")
    advice = told.get("advice", [])
    actions = tuple(_entry(entry, f"{at}, entry {k}") for k, entry in enumerate(told["actions"], 1))
    return Plan(told["source"], told["fingerprint"], actions, tuple(map(str, advice)), told["link"])


def _entry(entry: Any, at: str) -> Action:
    if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
        raise SfumatoError(f'{at}: not an object of texts such as {{"file": "a.png", "action": "quarantine", ...}}')
    wrong = sorted(set(entry) - KNOWN)
    if wrong:
        raise SfumatoError(f"{at}: unknown {wrong[0]!r}; an entry has {', '.join(sorted(KNOWN))}")
    missing = sorted(KNOWN - {"reason", "copy_of"} - set(entry))
    if missing:
        raise SfumatoError(f"{at}: no {missing[0]!r}; an entry has file, action and kind")
    if entry["action"] not in ACTIONS:
        raise SfumatoError(f"{at}: no action {shown(entry['action'])!r}; the actions are {', '.join(ACTIONS)}")
    try:
        check_kinds([entry["kind"]])
    except SfumatoError as error:
        raise SfumatoError(f"{at}: {error}") from error
    return Action(entry["file"], entry["action"], entry["kind"], entry.get("reason", ""), entry.get("copy_of", ""))


def check_plan(plan: Plan, names: Collection[str], rows: Collection[str]) -> None:
    """Raise SfumatoError when entries name what is not there, or nothing would be left.

    names: the pictures; rows: names that have a row of metadata.
    """
    known = set(names)
    out = plan.files("quarantine")
    for a in plan.actions:
        where = rows if a.action == "drop-row" else known
        if a.action != "keep" and a.file not in where:
            near = get_close_matches(a.file, [*where][:10_000], n=1)
            hint = f"; did you mean {shown(near[0])!r}?" if near else "; delete the entry"
            what = "row of the metadata" if where is rows else "picture"
            raise SfumatoError(
                f"the plan has {a.action!r} for {shown(a.file)!r}, but there is no {what} of that name{hint}"
            )
        if a.action == "quarantine" and a.copy_of in out:
            raise SfumatoError(
                f"the plan takes out {shown(a.file)!r} as a copy of {shown(a.copy_of)!r}, and that one as well; keep one"
            )
    if known and known <= out:
        raise SfumatoError("the plan takes out every picture; keep some of them")
