"""sfumato clean: by hashes against the original, by kill -9 at every file operation, by edited plans and bad places."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import sfumato.data as data
from sfumato.cli.main import main
from sfumato.core import SfumatoError
from sfumato.data.audit import audit
from sfumato.data.audit.finding import Finding
from sfumato.data.clean import clean, plan_path, undo
from sfumato.data.clean.plan import check_plan, make_plan, read_plan
from sfumato.data.clean.rewrite import rewrite_table

FINDINGS = (
    Finding("corrupt", ("b/broken.png",), "truncated", "error", "quarantine"),
    Finding("exact_duplicate", ("a/1.png", "a/2.png", "b/copy.png"), "the same pixels", "error", "quarantine-others"),
    Finding("alpha", ("a/clear.png", "b/moving.gif"), "see-through", "warning", "convert"),
    Finding("mixed_modes", ("b/sixteen.png", "a/turned.jpg"), "other modes", "warning", "convert"),
    Finding("caption_without_picture", ("nowhere.png",), "not there", "warning", "drop-rows"),
    Finding("outlier", ("a/3.png",), "far away", "warning", "review"),
    Finding("class_imbalance", (), "4 to 1", "warning", "balance"),
)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for folder in ("a", "b"):
        (root / folder).mkdir(parents=True)
    for k in (1, 3, 4):
        Image.fromarray(pixels(k)).save(root / "a" / f"{k}.png")
    shutil.copy(root / "a/1.png", root / "a/2.png")
    Image.fromarray(pixels(1)).save(root / "b/copy.png", compress_level=0)
    (root / "b/broken.png").write_bytes((root / "a/1.png").read_bytes()[:100])
    clear = np.dstack([pixels(5), np.tile(np.array([0, 255], np.uint8), (12, 8))])
    Image.fromarray(clear).save(root / "a/clear.png")
    Image.fromarray(pixels(6)).quantize(64).save(root / "b/moving.gif", transparency=0)
    Image.fromarray((np.arange(192).reshape(12, 16) * 340).astype(np.uint16)).save(root / "b/sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = Image.fromarray(pixels(7)).resize((64, 48), Image.Resampling.BICUBIC)
    smooth.save(root / "a/turned.jpg", quality=95, exif=exif)
    (root / "metadata.csv").write_bytes(
        b'file_name,text,weight\r\na/1.png,"one, or\r\ntwo",1\r\na/2.png,a copy,2\r\n./b/moving.gif,moves,3\r\n'
        b"nowhere.png,gone,4\r\nb/broken.png,torn,5\r\n"
    )
    return root


def hashes(root: Path) -> dict[str, str]:
    """Every file below root that is not of the cleaning itself."""
    found = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
    return {
        n: hashlib.sha256(p.read_bytes()).hexdigest()
        for n, p in found.items()
        if not n.startswith(".") and n != "manifest.json"
    }


def run(source: Path, out: Path, only: tuple[str, ...] = ()) -> dict:
    return clean(str(source), out, only, lambda: FINDINGS)


def edit(out: Path, change: Callable[[dict], object]) -> None:
    told = json.loads(plan_path(out).read_text())
    change(told)
    plan_path(out).write_text(json.dumps(told))


def array(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


def test_the_cleaned_set(pets: Path, tmp_path: Path) -> None:
    before, out = hashes(pets), tmp_path / "clean"
    told = run(pets, out)
    assert hashes(pets) == before
    after = hashes(out)
    assert set(after) == set(before) - {"a/2.png", "b/copy.png", "b/broken.png", "b/moving.gif"} | {"b/moving.gif.png"}
    changed = {"a/clear.png", "b/sixteen.png", "a/turned.jpg", "metadata.csv"}
    assert {n for n in set(after) & set(before) if after[n] != before[n]} == changed
    kept = hashes(out / ".quarantine")
    assert kept == {n: before[n] for n in kept}
    assert set(kept) == changed | {"a/2.png", "b/copy.png", "b/broken.png", "b/moving.gif"}
    assert told["pictures"] == 7 and told["taken_out"] == ["a/2.png", "b/broken.png", "b/copy.png"]
    source = data.open(out)
    assert len(source) == 7 and source.classes == ("a", "b") and not source.summary()["skipped"]
    assert (
        source.captions is not None
        and dict(zip(source.keys, source.captions, strict=True))["b/moving.gif.png"] == "moves"
    )
    assert source.summary()["rows_without_picture"]["count"] == 0


def test_the_manifest_is_of_the_files(pets: Path, tmp_path: Path) -> None:
    run(pets, tmp_path / "clean")
    told = json.loads((tmp_path / "clean/manifest.json").read_text())
    for where, names in (("", told["files"]), (".quarantine", told["quarantine"])):
        for name, given in names.items():
            raw = (tmp_path / "clean" / where / name).read_bytes()
            assert hashlib.blake2b(raw, digest_size=32).hexdigest() == given
    assert set(told["files"]) == set(hashes(tmp_path / "clean"))


def test_converted_pictures(pets: Path, tmp_path: Path) -> None:
    run(pets, tmp_path / "clean")
    out = tmp_path / "clean"
    mask = np.tile(np.array([False, True]), (12, 8))[..., None]
    assert (array(out / "a/clear.png") == np.where(mask, pixels(5), 255)).all()
    with Image.open(pets / "b/moving.gif") as gif:
        rgba = np.asarray(gif.convert("RGBA"))
    assert (rgba[..., 3] == 0).any()
    assert (array(out / "b/moving.gif.png") == np.where(rgba[..., 3:] == 255, rgba[..., :3], 255)).all()
    grey = np.rint(np.arange(192).reshape(12, 16) * 340 / 257)
    assert np.abs(array(out / "b/sixteen.png") - grey[..., None]).max() <= 1
    with Image.open(pets / "a/turned.jpg") as sideways:
        want = np.rot90(np.asarray(sideways), -1).astype(int)
    assert array(out / "a/turned.jpg").shape == (64, 48, 3)
    assert np.abs(array(out / "a/turned.jpg") - want).mean() < 3
    with Image.open(out / "a/turned.jpg") as upright:
        assert upright.getexif().get(0x0112, 1) == 1


def test_sixteen_bits_among_grey_pictures_stay_grey(tmp_path: Path) -> None:
    root = tmp_path / "xray"
    root.mkdir()
    for k in range(3):
        Image.fromarray(pixels(k)[..., 0]).save(root / f"{k}.png")
    Image.fromarray(pixels(3)[..., 0].astype(np.uint16) * 257).save(root / "deep.png")
    clean(str(root), tmp_path / "out", (), lambda: [Finding("mixed_modes", ("deep.png",), "", "warning", "convert")])
    with Image.open(tmp_path / "out/deep.png") as picture:
        assert picture.mode == "L" and (np.asarray(picture) == pixels(3)[..., 0]).all()


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # the red and the blue primary change places: reds must come out as blues
    r, b = swapped.index(b"rXYZ"), swapped.index(b"bXYZ")
    table = bytearray(swapped)
    table[r : r + 4], table[b : b + 4] = b"bXYZ", b"rXYZ"
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(root / "red.png", icc_profile=bytes(table))
    clean(str(root), tmp_path / "out", (), lambda: [Finding("mixed_modes", ("red.png",), "", "warning", "convert")])
    with Image.open(tmp_path / "out/red.png") as picture:
        assert "icc_profile" not in picture.info
        assert np.abs(np.asarray(picture).astype(int) - [0, 0, 255]).max() <= 2


def test_undo_restores_exactly(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    shutil.move(pets, tmp_path / "elsewhere")  # undo does not need the source
    undo(str(pets), out)
    assert hashes(out) == hashes(tmp_path / "elsewhere") and not (out / ".quarantine").exists()
    with pytest.raises(SfumatoError, match="undone already"):
        undo(str(pets), out)


def test_clean_undo_clean_gives_the_same(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    first = hashes(out)
    undo(str(pets), out)
    run(pets, out)
    assert hashes(out) == first


def test_only_the_kinds_asked_for(pets: Path, tmp_path: Path) -> None:
    before, out = hashes(pets), tmp_path / "clean"
    run(pets, out, ("exact_duplicate",))
    kept = {n: h for n, h in before.items() if n not in ("a/2.png", "b/copy.png", "metadata.csv")}
    assert {n: h for n, h in hashes(out).items() if n != "metadata.csv"} == kept
    run(pets, out)  # then all: the rest is done to the same set
    other = tmp_path / "other"
    run(pets, other)
    assert hashes(out) == hashes(other)


def test_an_edited_plan_is_done_anew(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    run(pets, out)

    def change(told: dict) -> None:
        told["actions"] = [a for a in told["actions"] if a["file"] != "a/2.png"]
        next(a for a in told["actions"] if a["file"] == "a/3.png")["action"] = "quarantine"
        next(a for a in told["actions"] if a["file"] == "a/clear.png")["action"] = "keep"

    edit(out, change)
    told = run(pets, out)
    assert told["taken_out"] == ["a/3.png", "b/broken.png", "b/copy.png"]
    for name in ("a/2.png", "a/clear.png"):
        assert (out / name).read_bytes() == (pets / name).read_bytes()
    undo(str(pets), out)
    assert hashes(out) == hashes(pets)


def test_the_same_again_does_nothing(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    inode, when = out.stat().st_ino, (out / "manifest.json").stat().st_mtime_ns
    run(pets, out)
    assert (out.stat().st_ino, (out / "manifest.json").stat().st_mtime_ns) == (inode, when)


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda t: t["actions"][0].update(action="delete"), r"entry 1: no action 'delete'; the actions are quarantine"),
        (lambda t: t["actions"][1].update(kind="corupt"), "entry 2: no fault is called 'corupt'; did you mean corrupt"),
        (lambda t: t["actions"][0].update(file="b/brokn.png"), "no picture of that name; did you mean 'b/broken.png'"),
        (lambda t: t["actions"][0].pop("kind"), "entry 1: no 'kind'"),
        (lambda t: t["actions"][0].update(colour="red"), "entry 1: unknown 'colour'"),
        (lambda t: t["actions"].insert(0, 3), "entry 1: not an object"),
        (lambda t: t.pop("actions"), "has no 'actions'"),
        (lambda t: t.update(link="yes"), "has no 'link'"),
        (lambda t: t.update(fingerprint="0" * 32), "was made before files of .* changed; delete it"),
        (lambda t: t.update(source="/elsewhere"), "was made from /elsewhere, not from"),
        (
            lambda t: t["actions"].append({"file": "a/1.png", "action": "quarantine", "kind": "dark"}),
            "as a copy of 'a/1.png', and that one as well; keep one",
        ),
        (
            lambda t: t.update(
                actions=[
                    {"file": n, "action": "quarantine", "kind": "dark"}
                    for n in (
                        "a/1.png a/2.png a/3.png a/4.png a/clear.png a/turned.jpg b/broken.png b/copy.png"
                    ).split()
                    + ["b/moving.gif", "b/sixteen.png"]
                ]
            ),
            "takes out every picture",
        ),
    ],
)
def test_wrong_edits_are_told_in_one_line(pets: Path, tmp_path: Path, change, message: str) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    before = hashes(out)
    edit(out, change)
    with pytest.raises(SfumatoError, match=message) as told:
        run(pets, out)
    assert "\n" not in str(told.value) and hashes(out) == before


def test_a_plan_that_is_no_json_is_told_with_its_line(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    text = plan_path(out).read_text()
    plan_path(out).write_text(text.replace('"},\n', '"}\n', 1))
    wrong = next(k for k, line in enumerate(text.split("\n"), 1) if line.endswith('"},')) + 1
    with pytest.raises(SfumatoError, match=f"line {wrong}, column"):
        run(pets, out)
    assert len([line for line in text.split("\n") if '"file"' in line]) == len(json.loads(text)["actions"])


def test_bad_places(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pets)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    for out, message in (
        (pets, "the source itself"),
        (tmp_path / "link", "the source itself"),
        (pets / "clean", "inside the source"),
        (tmp_path / "link/clean", "inside the source"),
        (tmp_path, "holds the source"),
        (tmp_path / "full", "already holds something"),
        (tmp_path / "file", "already holds something"),
    ):
        with pytest.raises(SfumatoError, match=message):
            run(pets, out)
    with pytest.raises(SfumatoError, match="did you mean blurred.*the kinds are: corrupt"):
        run(pets, tmp_path / "clean", ("blured",))
    with pytest.raises(SfumatoError, match="nothing to undo"):
        undo(str(pets), tmp_path / "clean")
    assert sorted(os.listdir(tmp_path)) == ["file", "full", "link", "pets"]
    (tmp_path / "empty").mkdir()
    run(pets, tmp_path / "empty")


def test_other_files_than_those_of_the_set(pets: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "clean", tmp_path / "other"
    run(pets, out)
    shutil.copytree(pets, other)
    with pytest.raises(SfumatoError, match="cleaned from .*pets, not from .*other"):
        run(other, out)
    with pytest.raises(SfumatoError, match="cleaned from .*pets, not from .*other"):
        undo(str(other), out)
    Image.fromarray(pixels(9)).save(pets / "a/4.png")
    with pytest.raises(SfumatoError, match=r"before files of .* changed \(a/4.png\); choose another --out"):
        run(pets, out)
    shutil.copy(plan_path(out), plan_path(tmp_path / "new"))
    with pytest.raises(SfumatoError, match="changed; delete it to audit anew"):
        run(pets, tmp_path / "new")


def test_files_that_change_during_the_audit(pets: Path, tmp_path: Path) -> None:
    def audit() -> tuple[Finding, ...]:
        Image.fromarray(pixels(8)).save(pets / "a/4.png")
        return FINDINGS

    with pytest.raises(SfumatoError, match="changed during the audit"):
        clean(str(pets), tmp_path / "clean", (), audit)
    assert not (tmp_path / "clean").exists()


@pytest.mark.parametrize("name", ["a/3.png", "a/clear.png", ".quarantine/a/2.png", "metadata.csv"])
def test_an_edit_in_the_cleaned_set_is_not_lost(pets: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    (out / name).write_bytes(b"edited by hand")
    edit(out, lambda t: t["actions"].pop())
    for act in (lambda: run(pets, out), lambda: undo(str(pets), out)):
        with pytest.raises(SfumatoError, match="was changed; nothing was done"):
            act()
        assert (out / name).read_bytes() == b"edited by hand"


@pytest.mark.parametrize("name", ["a/2.png", "b/moving.gif"])
def test_a_new_file_in_the_place_of_a_quarantined_one_is_not_lost(pets: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    (out / name).write_bytes(b"new")
    with pytest.raises(SfumatoError, match=f"{name} is new"):
        undo(str(pets), out)
    assert (out / name).read_bytes() == b"new"


def test_copies_are_apart_from_the_source_and_links_by_wish_only(pets: Path, tmp_path: Path) -> None:
    run(pets, tmp_path / "copied")
    edit_plan = json.loads(plan_path(tmp_path / "copied").read_text())
    plan_path(tmp_path / "linked").write_text(json.dumps({**edit_plan, "link": True}))
    assert run(pets, tmp_path / "linked")["linked"]
    before = hashes(pets)
    same = os.path.samefile
    assert not same(pets / "a/3.png", tmp_path / "copied/a/3.png") and same(
        pets / "a/3.png", tmp_path / "linked/a/3.png"
    )
    assert hashes(tmp_path / "linked") == hashes(tmp_path / "copied")
    edit(tmp_path / "linked", lambda t: t.update(link=False, actions=t["actions"][1:]))
    assert run(pets, tmp_path / "linked")["linked"], "what was linked once stays so, and is told"
    undo(str(pets), tmp_path / "linked")
    assert hashes(tmp_path / "linked") == before == hashes(pets)


def test_unreadable_files_are_left_out_and_told(pets: Path, tmp_path: Path) -> None:
    (pets / "b/dangling.png").symlink_to(pets / "nothing.png")
    found = (*FINDINGS, Finding("corrupt", ("b/dangling.png",), "a link to nothing", "error", "quarantine"))
    told = clean(str(pets), tmp_path / "clean", (), lambda: found)
    assert list(told["left_out"]) == ["b/dangling.png"] and told["pictures"] == 7
    with pytest.raises(SfumatoError, match="b/dangling.png cannot be read: a link to a file that is not there"):
        run(pets, tmp_path / "other")


def test_names_that_are_hard_to_write(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    names = ['a"b.png', "line\nbreak.png", "<b>&amp;.png", "ümlaut 猫.png", os.fsdecode(b"bytes\xff.png"), "last.png"]
    for k, name in enumerate(names):
        Image.fromarray(pixels(k)).save(root / name, format="PNG")
    before = hashes(root)
    found = [Finding("dark", tuple(names[:5]), "dark", "warning", "quarantine")]
    clean(str(root), tmp_path / "out", (), lambda: found)
    assert set(hashes(tmp_path / "out")) == {"last.png"}
    assert {a.file for a in read_plan(plan_path(tmp_path / "out")).actions} == set(names[:5])
    assert "ümlaut 猫.png" in plan_path(tmp_path / "out").read_text()
    undo(str(root), tmp_path / "out")
    assert hashes(tmp_path / "out") == before


def test_shards_and_tables_become_a_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for k in range(4):
            Image.fromarray(pixels(k % 3)).save(tmp_path / f"{k}.png")
            tar.add(tmp_path / f"{k}.png", f"x/{k}.png")
            (tmp_path / "told").write_text(f"number {k}")
            tar.add(tmp_path / "told", f"x/{k}.txt")
    found = [Finding("exact_duplicate", ("x/0.png", "x/3.png"), "same", "error", "quarantine-others")]
    clean(str(tmp_path / "set.tar"), tmp_path / "out", (), lambda: found)
    source = data.open(tmp_path / "out")
    assert source.keys == ("x/0.png", "x/1.png", "x/2.png") and source.captions == ["number 0", "number 1", "number 2"]
    undo(str(tmp_path / "set.tar"), tmp_path / "out")
    assert (tmp_path / "out/x/3.png").read_bytes() == (tmp_path / "3.png").read_bytes()
    assert data.open(tmp_path / "out").captions == [f"number {k}" for k in range(4)]
    (tmp_path / "far").mkdir()
    (tmp_path / "far/list.csv").write_text("file_name,text\n../0.png,zero\n../1.png,one\n")
    clean(str(tmp_path / "far/list.csv"), tmp_path / "flat", (), lambda: [])
    assert data.open(tmp_path / "flat").captions == ["zero", "one"]


def test_rows_that_stay_are_unchanged_byte_for_byte() -> None:
    rows = [
        b'{"file_name": "a.png",  "text": "\\u00e9"}',
        b"",
        b'{"text":"b","file_name":"./b.png"}',
        b'{"file_name": "c.png"}',
    ]
    raw = b"\xef\xbb\xbf" + b"\r\n".join(rows)
    assert rewrite_table(raw, "metadata.jsonl", {"b.png"}, {}) == b"\xef\xbb\xbf" + b"\r\n".join([*rows[:2], rows[3]])
    table = b'file_name,text\n"a.png","x, ""y""\nz"\n\nb.png,b\nsub\\c.gif, c \n'
    assert rewrite_table(table, "d/metadata.csv", {"d/b.png"}, {}) == table.replace(b"b.png,b\n", b"")
    new = rewrite_table(table, "d/metadata.csv", set(), {"d/sub/c.gif": "d/sub/c.gif.png"}).decode()
    assert [r for r in csv.reader(new.splitlines(True)) if r][-1] == ["sub\\c.gif.png", " c "]
    assert new.startswith('file_name,text\n"a.png","x, ""y""\nz"\n\nb.png,b\n')


def test_what_a_plan_takes_of_findings() -> None:
    found = [
        Finding("dark", ("a", "gone"), "d", "warning", "quarantine"),
        Finding("exact_duplicate", ("a", "b", "c"), "e", "error", "quarantine-others"),
        Finding("near_duplicate", ("c", "b", "d"), "n", "warning", "quarantine-others"),
        Finding("ai_made", ("e",), "C2PA", "warning", "review"),
        Finding("alpha", ("e", "f"), "x", "warning", "convert"),
        Finding("caption_empty", ("f",), "y", "warning", "caption"),
    ]
    plan = make_plan(found, "s", "f", "abcdef", "")
    assert plan.files("quarantine") == {"a", "c", "d"}  # b stays for a and c, and for d
    assert plan.files("convert") == {"f"} and plan.files("keep") == {"e"}
    assert {(a.file, a.copy_of) for a in plan.actions if a.copy_of} == {("c", "b"), ("d", "b")}
    plan = make_plan(found, "s", "f", "abcdef", "c")
    assert plan.files("quarantine") == {"a", "b", "d"}, "the copy with a caption stays"
    assert len(plan.advice) == 1 and "write captions" in plan.advice[0]


def test_copies_of_a_copy_stand_in_for_the_one_that_stays() -> None:
    names = ("kept", "near", "same")
    found = [
        Finding("exact_duplicate", ("near", "same"), "", "error", "quarantine-others"),
        Finding("near_duplicate", ("kept", "near"), "", "warning", "quarantine-others"),
    ]
    plan = make_plan(found, "s", "f", names, ())
    check_plan(plan, names, ())
    assert {a.file: a.copy_of for a in plan.actions} == {"near": "kept", "same": "kept"}


WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.copyfile", "fcntl.flock"}


def dies_at(step: int, work: Callable[[], object], below: Path) -> bool:
    """Do the work in a process of its own that is killed with SIGKILL before its file operation `step`; whether it died."""
    child = os.fork()
    if child == 0:
        try:
            seen = 0

            def watch(event: str, given: tuple) -> None:
                nonlocal seen
                if event in WATCHED and str(below) in str(given[0]):
                    seen += 1
                    if seen == step:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(watch)
            work()
            os._exit(0)
        except BaseException:
            os._exit(9)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"failed before operation {step}"
    return os.WIFSIGNALED(status)


def whole(out: Path) -> None:
    told = json.loads((out / "manifest.json").read_text())
    for where, names in (("", told["files"]), (".quarantine", told["quarantine"])):
        for name, given in names.items():
            assert hashlib.blake2b((out / where / name).read_bytes(), digest_size=32).hexdigest() == given


@pytest.mark.parametrize("what", ["first", "again", "undo"])
def test_kill_at_every_file_operation(pets: Path, tmp_path: Path, monkeypatch, what: str) -> None:
    """No set, or a whole one, after a kill before every single operation; the same command then finishes the work."""
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    place, start = tmp_path / "work", tmp_path / "start"
    place.mkdir()
    for name in (
        "a/3.png",
        "a/4.png",
        "a/2.png",
        "b/sixteen.png",
        "a/clear.png",
    ):  # every kind of action once is enough
        (pets / name).unlink()
    out = place / "clean"
    if what != "first":
        run(pets, out)
        if what == "again":
            edit(out, lambda t: t["actions"].__delitem__(slice(0, None, 2)))
    shutil.copytree(place, start)
    work = (lambda: undo(str(pets), out)) if what == "undo" else (lambda: run(pets, out))
    work()
    want, before, step = hashes(out), hashes(pets), 0
    while True:
        step += 1
        shutil.rmtree(place)
        shutil.copytree(start, place)
        if not dies_at(step, work, place):
            break
        if (out / "manifest.json").exists():
            whole(out)
        else:
            assert not out.exists()
        if what == "undo" and out.exists() and json.loads((out / "manifest.json").read_text())["state"] == "undone":
            assert hashes(out) == want
            continue
        work()
        assert hashes(out) == want and hashes(pets) == before
        assert sorted(os.listdir(place)) == ["clean", "clean.plan.json"]
        assert not [p for p in out.rglob(".*") if p.name != ".quarantine"]
        if what == "first" and step % 7 == 0:
            undo(str(pets), out)
            assert hashes(out) == before
    assert step > 30


def test_a_full_disk_is_told_and_work_goes_on_after_it(pets: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "clean"
    code = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); import test_clean as t\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))\n"  # the kernel refuses to write longer files
        "try: t.run(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except t.SfumatoError as e: print(e); sys.exit(2)\n"
    )
    plan_path(out).write_bytes(make(pets, tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code, str(pets), str(out), str(Path(__file__).parent)], capture_output=True, text=True
    )
    assert done.returncode == 2 and "File too large" in done.stdout and "goes on where it stopped" in done.stdout, done
    assert not out.exists()
    run(pets, out)
    whole(out)


def make(pets: Path, tmp_path: Path) -> bytes:
    run(pets, tmp_path / "for-its-plan")
    return plan_path(tmp_path / "for-its-plan").read_bytes()


def test_too_little_space_is_told_before_the_disk_is_full(pets: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(SfumatoError, match='0.00 GB free; choose a larger one, or write "link": true'):
        run(pets, tmp_path / "clean")
    edit(tmp_path / "clean", lambda t: t.update(link=True))
    assert run(pets, tmp_path / "clean")["linked"]
    assert os.path.samefile(pets / "a/1.png", tmp_path / "clean/a/1.png"), "copied before the plan was changed"


def test_links_of_a_stopped_run_become_copies_when_the_plan_says_so(pets: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "clean"
    plan_path(out).write_text(json.dumps({**json.loads(make(pets, tmp_path)), "link": True}))
    with monkeypatch.context() as patched:
        patched.setattr(os, "sync", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(SfumatoError, match="disk is full; free some space and run the same command again"):
            run(pets, out)
    edit(out, lambda t: t.update(link=False))
    assert not run(pets, out)["linked"] and not os.path.samefile(pets / "a/3.png", out / "a/3.png")


def test_two_at_once(pets: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "clean"
    with monkeypatch.context() as patched, pytest.raises(SfumatoError):  # stops on the way
        patched.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
        run(pets, out)
    (part,) = tmp_path.glob(".clean.*.part")
    handle = os.open(part, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(SfumatoError, match="another 'sfumato clean' works"):
        run(pets, out)
    os.close(handle)
    run(pets, out)


def test_the_command(pets: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "clean"
    assert main(["clean", str(pets), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "b/broken.png" in told["quarantined"] and not told["undone"]
    assert {"a/2.png", "b/copy.png"} <= set(told["quarantined"]) and "a/1.png" not in told["quarantined"]
    assert [
        f for f in audit(str(out)).findings if f.fix in ("quarantine", "quarantine-others", "convert", "drop-rows")
    ] == []
    assert main(["clean", str(pets), "--out", str(out), "--only", "sharp"]) == 2
    assert "no fault is called 'sharp'" in capsys.readouterr().err
    assert main(["clean", str(pets), "--out", str(out), "--undo"]) == 0
    assert hashes(out) == hashes(pets)
    assert main(["clean", str(pets), "--out", str(out), "--undo"]) == 2
    assert main(["clean", "digits", "--out", str(tmp_path / "d")]) == 2
    assert not (tmp_path / "d").exists()
