"""Words drawn into pictures: what is held out, what can be read, how captions spell, and the readers that judge."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch

from sfumato.core import Cond, SfumatoError, Slot
from sfumato.data import encode, fonts, lettering, open_as, text, words
from sfumato.data.english import ENGLISH
from sfumato.measure import reader
from sfumato.train import pick_recipe

N = 2000


@pytest.fixture(scope="module")
def source():
    return words.load(n=N)


def shown(source, rows) -> set[str]:
    return {source.groups[k] for k in rows.tolist()}


def pairs_of(some: set[str]) -> set[str]:
    return {w[k : k + 2] for w in some for k in range(len(w) - 1)}


def test_no_held_out_word_and_no_held_out_pair_is_trained_on(source) -> None:
    train, held = source.train_index, source.holdout
    assert set(held) == {"words", "pairs"}
    assert sorted([*train.tolist(), *source.validation_index.tolist()]) == list(range(N))
    learned = shown(source, train)
    assert not learned & shown(source, held["words"]) and not learned & shown(source, held["pairs"])
    table = words.held_pairs()
    never = {a + b for i, a in enumerate(words.SIGNS) for j, b in enumerate(words.SIGNS) if table[i, j]}
    assert 0.03 < len(never) / 36**2 < 0.07
    assert not pairs_of(learned) & never and not pairs_of(shown(source, held["words"])) & never
    assert all(pairs_of({w}) & never for w in shown(source, held["pairs"]))
    assert len(held["words"]) == len(held["pairs"]) == N // 20
    assert len({w[0] for w in learned}) == 36  # nothing else is missing: every letter and digit begins a word


def test_a_source_of_some_rows_holds_out_the_same_words(source) -> None:
    part = source.take(torch.arange(0, N, 3))
    for name, rows in part.holdout.items():
        assert shown(part, rows) <= shown(source, source.holdout[name])


def test_a_row_is_the_same_in_a_longer_set_alone_and_in_any_order(source) -> None:
    longer = words.load(n=N + 500)
    assert longer.captions[:N] == source.captions
    rows = torch.tensor([7, 3, 1999, 3])
    pictures = source.images(rows)
    longer.expect(torch.tensor([5, 1999]))
    assert np.array_equal(longer.images(torch.tensor([1999]))[0], pictures[2])
    assert np.array_equal(pictures[1], pictures[3]) and not np.array_equal(pictures[0], pictures[1])
    assert words.load(seed=1, n=40).captions != source.captions[:40]
    assert words.load(seed=1, n=40).fingerprint != words.load(n=40).fingerprint


def test_captions_name_word_style_and_colours(source) -> None:
    for k in range(200):
        look, word = source.pixels.records.look(k), source.pixels.records.words[k]
        assert source.captions[k].startswith(f'the word "{word}" in ')
        assert f" {look.colour} on " in source.captions[k] and look.ground in source.captions[k]
        assert (" bold " in source.captions[k]) == look.face.bold
        assert 1 <= len(word) <= 8 and word.lower() == source.groups[k]
        assert word in (word.lower(), word.upper(), word.capitalize())


def test_every_picture_is_legible_and_lies_within_the_frame(source) -> None:
    """Drawn again in black on white with the same numbers: ink keeps off the frame, and every letter's colour is apart."""
    records = source.pixels.records
    least = []
    for k in range(300):
        look = records.look(k)
        placed = lettering.place(records.words[k], look, (32, 64), np.random.default_rng((0, k)))
        letters, sign = lettering.coverage(placed, look, (32, 64))
        assert letters.max() == 1.0 and max(letters[0].max(), letters[-1].max()) < 0.05, records.words[k]
        assert max(letters[:, 0].max(), letters[:, -1].max()) < 0.05, records.words[k]
        if sign is not None:
            assert sign[letters > 0.2].min() > 0.8, "letters lie on their sign"
        picture = records.draw(k, (32, 64)).astype(float)
        full, empty = letters > 0.99, (letters < 0.01) & (sign is None or sign > 0.99)
        around = picture[empty] if empty.any() else picture[letters < 0.01]
        least.append(lettering.contrast(picture[full].mean(0), around).min())
        height = np.flatnonzero(letters.max(1) > 0.5)
        assert height[-1] - height[0] >= 3
    assert min(least) > 0.9 * lettering.LEAST


