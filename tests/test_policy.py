"""The policy: whose style is asked for and who is only spoken of, words, the owner's own rules, the command."""

from __future__ import annotations

import json
import random
import time

import pytest
from PIL import Image

from benchmarks.policy import asking, disguised, harmless, misspelled
from sfumato.cli import main
from sfumato.core import SfumatoError
from sfumato.serve.policy import OWN, Rules, check, check_picture, rules
from sfumato.serve.wording import sound, squeezed, words_of

RULES = rules()
ARTISTS = RULES.told["artists"]


def refused(prompt: str) -> str | None:
    """The rule that refuses, or None."""
    return check(prompt, RULES).rule


@pytest.mark.parametrize(
    "prompt,word",
    [
        ("a castle in the style of Greg Rutkowski", "Greg Rutkowski"),
        ("a castle, oil on canvas, greg rutkowski, 8k", "greg rutkowski"),
        ("castle by Gerg Rutkowsky", "Gerg Rutkowsky"),
        ("a pool by Dávid Hockney", "Dávid Hockney"),
        ("a pool, Hockney-esque", "Hockney"),
        ("a pool, Hockneyesque", "Hockneyesque"),
        ("a Hockney painting of a pool", "Hockney"),
        ("a pool in Hockney's late painting style", "Hockney"),
        ("ein Hund im Stil von Gerhard Richter", "Gerhard Richter"),
        ("un perro al estilo de Yayoi Kusama", "Yayoi Kusama"),
        ("un chien dans le style d'Enki Bilal", "Enki Bilal"),
        ("cane nello stile di Maurizio Cattelan", "Maurizio Cattelan"),
        ("собака в стиле Грег Рутковский", "Грег Рутковский"),
        ("宮崎駿風の村", "宮崎駿"),
        ("a wall by B a n k s y", "B a n k s y"),
        ("a wall by B.a.n.k.s.y", "B.a.n.k.s.y"),
        ("a wall in the style of B4nk5y", "B4nk5y"),
        ("wall art by Ваnkѕy", "Ваnkѕy"),
        ("wall art by 𝗕𝗮𝗻𝗸𝘀𝘆", "𝗕𝗮𝗻𝗸𝘀𝘆"),
        ("wall by Bansky", "Bansky"),
        ("a wall in the style of Rembrandt and Banksy", "Banksy"),
        ("a cat, painted by Sherman, Cindy", "Sherman, Cindy"),
        ("a_cat_in_the_style_of_greg_rutkowski", "greg_rutkowski"),
        ("bygregrutkowski", "bygregrutkowski"),
        ("inspired by the famous British painter David Hockney", "David Hockney"),
        ("a street as David Hockney would paint it", "David Hockney"),
        ("Greg Rutkowski", "Greg Rutkowski"),
        ("(greg rutkowski:1.2), a castle", "greg rutkowski"),
        ("by G. Rutkowski", "G. Rutkowski"),
        ("a junji ito manga page of a cat", "junji ito"),
        ("draw it like Bill Watterson", "Bill Watterson"),
        ("make a picture that looks like a Banksy", "Banksy"),
        ("a blend of Hockney and Picasso", "Hockney"),
    ],
)
def test_the_style_of_a_living_artist_is_refused_by_rule_and_word(prompt: str, word: str) -> None:
    verdict = check(prompt, RULES)
    assert (verdict.allowed, verdict.rule, verdict.word) == (False, "artists", word)
    assert verdict.stage == "input" and verdict.categories == ("living-artist",) and word in verdict.message


@pytest.mark.parametrize(
    "prompt",
    [
        "a castle in the style of Claude Monet",
        "a castle by Andrew Wyeth",  # a living Wyeth stands in the list
        "a castle in the style of Hans Richter",
        "van Gogh style, swirling",
        "a photo of Hockney sitting",
        "David Hockney painting a wall",
        "a portrait of David Hockney, oil on canvas",
        "a house by the sea, David Hockney in front of it",
        "a portrait of a banker named Banks",
        "in the style of banks",
        "by Emily Banks",
        "in the style of Tom Walker",  # not Tim
        "a dress by Emily Hockney",
        "Emily Hockney's style",
        "Victorian style, a fairy style dress, a suite in feng shui style",
        "the wolf by the river, a stone by the wood",
        "a picturesque village with a childlike, dreamlike sky",
        "a dog owned by David Hockney",
        "passing by Peter Lane",  # not Peter Laird
        "an interview with Banksy, a poster for the Hockney exhibition",
        "ein Foto von David Hockney",
        "",
        "   ",
        "😀 🎨",
    ],
)
def test_the_dead_the_mentioned_and_ordinary_words_pass(prompt: str) -> None:
    assert check(prompt, RULES).allowed, check(prompt, RULES)


