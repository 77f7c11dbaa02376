"""What a plan takes of findings, and what of a table it leaves as it was."""

from __future__ import annotations

import csv

from sfumato.data.audit.finding import Finding
from sfumato.data.clean.plan import check_plan, make_plan
from sfumato.data.clean.rewrite import rewrite_table


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
