"""Bad shards, tables and patterns: each ends in one clear line, as an error or as a recorded reason."""

from __future__ import annotations

import gzip
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from scaling import line, make_tar, picture

import sfumato.data as data
from sfumato.core import SfumatoError
from sfumato.data.records import open_records

GOOD = [("0.png", picture(0)), ("1.png", picture(1))]


def truncated(root: Path) -> str:
    path = make_tar(root / "a.tar", GOOD)
    path.write_bytes(path.read_bytes()[:1000])
    return str(path)


def cut_between(root: Path) -> str:
    """Cut exactly after the first member: every header that is left is whole."""
    path = make_tar(root / "a.tar", GOOD)
    with tarfile.open(path) as tar:
        end = tar.getmembers()[1].offset
    path.write_bytes(path.read_bytes()[:end])
    return str(path)


def damaged(root: Path) -> str:
    path = make_tar(root / "a.tar", GOOD)
    with tarfile.open(path) as tar:
        at = tar.getmembers()[1].offset
    raw = bytearray(path.read_bytes())
    raw[at : at + 20] = b"\xff" * 20
    path.write_bytes(raw)
    return str(path)


def compressed(root: Path) -> str:
    path = make_tar(root / "plain.tar", GOOD)
    (root / "a.tar").write_bytes(gzip.compress(path.read_bytes()))
    return str(root / "a.tar")


def not_a_tar(root: Path) -> str:
    (root / "a.tar").write_bytes(picture(0) * 3)
    return str(root / "a.tar")


def negative_length(root: Path) -> str:
    """A length of -1024 in base 256 would send a reader back to where it came from, for ever."""
    path = make_tar(root / "a.tar", GOOD)
    header = bytearray(path.read_bytes()[:512])
    header[124:136] = (-1024).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    with tarfile.open(path) as tar:
        tar.getmembers()
        end = tar.offset
    path.write_bytes(path.read_bytes()[:end] + bytes(header) + bytes(1024))
    return str(path)