@pytest.mark.parametrize(
    "prompt,rule",
    [
        ("a naked man", "words.sexual"),
        ("a NUDE", "words.sexual"),
        ("a n.u.d.e, a n*ude", "words.sexual"),
        ("n u d e", "words.sexual"),
        ("nuuuude", "words.sexual"),
        ("p0rn", "words.sexual"),
        ("a decapitated king", "words.violence"),
        ("he is cutting himself", "words.self-harm"),
        ("a crowd shouting sieg heil", "words.hate"),
        ("a sexy schoolgirl", "words.sexual/minors"),
        ("a child, topless", "words.sexual/minors"),
        ("a portrait of Donald Trump", "figures"),
        ("Vladimir Putin on a horse", "figures"),
        ("a visit of barak obama", "figures"),
        ("a naked mole rat in its tunnel", None),
        ("a comet, visible to the naked eye", None),
        ("a naked man and a naked mole rat", "words.sexual"),
        ("a gore-tex jacket, Al Gore", None),
        ("Sussex, a sextant, a cockpit, a therapist, grape", None),
        ("the pen is on the table", None),
        ("a white power bank", None),
        ("a tiger, woods behind", None),
        ("put in a box", None),
        ("a king charles spaniel", None),
        ("a child with a kite", None),
    ],
)
def test_words_and_figures(prompt: str, rule: str | None) -> None:
    assert refused(prompt) == rule


def test_prompts_of_a_seeded_procedure() -> None:
    """A hundred of each here; all of them are counted by benchmarks/policy.py."""
    draw = random.Random(7)
    missed = [p for p in asking(ARTISTS, 100, draw) if refused(p) is None]
    wrong = [p for p in harmless(ARTISTS, 100, draw) if refused(p) is not None]
    assert len(missed) <= 2 and len(wrong) <= 2, (missed, wrong)


def test_the_procedure_really_misspells_and_hides() -> None:
    draw = random.Random(0)
    typed = {misspelled("Greg Rutkowski", draw) for _ in range(50)}
    assert len(typed) > 20 and "Greg Rutkowski" not in typed
    assert len({disguised("Greg Rutkowski", draw) for _ in range(50)}) > 6


def test_a_policy_that_is_blind_fails_the_procedure() -> None:
    blind = Rules({**RULES.told, "forms": {}})
    assert sum(check(p, blind).allowed for p in asking(ARTISTS, 20, random.Random(1))) > 10


def test_the_list_is_sound() -> None:
    living = [name for name, facts in ARTISTS.items() if "died" not in facts]
    assert len(living) > 500 and len(ARTISTS) - len(living) > 200
    for name, facts in ARTISTS.items():
        assert facts.get("born", 1900) > 1200 and facts.get("died", 9999) > facts.get("born", 0) + 20, name
        if "died" not in facts:
            assert facts.get("born", 1990) > 1920, name
    for name in living:
        for alias in (name, *ARTISTS[name].get("aliases", ())):
            assert refused(f"a house in the style of {alias}") == "artists" or not alias.isascii(), alias
    for name in set(ARTISTS) - set(living):
        assert refused(f"a house in the style of {name}") is None, name