def test_characters_stand_where_they_are_said_to_stand() -> None:
    """In each character's span the ink has its middle where that of the character alone would have it."""
    for face in [f for f in fonts.faces() if not f.italic][:8]:
        look = lettering.Look(face, "black", "plain", "white", "white")
        for word in ("Wild", "xoxo", "mining"):
            placed = lettering.place(word, look, (64, 128), np.random.default_rng(len(word)))
            placed = dataclasses.replace(placed, turn=0.0)
            letters = lettering.coverage(placed, look, (64, 128))[0]
            found, inked = lettering.spans(word, look, placed), np.flatnonzero(letters.max(0) > 0.3)
            scale = placed.size[0] / 2 / placed.ink.shape[1]
            assert (found[1:, 0] == found[:-1, 1]).all()
            for k, character in enumerate(word):  # alone, with the pen where the span begins
                alone, start = fonts.ink_from(face.font, character)
                left = found[k, 0] + start * scale
                expected = left + scale * (alone.sum(0) @ (np.arange(alone.shape[1]) + 0.5)) / alone.sum()
                first, last = max(0, int(found[k, 0] + 0.5)), int(found[k, 1] + 0.5)
                columns = letters[:, first:last].sum(0)
                assert abs(columns @ (np.arange(first, last)[: len(columns)] + 0.5) / columns.sum() - expected) < 1.5
            assert abs(found[0, 0] + placed.start * scale - inked[0]) < 1.5


def test_colours_of_a_look_are_apart_by_name(source) -> None:
    for k in range(500):
        look = source.pixels.records.look(k)
        one, ground, second = (np.array(lettering.COLOURS[n]) for n in (look.colour, look.ground, look.second))
        assert lettering.contrast(one, ground) >= lettering.APART
        if look.kind == "fading":
            assert lettering.contrast(one, second) >= lettering.APART
        if look.kind in ("sign", "label"):
            assert look.second != look.ground
    assert lettering.contrast(np.zeros(3), np.full(3, 255)) == pytest.approx(21)  # the bound of WCAG 2.1
    assert {source.pixels.records.look(k).kind for k in range(500)} == set(words.KINDS)


def test_fonts_are_readable_and_a_font_of_other_signs_is_refused(tmp_path) -> None:
    faces = fonts.faces()
    assert faces[0].family == "Aileron" and len({(f.family, f.style) for f in faces}) == len(faces)
    usual = fonts._glyphs(faces[0].font)
    assert fonts.readable(faces[0].font, usual)
    assert not fonts.readable(faces[0].font, usual[::-1]), "every letter looks like another one"
    (tmp_path / "broken.ttf").write_bytes(b"\0\1\0\0 no font")
    assert fonts._opened(tmp_path / "broken.ttf") is None


def test_english_words_are_plain_and_short() -> None:
    assert len(ENGLISH) > 1000 and all(w.isascii() and w.islower() and 1 <= len(w) <= 8 for w in ENGLISH)


def test_sizes_of_words(source, monkeypatch) -> None:
    assert source.shapes == ((32, 64),) and source.codec.spec == (3, 32, 64)
    with pytest.raises(SfumatoError, match="--size 32"):
        words.load(16)
    assert words.load(48, n=3).images(torch.arange(3)).shape == (3, 48, 96, 3)
    monkeypatch.setattr(words, "load", functools.partial(words.load, n=N))  # the whole set takes seconds
    again = open_as("words", {"height": 32, "width": 64, "channels": 3, "shapes": [[32, 64]]})
    assert again.captions == source.captions and again.shapes == source.shapes
    with pytest.raises(SfumatoError, match="twice as wide"):
        open_as("words", {"height": 32, "width": 48, "channels": 3, "shapes": [[32, 48]]})


def test_quoted_text_is_spelled_by_character_and_place() -> None:
    assert text.words('the word "Ab" here') == ["the", "word", '"A|0|1', '"b|1|0', "here"]
    assert text.words("a “No” sign") == ["a", '"N|0|1', '"o|1|0', "sign"]
    assert text.words('a 5" pipe and a 7" one') == ["a", "5", '"', "pipe", "and", "a", "7", '"', "one"]
    assert text.words(f'"{"x" * 65}"') == ['"', "x" * 65, '"']
    ids, mask = encode(['"abca"'])
    assert mask.sum() == 4 and (ids[0, :, 0] == torch.tensor([text.features(f'"{c}|0|0')[0] for c in "abca"])).all()
    assert len({tuple(row) for row in ids[0].tolist()}) == 4, "the same letter at two places is two tokens"
    # of the same letter, only the places differ; from the end, the last letters of any two words agree
    other = encode(['"xyzza"'])[0]
    assert other[0, -1, 0] == ids[0, -1, 0] and other[0, -1, 2] == ids[0, -1, 2] and other[0, -1, 1] != ids[0, -1, 1]