def nested_long_names(root: Path) -> str:
    """Two thousand headers that each announce a long name for the next."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1
    (root / "a.tar").write_bytes((member.tobuf(tarfile.GNU_FORMAT) + b"x" + bytes(511)) * 2000 + bytes(1024))
    return str(root / "a.tar")


def empty_file(root: Path) -> str:
    (root / "a.tar").write_bytes(b"")
    return str(root / "a.tar")


def empty_shard(root: Path) -> str:
    return str(make_tar(root / "a.tar", []))


def no_pictures(root: Path) -> str:
    return str(make_tar(root / "a.tar", [("0.txt", b"a caption"), ("0.wav", b"sound")]))


def duplicate_in_sample(root: Path) -> str:
    return str(make_tar(root / "a.tar", [("0.png", picture(0)), ("0.txt", b"a"), ("0.txt", b"b")]))


def duplicate_pictures(root: Path) -> str:
    return str(make_tar(root / "a.tar", [("0.png", picture(0)), ("1.png", picture(0)), ("0.png", picture(1))]))


def duplicates_over_shards(root: Path) -> str:
    make_tar(root / "a.tar", GOOD)
    make_tar(root / "b.tar", [("1.png", picture(1))])
    return str(root)


def bad_json(root: Path) -> str:
    return str(make_tar(root / "a.tar", [*GOOD, ("1.json", b"{")]))


def deep_json(root: Path) -> str:
    return str(make_tar(root / "a.tar", [*GOOD, ("1.json", b"[" * 100_000)]))


def json_list(root: Path) -> str:
    return str(make_tar(root / "a.tar", [*GOOD, ("1.json", b"[1]")]))


def text_no_utf8(root: Path) -> str:
    return str(make_tar(root / "a.tar", [*GOOD, ("1.txt", b"caf\xe9")]))


def json_text_number(root: Path) -> str:
    return str(make_tar(root / "a.tar", [*GOOD, ("1.json", b'{"text": 5}')]))


def missing_shards(root: Path) -> str:
    for k in (0, 1, 3):
        make_tar(root / f"s-{k:03d}.tar", [(f"{k}.png", picture(k))])
    return str(root / "s-{000..004}.tar")


def backward_pattern(root: Path) -> str:
    return str(root / "s-{004..000}.tar")


def endless_pattern(root: Path) -> str:
    return str(root / "s-{0..999999999999}.tar")


def pattern_of_nothing_known(root: Path) -> str:
    for k in range(2):
        (root / f"s-{k}.zip").write_bytes(b"PK")
    return str(root / "s-{0..1}.zip")


def splits_of_shards(root: Path) -> str:
    for name in ("train", "test"):
        make_tar(root / f"{name}-000.tar", [(f"{name}.png", picture(0))])
    return str(root)


def shard_lost_from_pack(root: Path) -> str:
    make_tar(root / "a.tar", GOOD)
    shards = [{"file": n, "bytes": (root / "a.tar").stat().st_size} for n in ("a.tar", "b.tar")]
    (root / "manifest.json").write_text(json.dumps({"shards": shards}))
    return str(root)


def shard_of_pack_cut(root: Path) -> str:
    make_tar(root / "a.tar", GOOD)
    (root / "manifest.json").write_text(json.dumps({"shards": [{"file": "a.tar", "bytes": 99}]}))
    return str(root)


def missing_tar(root: Path) -> str:
    return str(root / "nothing.tar")


def folder_named_tar(root: Path) -> str:
    make_tar(root / "x" / "s-0.tar", GOOD)
    (root / "x" / "s-1.tar").mkdir()
    return str(root / "x" / "s-{0..1}.tar")


def csv_all_missing(root: Path) -> str:
    (root / "a.csv").write_text("file_name\ngone.png\nalso-gone.png\n")
    return str(root / "a.csv")


def csv_no_column(root: Path) -> str:
    (root / "a.csv").write_text("path,text\n0.png,hello\n")
    return str(root / "a.csv")


def csv_empty(root: Path) -> str:
    (root / "a.csv").write_text("file_name\n")
    return str(root / "a.csv")


def csv_of_a_pipe(root: Path) -> str:
    (root / "a.jsonl").write_text('{"file_name": "/dev/zero"}\n{"file_name": "/etc"}')
    return str(root / "a.jsonl")


def name_with_nul(root: Path) -> str:
    (root / "a.jsonl").write_text('{"file_name": "a\\u0000b\\n.png"}')
    return str(root / "a.jsonl")


def jsonl_broken(root: Path) -> str:
    (root / "a.jsonl").write_text('{"file_name": "0.png"}\n{"file_name":')
    return str(root / "a.jsonl")


def odd_folder_name(root: Path) -> str:
    """A line break and an undecodable byte in the folder's own name."""
    folder = root / "a\nb\udcff"
    folder.mkdir()
    (folder / "0.png").write_bytes(picture(0))
    (folder / "metadata.csv").write_text("file_name,text\n0.png,a,b\n")
    return str(folder)


def jsonl_missing(root: Path) -> str:
    return str(root / "nothing.jsonl")


ERRORS: dict[Callable[[Path], str], str] = {
    truncated: "no whole tar archive (unexpected end of data)",
    cut_between: "cut off or damaged at byte",
    damaged: "cut off or damaged at byte",
    negative_length: "damaged at byte",
    nested_long_names: "no whole tar archive",
    compressed: "a.tar is compressed, so nothing in it can be found by its place; gunzip it first",
    not_a_tar: "no whole tar archive",
    empty_file: "no whole tar archive",
    empty_shard: "no pictures in",
    no_pictures: "no pictures in",
    duplicate_in_sample: "0.txt twice",
    duplicate_pictures: "0.png again, already in",
    duplicates_over_shards: "b.tar: 1.png again, already in",
    bad_json: "1.json is not valid JSON",
    deep_json: "1.json is not valid JSON",
    json_list: "1.json is not a JSON object",
    text_no_utf8: "1.txt is not UTF-8 text",
    json_text_number: "text is 5",
    missing_shards: "2 of the 5 shards of",
    backward_pattern: "{004..000} should count up",
    endless_pattern: "should count up, to at most 100,000 shards",
    pattern_of_nothing_known: "no folder",
    splits_of_shards: "holds the splits test, train",
    shard_lost_from_pack: "b.tar is not there, and the manifest beside it names it",
    shard_of_pack_cut: "99 by the manifest",
    missing_tar: "nothing.tar",
    folder_named_tar: "1 of the 2 shards",
    csv_all_missing: "none of the 2 pictures in",
    csv_no_column: "line 1: no column file_name (the header has path, text)",
    csv_empty: "names no pictures",
    csv_of_a_pipe: "/dev/zero: not a regular file",
    name_with_nul: "a\\x00b\\n.png",
    jsonl_broken: "a.jsonl line 2: not valid JSON",
    odd_folder_name: "a\\nb\\udcff/metadata.csv line 2: more cells",
    jsonl_missing: "no folder",
}


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case.__name__)
def test_errors_are_one_line(tmp_path: Path, case: Callable[[Path], str]) -> None:
    told = line(case(tmp_path))
    assert ERRORS[case] in told, told


