"""The cleaned set, made and undone: all work happens in a hidden folder beside it, which appears by one rename.

A crash at any moment leaves no set, or the whole one, and the same command goes on where it stopped.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.audit.finding import Finding
from sfumato.data.clean import disk
from sfumato.data.clean.origin import Origin, look, stamp
from sfumato.data.clean.plan import Plan, check_kinds, check_plan, make_plan, read_plan
from sfumato.data.clean.rewrite import convert, converted_name, mostly_grey, rewrite_table
from sfumato.data.files import digest, sync
from sfumato.data.picture import Unusable, check_file
from sfumato.data.progress import progress
from sfumato.data.records import shown

Told = dict[str, Any]


def plan_path(out: Path) -> Path:
    """The plan stands beside the cleaned set."""
    return out.with_name(out.name + ".plan.json")


def clean(
    source: str, out: str | Path, only: Collection[str] = (), audit: Callable[[], Iterable[Finding]] | None = None
) -> Told:
    """Make the cleaned set `out` from `source` by the plan beside it; the source is only read.

    Without a plan, `audit()` gives the findings it is made from (by default `sfumato.data.audit`); with one, edited or
    not, that is what is done, anew when the set is there already. `only`: kinds of faults (all when empty). Returns the
    manifest. Raises SfumatoError for what the user can mend: places that overlap, a plan of other files, a full disk.
    """
    check_kinds(only)
    where, out = Path(source).expanduser(), Path(out).expanduser().absolute()
    _check_place(where, out)
    with _told(out):
        old = disk.read_manifest(out)
        if old is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SfumatoError(f"{shown(out)} already holds something: choose a folder that is new or empty")
        origin = look(source)
        plan = _plan(origin, out, old, audit or (lambda: _audit(source)))
        chosen = plan.chosen(only)
        check_plan(chosen, origin.records.keys, origin.rows)
        state = blake2b(chosen.text(), digest_size=16).hexdigest()
        if old is not None and old["state"] == state:
            return old
        part = _part(out, origin.fingerprint)
        if old is None:
            part.mkdir(parents=True, exist_ok=True)
        else:
            disk.verify(out, old)
            os.rename(out, part)
        with disk.alone(part):
            work = _Work(origin, chosen, part, disk.read_manifest(part))
            return _finish(part, out, {**work.do(), "state": state, "only": sorted(only)})


def undo(source: str, out: str | Path) -> Told:
    """Put everything in `out` back as it was in `source`, compared by hashes; the source itself need not be there.

    Returns the manifest. Raises SfumatoError when there is nothing to undo, or a file of `out` was changed since.
    """
    where, out = str(Path(source).expanduser().resolve()), Path(out).expanduser().absolute()
    with _told(out):
        old, part = disk.read_manifest(out), next(_unfinished(out), None)
        if old is None and part is not None and not out.exists():
            old = disk.read_manifest(part)
            if old is None:
                raise SfumatoError(
                    f"{shown(out)} is not finished: there is nothing to undo; go on without --undo, or delete {shown(part)}"
                )
        elif old is not None:
            part = _part(out, old["fingerprint"])
        if old is None or part is None:
            raise SfumatoError(
                f"{shown(out)} is no set that 'sfumato clean' made (no {disk.MANIFEST} in it): nothing to undo"
            )
        if old["source"] != where:
            raise SfumatoError(
                f"{shown(out)} was cleaned from {shown(old['source'])}, not from {shown(where)}; give that one"
            )
        if old["state"] == "undone" and out.exists():
            raise SfumatoError(f"{shown(out)} is undone already: it holds every file as it was in {shown(where)}")
        if out.exists():
            disk.verify(out, old)
            os.rename(out, part)
        with disk.alone(part):
            files = disk.originals(old)
            disk.restore(part, set(files))
            told = {**old, "state": "undone", "files": files, "quarantine": {}, "made": [], "only": []}
            told |= {"pictures": old["pictures"] + len(old["taken_out"]), "taken_out": []}
            told |= {"rows_dropped": [], "not_converted": {}}
            disk.verify(part, {**told, "files": {n: files[n] for n in old["quarantine"]}})
            return _finish(part, out, told)


def _audit(source: str) -> Iterable[Finding]:
    from sfumato.data.audit import audit

    return audit(source).findings


def _check_place(source: Path, out: Path) -> None:
    given, wanted = source.resolve(), out.resolve()
    if given == wanted:
        raise SfumatoError(f"--out {shown(out)} is the source itself, which is never changed; choose another folder")
    if given in wanted.parents and given.is_dir():
        raise SfumatoError(
            f"--out {shown(out)} lies inside the source, which is never changed; choose a folder beside it"
        )
    if wanted in given.parents:
        raise SfumatoError(f"--out {shown(out)} holds the source; choose a folder beside it")


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """Trouble with the disk as one line."""
    try:
        yield
    except OSError as error:
        at = f" ({shown(error.filename)})" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else f"{error.strerror or error}"
        raise SfumatoError(
            f"{shown(out)} cannot be written: {what}{at}; {'free some space' if full else 'put that right'} and run the same "
            f"command again: it goes on where it stopped"
        ) from error


def _part(out: Path, fingerprint: str) -> Path:
    return out.with_name(f".{out.name}.{fingerprint[:12]}.part")


def _unfinished(out: Path) -> Iterator[Path]:
    start = f".{out.name}."
    if out.parent.is_dir():
        found = (
            p for p in out.parent.iterdir() if p.name.startswith(start) and p.name.endswith(".part") and p.is_dir()
        )
        yield from (p for p in sorted(found) if len(p.name) == len(start) + 12 + len(".part"))


def _plan(origin: Origin, out: Path, old: Told | None, audit: Callable[[], Iterable[Finding]]) -> Plan:
    path, is_this = plan_path(out), origin.fingerprint
    if old is not None and (old["source"] != origin.where or old["fingerprint"] != is_this):
        raise SfumatoError(
            _other(f"{shown(out)} was cleaned", old["source"], origin, old["stamps"], "choose another --out")
        )
    strange = [p for p in _unfinished(out) if p != _part(out, is_this)]
    if strange:
        raise SfumatoError(
            f"{shown(strange[0])} is an unfinished set of other files; delete it, or choose another --out"
        )
    if path.exists():
        plan = read_plan(path)
        if plan.source != origin.where or plan.fingerprint != is_this:
            raise SfumatoError(_other(f"{shown(path)} was made", plan.source, origin, {}, "delete it to audit anew"))
        return plan
    made = make_plan(audit(), origin.where, is_this, origin.records.keys, origin.rows)
    if look(origin.where).fingerprint != is_this:
        raise SfumatoError(
            f"files of {shown(origin.where)} changed during the audit; run again when nothing writes there"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write(path, made.text(), path.with_name(f".{path.name}.part"))
    return made


def _other(what: str, source: str, origin: Origin, stamps: dict[str, list[int]], advice: str) -> str:
    """Why a plan or a set does not belong to the files that are there now."""
    if source != origin.where:
        return f"{what} from {shown(source)}, not from {shown(origin.where)}; {advice}"
    now = {k: list(v) for k, v in origin.stamps.items()}
    changed = sorted(k for k in set(now) | set(stamps) if now.get(k) != stamps.get(k)) if stamps else []
    first = f" ({shown(changed[0])}{', ...' if changed[1:] else ''})" if changed else ""
    return f"{what} before files of {shown(source)} changed{first}; {advice}"


@dataclass
class _Work:
    """Bringing the hidden folder `part` to what the plan says. `old`: the manifest of the set it was, if any."""

    origin: Origin
    plan: Plan
    part: Path
    old: Told | None
    hashes: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    quarantined: set[str] = field(default_factory=set)

    def do(self) -> Told:
        """All of it; returns the manifest but for its state."""
        origin, target = self.origin, dict(zip(self.origin.records.keys, self.origin.targets, strict=True))
        if self.old is not None:
            self.hashes, self.lost = disk.originals(self.old), self.old["left_out"]
        disk.restore(self.part, {*origin.targets, *origin.tables})
        out = {target[n] for n in self.plan.files("quarantine")}
        self.fill(out)
        renamed = self.convert([target[n] for n in sorted(self.plan.files("convert"))], out)
        for name in sorted(out - set(self.lost)):
            self.take_out(name)
        drop = out | set(self.lost) | {target.get(n, n) for n in self.plan.files("drop-row")}
        dropped = self.tables(drop, renamed)
        gone = self.quarantined | set(self.lost)
        files = {n: h for n, h in self.hashes.items() if n not in gone} | self.made
        disk.prune(self.part)
        return {
            "format": disk.FORMAT,
            "source": origin.where,
            "fingerprint": origin.fingerprint,
            "linked": self.plan.link if self.old is None else self.old["linked"],
            "pictures": len(origin.targets) - len(out | set(self.lost)),
            "taken_out": sorted(out - set(self.lost)),
            "left_out": self.lost,
            "not_converted": self.failed,
            "rows_dropped": dropped,
            "not_taken": origin.beside,
            "made": sorted(self.made),
            "files": dict(sorted(files.items())),
            "quarantine": {n: self.hashes[n] for n in sorted(self.quarantined)},
            "stamps": origin.stamps,
        }

    def fill(self, out: set[str]) -> None:
        """Every file of the source that is not there yet."""
        origin, free = self.origin, None
        for name, raw in origin.tables.items():
            if name not in self.hashes:
                (self.part / name).parent.mkdir(parents=True, exist_ok=True)
                disk.write(self.part / name, raw, self.part / disk.PART)
                self.hashes[name] = digest(self.part / name)
        missing = [k for k, n in enumerate(origin.targets) if n not in self.hashes and n not in self.lost]
        sizes = {k: origin.stamps.get(origin.records.keys[k], (0, 0))[0] for k in missing}
        for k in progress(missing, len(missing), "linking" if self.plan.link else "copying"):
            name = origin.targets[k]
            try:
                shared = self.place(k, self.part / name)
            except Unusable as reason:
                if name not in out:
                    raise SfumatoError(
                        f"{shown(origin.records.keys[k])} cannot be read: {reason}; delete the plan to audit anew, or write an "
                        'entry with "action": "quarantine" for it'
                    ) from reason
                self.lost[name] = str(reason)
                continue
            self.hashes[name] = digest(self.part / name)
            if free is None and not shared:
                free = shutil.disk_usage(self.part).free
                need = sum(s for j, s in sizes.items() if j > k and not (self.part / origin.targets[j]).exists())
                if need > free:
                    raise SfumatoError(
                        f"the copies need {need / 1e9:.2f} GB, the disk of --out has {free / 1e9:.2f} GB free; choose a larger "
                        'one, or write "link": true into the plan: then an edit in the cleaned set changes the source too'
                    )

    def place(self, row: int, target: Path) -> bool:
        """One picture; whether that took no space. Raises Unusable when it cannot be read."""
        records, part = self.origin.records, self.part / disk.PART
        path, key = records.locate(row), records.keys[row]
        target.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        shared = False
        if path is None:
            part.write_bytes(records.fetch(row))
        else:
            check_file(path)
            try:
                with path.open("rb"):
                    pass
            except PermissionError as error:
                raise Unusable("no permission to read it") from error
            if target.exists() and os.path.samefile(target, path) == self.plan.link:  # of a run that was stopped
                if digest(target) == digest(path):
                    return True
            if self.plan.link:
                _link(path, part)
                shared = True
            else:
                shared = disk.duplicate(path, part)
            if stamp(path) != self.origin.stamps[key]:
                raise SfumatoError(f"{shown(key)} changed while it was copied; run again when nothing writes there")
        target.unlink(missing_ok=True)  # a rename onto a link to the same file would do nothing
        os.replace(part, target)
        return shared

    def take_out(self, name: str) -> None:
        disk.move(self.part / name, self.part / disk.QUARANTINE / name)
        self.quarantined.add(name)

    def convert(self, names: list[str], out: set[str]) -> dict[str, str]:
        """Rewrite these pictures; returns the new names of those that need one."""
        rest = set(self.origin.targets) - {*names, *out, *self.lost}
        grey = bool(names) and mostly_grey([self.part / n for n in sorted(rest)])
        renamed = {}
        for name in progress(names, len(names), "converting"):
            new, part = converted_name(name), self.part / disk.PART
            if new != name and os.path.lexists(self.part / new):
                self.failed[name] = f"{new} is there already"
                continue
            try:
                convert(self.part / name, part, name, grey)
            except Unusable as reason:
                self.failed[name] = str(reason)
                continue
            self.take_out(name)
            os.replace(part, self.part / new)
            self.made[new] = digest(self.part / new)
            if new != name:
                renamed[name] = new
        return renamed

    def tables(self, drop: set[str], renamed: dict[str, str]) -> list[str]:
        """Metadata without the dropped rows; returns the names of those."""
        for name, raw in self.origin.tables.items():
            new = rewrite_table(raw, name, drop, renamed)
            if new != raw:
                self.take_out(name)
                disk.write(self.part / name, new, self.part / disk.PART)
                self.made[name] = digest(self.part / name)
        rows = self.origin.rows
        target = dict(zip(self.origin.records.keys, self.origin.targets, strict=True))
        return sorted(n for n in rows if target.get(n, n) in drop)


def _link(path: Path, target: Path) -> None:
    try:
        os.link(os.path.realpath(path), target)
    except OSError as error:
        raise SfumatoError(
            f'{shown(path)} cannot be linked from --out ({error.strerror}); write "link": false into the plan to copy, or choose'
            " a folder on the same disk"
        ) from error


def _finish(part: Path, out: Path, manifest: Told) -> Told:
    """The manifest last, then the folder under its name."""
    os.sync()  # every copy first, so that a manifest vouches for what a power cut would leave
    disk.write(part / disk.MANIFEST, json.dumps(manifest, indent=1).encode(), part / disk.PART)
    os.rename(part, out)
    sync(out.parent)
    return manifest