def test_the_owner_changes_all_of_it(tmp_path) -> None:
    own = tmp_path / "own.json"
    own.write_text(
        json.dumps(
            {
                "artists": {"Greg Rutkowski": None, "Ada Example": {"born": 1990, "aliases": ["Exemplar"]}},
                "figures": None,
                "words": {"sexual": {"naked": None}, "brands": {"acme*": {"except": ["acme hill"]}}},
            }
        )
    )
    mine = rules(own)
    for prompt, rule in (
        ("by Greg Rutkowski", None),
        ("by Ada Exampel", "artists"),
        ("by Exemplar", "artists"),
        ("by Yayoi Kusama", "artists"),
        ("Donald Trump", None),
        ("a naked man", None),
        ("a nude", "words.sexual"),
        ("a box of acmetic", "words.brands"),
        ("a walk on acme hill", None),
    ):
        assert check(prompt, mine).rule == rule, prompt
    own.write_text('{"replace": true, "words": {"all": {"cat": {}}}}')
    alone = rules(own)
    assert check("by Banksy, a nude of Donald Trump", alone).allowed and check("a cat", alone).rule == "words.all"
    own.write_text('{"replace": true}')
    assert check("anything by Banksy", rules(own)).allowed


@pytest.mark.parametrize(
    "text,said",
    [
        ("{", "no JSON"),
        ("[]", "JSON object"),
        ('{"artist": {}}', "no part 'artist'"),
        ('{"artists": []}', "JSON object"),
        ('{"artists": {"A B": {"years": 3}}}', "born"),
        ('{"artists": {"A B": {"died": "1900"}}}', "born"),
        ('{"artists": {"!": {}}}', "born"),
        ('{"words": {"x": ["a"]}}', "except"),
        ('{"words": {"x": {"": {}}}}', "except"),
        ('{"words": {"x": {"a": {"excpt": []}}}}', "except"),
        ('{"together": {"x": [["a"], "b"]}}', "list of lists"),
        ('{"forms": {"en": {"before": "by"}}}', "lists of texts"),
        ('{"given": 3}', "given"),
        ('{"pictures": {"sexual": 2}}', "limit"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path, text: str, said: str) -> None:
    own = tmp_path / "own.json"
    own.write_text(text)
    with pytest.raises(SfumatoError, match=said) as error:
        rules(own)
    assert "\n" not in str(error.value) and "own.json" in str(error.value)
    with pytest.raises(SfumatoError, match="cannot read"):
        rules(tmp_path / "none.json")


def test_pictures_are_judged_by_a_classifier_of_the_owner() -> None:
    image = Image.new("RGB", (8, 8))
    assert check_picture(image, RULES, lambda _: {"sexual": 0.49, "other": 1.0}).allowed
    verdict = check_picture(image, RULES, lambda _: {"sexual": 0.5})
    assert (verdict.allowed, verdict.stage, verdict.categories) == (False, "output", ("sexual",))
    assert verdict.rule == "pictures.sexual" and "50%" in verdict.message


def test_how_a_prompt_is_read() -> None:
    assert [w.text for w in words_of("Ñandú  B.a.n.k.s.y, ＦＵＬＬ ﬁsh")] == ["nandu", "banksy", "full", "fish"]
    for word in words_of("die Straße, N\u200bu\u0301de"):
        assert "die Straße, N\u200bu\u0301de"[word.start : word.end].strip() != ""
    assert sound("rutkowsky") == sound("rutkovski") and sound("schiele") != sound("klimt")
    assert squeezed("nuuude") == "nude" and squeezed("book") == "book"


def test_a_long_prompt_takes_no_long_time() -> None:
    draw = random.Random(3)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(400)]
    began = time.process_time()
    assert check("by " + " by ".join(words), RULES).allowed
    assert check("by by " * 600, RULES).allowed and check("((((" * 900, RULES).allowed
    assert time.process_time() - began < 6
    with pytest.raises(SfumatoError, match="letters"):
        check("a" * 40_000, RULES)


def test_the_command(tmp_path, capsys) -> None:
    assert main(["policy", "check", "a castle by Banksy", "--json"]) == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["rule"] == "artists" and told["word"] == "Banksy" and not told["allowed"]
    assert main(["policy", "check", "a castle by Monet"]) == 0
    assert main(["policy", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == json.loads(OWN.read_text("utf-8"))
    assert main(["policy", "check"]) == 2 and main(["policy", "show", "x"]) == 2
    assert main(["policy", "check", "x", "--rules", str(tmp_path / "none")]) == 2