def test_damaged_bytes_anywhere_in_a_shard(tmp_path: Path) -> None:
    """300 shards with bytes overwritten, cut or repeated at random: an error of ours or a set, never anything else."""
    members = [
        (f"{'long' * 40 * (k % 2)}/{k}.{e}", r)
        for k in range(3)
        for e, r in (("png", picture(k)), ("json", b'{"a": 1}'))
    ]
    whole = make_tar(tmp_path / "whole.tar", members).read_bytes()
    rng, outcomes = random.Random(0), {True: 0, False: 0}
    path = tmp_path / "a.tar"
    for _ in range(300):
        raw = bytearray(whole)
        for _ in range(rng.randrange(1, 8)):
            at = (
                rng.randrange(len(raw))
                if rng.random() < 0.5
                else rng.randrange(len(raw) // 512) * 512 + rng.randrange(257)
            )
            raw[at] = rng.randrange(256)
        if rng.random() < 0.2:
            del raw[rng.randrange(len(raw)) :]
        path.write_bytes(raw)
        try:
            for record in open_records(str(path)):
                record.read()
            outcomes[True] += 1
        except SfumatoError as error:
            assert str(error).isprintable() and len(str(error)) < 600
            outcomes[False] += 1
    assert min(outcomes.values()) > 20, outcomes


def test_members_that_are_no_plain_files(tmp_path: Path) -> None:
    """Links, devices, pipes, names that lead out: skipped with the reason; nothing is written, the good one stays."""
    path = make_tar(
        tmp_path / "a.tar", [("good.png", picture(0)), ("../out.png", picture(1)), ("/abs.png", picture(2))]
    )
    with tarfile.open(path, "a") as tar:
        for name, kind in (("sym.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("null.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        fifo = tarfile.TarInfo("pipe.png")
        fifo.type = tarfile.FIFOTYPE
        tar.addfile(fifo)
    loaded = data.open(path, size=8)
    assert loaded.keys == ("good.png",)
    assert {s["file"]: s["reason"] for s in loaded.summary()["skipped"]} == {
        "../out.png": "its name leads out of the archive",
        "/abs.png": "its name leads out of the archive",
        "sym.png": "a link, not a picture",
        "hard.png": "a link, not a picture",
        "null.png": "not a regular file",
        "pipe.png": "not a regular file",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_pictures_that_cannot_be_decoded_in_a_shard(tmp_path: Path) -> None:
    members = [
        ("0.png", picture(0)),
        ("1.png", b""),
        ("2.jpg", b"hello"),
        ("3.png", picture(3)[:200]),
        (".4.png", b"hidden"),
    ]
    loaded = data.open(make_tar(tmp_path / "a.tar", members), size=8)
    reasons = {s["file"]: s["reason"] for s in loaded.summary()["skipped"]}
    assert loaded.keys == ("0.png",) and reasons.keys() == {"1.png", "2.jpg", "3.png"}
    assert reasons["1.png"] == "empty file (0 bytes)" and reasons["2.jpg"] == "not a picture that Pillow can read"


def test_captions_without_a_picture_and_captions_of_a_megabyte(tmp_path: Path) -> None:
    members = [
        ("0.png", picture(0)),
        ("0.txt", b"cat"),
        ("1.txt", b"ghost"),
        ("2.png", picture(2)),
        ("2.txt", b"x" * 2**21),
    ]
    loaded = data.open(make_tar(tmp_path / "a.tar", members), size=8)
    assert loaded.captions == ["cat", ""]
    told = loaded.summary()
    assert told["rows_without_picture"] == {"count": 1, "first": ["1"]}
    assert told["skipped"] == [{"file": "2.txt", "reason": "over 1 MiB: no caption or row"}]


def test_a_shard_that_shrinks_or_goes_after_it_was_opened(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", GOOD)
    records = open_records(str(path))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(Exception, match="has become shorter"):
        records[1].read()
    path.unlink()
    with pytest.raises(Exception, match="cannot be read .No such file"):
        records[0].read()