def test_no_two_characters_places_or_caption_words_share_an_id(source) -> None:
    spelled = {f"character {c}": text.features(f'"{c}|0|0')[0] for c in fonts.CHARACTERS}
    for k in range(words.LETTERS):
        spelled[f"place {k}"], spelled[f"from the end {k}"] = text.features(f'"a|{k}|{k}')[1:]
    plain = {w for c in source.captions for w in text.words(c) if w[0] != '"'}
    spelled |= {w: text.features(w)[0] for w in plain}
    assert len(set(spelled.values())) == len(spelled)


def test_the_recipe_reads_the_letters_and_the_words(source) -> None:
    recipe = pick_recipe("words", 32)
    assert all(
        height % recipe.net.multiple == 0 and width % recipe.net.multiple == 0 for height, width in source.shapes
    )
    net = dataclasses.replace(recipe.net, widths=(16, 16, 16), blocks=(1, 1, 1))
    recipe = dataclasses.replace(recipe, net=net).fit_to(source)
    denoiser = recipe.build()
    with torch.no_grad():
        for p in denoiser.parameters():  # gates and heads begin at zero
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
        x, t = torch.zeros(2, 3, 32, 64), torch.full((2,), 0.5)
        ids, mask = encode(['the word "abc" in red on white', 'the word "acb" in red on white'])
        one, other = denoiser(x, t, Cond({"text": Slot(ids, "tokens", mask)})).x0
    assert (one - other).abs().max() > 1e-4


def test_edit_distances_of_known_words() -> None:
    cases = {("kitten", "sitting"): 3, ("", "abc"): 3, ("abc", ""): 3, ("same", "same"): 0, ("ab", "ba"): 2}
    assert all(reader.distance(*k) == v == reader.distance(*k[::-1]) for k, v in cases.items())


def test_agreement_counts_words_letters_and_edits() -> None:
    found = reader.agreement(["Cat", "dog", "bxrd", ""], ["cat", "dog", "bird", "ox"])
    assert found == {"exact": 0.25, "letters": 0.5, "cer": (1 + 0 + 1 + 2) / 12, "n": 4}
    with pytest.raises(ValueError):
        reader.agreement([], [])
    assert reader.asked('the word "Hi" in red') == "Hi"
    with pytest.raises(SfumatoError, match="quotation"):
        reader.asked("no word")


def test_a_reader_learns_is_kept_and_reads_alike(source, tmp_path) -> None:
    rows = source.train_index[:32]
    lessons = list(reader.teach(source, rows, steps=5, batch=4))
    assert lessons[-1].loss < lessons[0].loss
    x0 = source.batch(rows[:4]).x0
    reader.keep(lessons[-1].reader, tmp_path / "reader.safetensors", {"steps": 12})
    assert reader.load(tmp_path / "reader.safetensors").read(x0) == lessons[-1].reader.eval().read(x0)
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(SfumatoError, match="delete it"):
        reader.load(tmp_path / "torn.safetensors")


def test_reading_joins_repeats_and_keeps_doubles_that_are_apart() -> None:
    """A network that says a-a-none-a-b: what is read is "aab"."""

    class Says(reader.Reader):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            columns = [0, 0, reader.NONE, 0, 1]
            return torch.nn.functional.one_hot(torch.tensor(columns), 63).float()[:, None].expand(-1, len(x), -1)

    assert Says().read(torch.zeros(2, 3, 32, 64)) == ["aab", "aab"]


def test_what_stands_at_each_place_spells_the_word(source) -> None:
    """The targets of the reader, read as its answers are: the word itself."""

    class Says(reader.Reader):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(targets.T, 63).float()

    rows = source.train_index[:250]
    targets = torch.stack([reader.named(source, k, 128) for k in rows.tolist()])
    words_asked = [reader.asked(source.captions[k]) for k in rows.tolist()]
    assert reader.agreement(Says().read(torch.zeros(250, 3, 32, 64)), words_asked)["exact"] > 0.99
    later = source.take(rows[100:])
    assert torch.equal(reader.named(later, 3, 128), targets[103])


def test_the_ocr_reads_large_plain_words() -> None:
    read = reader.ocr()
    look = lettering.Look(fonts.faces()[0], "black", "plain", "white", "white")
    some = ["hello", "WORLD", "2026"]
    pictures = np.stack([lettering.draw(w, look, (32, 64), np.random.default_rng(k)) for k, w in enumerate(some)])
    x0 = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    assert reader.agreement(read(x0), some)["cer"] < 0.2
    assert reader.agreement(read(x0.flip(3)), some)["exact"] == 0, "mirrored words are not read"
