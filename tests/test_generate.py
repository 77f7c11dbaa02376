"""What a user types to get pictures: the prompt line, its revision, the command."""

from __future__ import annotations

import dataclasses
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image
from training import tiny_trainer, told_source

import sfumato
from sfumato.cli import main
from sfumato.cli.models import _shipped
from sfumato.core import Cond, SfumatoError, Slot
from sfumato.data import encode
from sfumato.denoiser import UNetConfig
from sfumato.forward import RectifiedFlow
from sfumato.guide import cfg
from sfumato.tasks import Request, generate, load
from sfumato.tasks.asked import asked
from sfumato.tasks.chat import ask
from sfumato.tasks.prompt import Line, parse
from sfumato.tasks.receipt import fingerprint, receipt_in
from sfumato.tasks.revise import Reviser
from sfumato.tasks.shipped import find, listed
from sfumato.tasks.spelling import slips
from sfumato.train import Run, fit, write_card

CAPTIONS = (
    "red apple, fruit, food, red and green, flat style",
    "strawberry, berry, fruit, red, glossy style",
    "police car, vehicle, blue and white, flat style",
    "owl, bird, animal, brown, glossy style",
)


def test_options_are_read_behind_the_text() -> None:
    line = "a red apple --ar 3:2 --no leaf, stem --seed 7 --chaos 20 --stylize 250 --style flat --n 2"
    assert parse(line) == (Line("a red apple", (3, 2), 7, "leaf, stem", 20, 250, "flat", 2),)
    assert parse("plain words - and a--dash") == (Line("plain words - and a--dash"),)


def test_choices_in_braces_stand_for_all_their_combinations() -> None:
    found = [line.text for line in parse("a {red, blue} {apple,car} --seed {1,2}")]
    assert found == [f"a {c} {t}" for c in ("red", "blue") for t in ("apple", "car") for _ in (1, 2)]
    assert [line.seed for line in parse("x --seed {1,2}")] == [1, 2]
    assert parse("a \\{b\\}")[0].text == "a {b}"
    assert parse("a --s 5 --c 9 --aspect 1:2") == (Line("a", ar=(1, 2), chaos=9, stylize=5),)


@pytest.mark.parametrize(
    "line,said",
    [
        ("a --sed 3", "did you mean --seed"),
        ("a --ar 3", "width:height"),
        ("a --ar 0:2", "width:height"),
        ("a --ar 99:1", "width:height"),
        ("a --seed x", "whole number"),
        ("a --seed -1", "whole number"),
        ("a --chaos 101", "0 to 100"),
        ("a --stylize 1001", "0 to 1000"),
        ("a --n 0", "1 to 1000"),
        ("a --no", "needs words"),
        ("a --seed 1 --seed 2", "twice"),
        ("a {b", "brace"),
        ("a b}", "brace"),
        ("{a,b,c,d,e,f,g} {a,b,c,d,e,f,g}", "49 prompts"),
    ],
)
def test_a_wrong_prompt_line_is_told_in_one_line(line: str, said: str) -> None:
    with pytest.raises(SfumatoError, match=said) as error:
        parse(line)
    assert "\n" not in str(error.value)


def test_spelling_is_mended_towards_known_words_only() -> None:
    reviser = Reviser(CAPTIONS)
    mended = reviser.revise("a Strawbery with an owl and a zeppelin and a castle and a tower")
    assert mended.text == "a strawberry with an owl and a zeppelin and a castle and a tower"
    assert len(mended.reasons) == 1 and "strawbery" in mended.reasons[0]
    everyday = Reviser(
        ("sake", "hose", "pint", "plane", "badge", "timer", "warning", "green apple", "banana", "hospital")
    )
    for real in ("a snake in a house", "paint a planet", "planes badger timber", "wearing", "ban", "x" * 100_000):
        assert everyday.revise(real).reasons == ()
    for slip, right in (("gren", "green"), ("bannana", "banana"), ("hopsital", "hospital"), ("hospitel", "hospital")):
        assert everyday.revise(f"a {slip}!").text.startswith(f"a {right}!")
    assert [slips("ca", "ac"), slips("kitten", "sitting"), slips("", "abc"), slips("same", "same")] == [1, 3, 3, 0]
    assert reviser.revise("apples and owls and towers and castles and boats").reasons == ()


def test_a_short_prompt_is_completed_from_the_nearest_caption_and_keeps_its_own_colour() -> None:
    reviser = Reviser(CAPTIONS)
    done = reviser.revise("a blue apple")
    assert done.text.startswith("a blue apple, ") and "fruit" in done.text and "red" not in done.text
    assert "style" not in done.text and done.reasons
    assert reviser.revise("owl in flat style").text == "owl in flat style, bird, animal"
    apples = Reviser(("green apple, fruit, tree, green", "red apple, red, tree, fruit"))
    assert apples.revise("an apple").text == "an apple, fruit, tree"  # which colour is left to chance
    assert {apples.revise("apple", u).text for u in (0.1, 0.6)} == {
        "apple, fruit, tree, green",
        "apple, red, tree, fruit",
    }
    for other in ("a xylophone", "a car", "an owl with an apple", "a happy owl"):  # no caption is of just that
        assert reviser.revise(other).text == other
    for same in ("", "ein Apfel", "un pajaro", "the quick red fox jumps over lazy dogs today", "word " * 5000):
        assert reviser.revise(same).text == same


class _Chat(BaseHTTPRequestHandler):
    answer = b""
    seen: list[dict] = []

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.seen.append(
            {"path": self.path, "key": self.headers["Authorization"], **json.loads(self.rfile.read(length))}
        )
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_) -> None:
        pass


def test_a_chat_endpoint_may_revise_and_its_nonsense_is_an_error(monkeypatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Chat)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("SFUMATO_REVISE_KEY", "secret")
    try:
        _Chat.answer = json.dumps({"choices": [{"message": {"content": ' "a shiny apple" '}}]}).encode()
        assert ask(url, "apple", CAPTIONS).text == "a shiny apple"
        asked = _Chat.seen[-1]
        assert asked["path"] == "/v1/chat/completions" and asked["key"] == "Bearer secret"
        assert asked["messages"][1]["content"] == "apple" and CAPTIONS[3] in asked["messages"][0]["content"]
        for nonsense in (b"", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": ""}}]}', b"\xff"):
            _Chat.answer = nonsense
            with pytest.raises(SfumatoError):
                ask(url, "apple", CAPTIONS)
    finally:
        server.shutdown()
        server.server_close()
    for wrong in (url, "ftp://host", "file:///etc/passwd", "no address"):
        with pytest.raises(SfumatoError):
            ask(wrong, "apple", CAPTIONS)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A captioned model of two styles, hardly trained."""
    source = told_source(CAPTIONS)
    net = UNetConfig(patch=2, widths=(8, 16), blocks=(1, 1), embedding=16, attention=(1,), head=8)
    trainer = tiny_trainer(steps=3, source=source, net=net)
    made = Run(tmp_path_factory.mktemp("generate") / "run")
    made.begin(trainer.recipe, source, trainer.budget, trainer.setting)
    for _ in fit(made, trainer):
        pass
    write_card(made)
    return made.path


def told(capsys) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_a_sentence_becomes_a_grid_of_four_and_single_files(run: Path, tmp_path: Path, capsys) -> None:
    arguments = ["generate", "strawbery --seed 3", "--model", str(run), "--style", "flat", "--steps", "2", "--json"]
    assert main([*arguments, "--out", str(tmp_path / "a.png")]) == 0
    (one,) = told(capsys)["pictures"]
    assert one["revised_prompt"].startswith("strawberry, ") and one["reasons"] and one["seed"] == 3
    assert Image.open(one["grid"]).size[0] > 2 * 16 and len(one["files"]) == 4
    marked = receipt_in(Path(one["files"][2]))
    assert marked["ai_made"] and marked["picture"] == 2 and marked["asked"] == "strawbery"
    assert marked["weights"] == fingerprint(load(run)) and marked["model"] == "run"
    assert marked["request"]["prompt"] == one["revised_prompt"] and marked["request"]["style"] == "flat"
    again = load(run).generate(n=1, first=2, seed=3, steps=2, style="flat", prompt=one["revised_prompt"], guidance=3.0)
    assert list(again.images[0].getdata()) == list(Image.open(one["files"][2]).getdata())
    assert main([*arguments, "--no-revise", "--out", str(tmp_path / "b")]) == 0
    (other,) = told(capsys)["pictures"]
    assert other["revised_prompt"] == "strawbery" and other["reasons"] == [] and Path(other["grid"]).parent.name == "b"


def test_choices_shapes_chaos_and_what_should_not_be_seen(run: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = "{owl,car} --ar 2:1 --no red --chaos 100 --seed 1"
    assert main(["generate", line, "--model", str(run), "--n", "3", "--steps", "2", "--json"]) == 0
    both = told(capsys)["pictures"]
    assert [p["prompt"] for p in both] == ["owl", "car"] and len(both[0]["files"]) == 3
    width, height = Image.open(both[0]["files"][0]).size
    assert 1.6 < width / height < 2.4
    assert not Path(both[0]["grid"]).is_absolute() and Path(both[0]["grid"]).is_file()


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["a", "--n", "0"], "1 to 1000"),
        ([""], "say what to draw"),
        (["  --seed 3"], "say what to draw"),
        (["a", "--style", "flt"], "did you mean 'flat'"),
        (["a", "--size", "15x16"], "multiples of"),
        (["a", "--size", "big"], "width x height"),
        (["a", "--size", "0x0"], "multiples of"),
        (["a", "--steps", "0"], "at least 1 step"),
        (["a", "--chaos", "-1"], "--chaos takes"),
        (["a", "--stylize", "2000"], "--stylize takes"),
        (["a", "--seed", "-4"], "--seed takes"),
        (["a", "--no", "b", "--guidance", "1"], "guidance above 1"),
        (["a", "--out", "x.jpg"], ".png"),
        (["word " * 30_000], "20,000 words"),
        (["a --sty flat"], "did you mean --style"),
        (["a", "--size", "256x256"], "16 times"),
        (["a", "--revise", "ftp://host"], "--revise takes"),
        (["a", "--revise", "http://[host"], "--revise takes"),
        (["a", "--guidance", "nan"], "guidance is a number"),
        (["a", "--out", "/proc/nowhere/x.png"], "/proc/nowhere"),
    ],
)
def test_wrong_requests_are_told_in_one_line(run: Path, arguments: list[str], said: str, capsys) -> None:
    assert main(["generate", *arguments, "--model", str(run)]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert said in errors[-1]


def test_a_model_that_is_not_there_is_told_in_one_line(tmp_path: Path, capsys) -> None:
    for name, said in (
        ("nowhere", "see 'sfumato models'"),
        (str(tmp_path), "no run.json"),
        (__file__, "no Sfumato model"),
    ):
        assert main(["generate", "a", "--model", name]) == 2
        errors = capsys.readouterr().err.strip().splitlines()
        assert len(errors) == 1 and (said in errors[0] or "cannot be read" in errors[0])
    if not listed():
        assert main(["generate", "a red apple"]) == 2
        errors = capsys.readouterr().err.strip().splitlines()
        assert len(errors) == 1 and "train one" in errors[0] and "--model" in errors[0]
    assert main(["models", str(tmp_path / "none")]) == 2


def test_python_draws_what_the_command_draws(run: Path, tmp_path: Path, capsys) -> None:
    arguments = ["generate", "owl --seed 4 --ar 2:1", "--model", str(run), "--n", "2", "--json"]
    assert main([*arguments, "--out", str(tmp_path / "o.png")]) == 0
    (one,) = told(capsys)["pictures"]
    assert any("may look worse" in warning for warning in one["warnings"])
    result = sfumato.generate("owl --ar 2:1 --seed 9", run, seed=4, n=2)
    assert [list(i.getdata()) for i in result.images] == [list(Image.open(f).getdata()) for f in one["files"]]
    assert len(sfumato.generate("owl", load(run), revise=False).images) == 4
    with pytest.raises(SfumatoError, match="2 prompts"):
        sfumato.generate("{owl,car}", run)
    with pytest.raises(SfumatoError, match="1000"):
        sfumato.generate("owl", run, n=0)


def test_a_style_that_the_prompt_names_is_the_style_that_is_drawn(run: Path) -> None:
    model = load(run)
    drawn = asked(model, Line("an owl in flat style", seed=1))
    assert drawn.request.style == "flat" and any("'flat'" in reason for reason in drawn.reasons)
    assert asked(model, Line("an owl in flat style", seed=1), revise=False).request.style is None
    assert asked(model, Line("an owl in flat style", seed=1, style="glossy")).request.style == "glossy"
    reviser = Reviser(CAPTIONS)
    assert reviser.style("a car, glossy style", ("a", "b"), (0, 1, 0, 1)) == "b"
    assert reviser.style("flat style or glossy style", ("a", "b"), (0, 1, 0, 1)) is None
    assert reviser.style("flat style", ("a", "b"), (0, 1, 1, 1)) is None  # a phrase of two styles tells none
    assert reviser.style("a flat tyre", ("a", "b"), (0, 1, 0, 1)) is None


def test_chaos_and_stylize_do_what_they_say(run: Path) -> None:
    model = load(run)
    many = CAPTIONS + tuple(f"red apple, thing{k}, sort{k}, kind{k}, flat style" for k in range(20))
    model = dataclasses.replace(model, facts={**model.facts, "captions": many, "caption_styles": []})

    def told_of(chaos: int) -> set[str]:
        request = asked(model, Line("apple", seed=2, n=12, chaos=chaos)).request
        return {request.prompt} if isinstance(request.prompt, str) else set(request.prompt)

    assert len(told_of(0)) == 1 < len(told_of(30)) < len(told_of(100))
    assert all(prompt.startswith("apple") for prompt in told_of(100))
    first = asked(model, Line("apple", seed=2, n=3, chaos=100)).request.prompt
    assert first == asked(model, Line("apple", seed=2, n=9, chaos=100)).request.prompt[:3]
    weights = [asked(model, Line("apple", stylize=s)).request.guidance for s in (0, 100, 1000)]
    assert weights[0] == 1 and weights[1] == 3 and weights[2] > 3
    assert asked(model, Line("apple", chaos=9), revise=False).warnings


def test_a_chat_endpoint_that_is_away_leaves_the_offline_rules_and_a_warning(run: Path) -> None:
    found = asked(load(run), Line("strawbery", seed=1), revise="http://127.0.0.1:9/v1")
    assert found.request.prompt.startswith("strawberry") and "did not revise" in found.warnings[0]


def test_the_weights_in_the_mark_are_those_of_the_run_and_of_the_exported_file(run: Path, tmp_path: Path) -> None:
    model = load(run)
    exported = load(model.export(tmp_path / "m.safetensors"))
    assert fingerprint(model) == fingerprint(exported) and len(fingerprint(model)) == 64
    with torch.no_grad():
        next(exported.denoiser.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(model) != fingerprint(exported)


@pytest.mark.parametrize("prompt", ["🍎 ❤️", "تفاحة حمراء", "a" * 1_000_000, "\u202eabc", "赤いリンゴ"])
def test_odd_prompts_are_drawn(run: Path, prompt: str, tmp_path: Path) -> None:
    out = str(tmp_path / "x.png")
    assert main(["generate", prompt, "--model", str(run), "--n", "1", "--steps", "1", "--out", out]) == 0


def test_models_are_found_by_name_or_the_mistake_is_told(run: Path, tmp_path: Path, capsys) -> None:
    assert main(["models", str(run.parent), "--json"]) == 0
    (found,) = [m for m in told(capsys)["models"] if not m["shipped"]]
    assert found["conditions"] == ["style", "text"] and found["styles"] == ["flat", "glossy"]
    model = load(run)
    assert found["parameters"] == sum(p.numel() for p in model.denoiser.parameters()) and found["steps"] == 3
    assert found["bytes"] > 4 * found["parameters"] and found["draws"].startswith("16x16") and found["date"][:2] == "20"
    assert Path(found["card"]).is_file()
    model.export(tmp_path / "one.safetensors")
    told_of = _shipped({"name": "one", "file": "one.safetensors", "draws": "icons", "date": "2026-12-01"}, tmp_path)
    assert told_of["parameters"] == found["parameters"] and told_of["draws"] == "icons" and told_of["shipped"]
    (tmp_path / "index.json").write_text('{"default": "one", "models": [{"name": "one", "file": "one.safetensors"}]}')
    assert find(None, tmp_path) == find("one", tmp_path) == tmp_path / "one.safetensors"
    assert find(str(run), tmp_path) == run
    with pytest.raises(SfumatoError, match="did you mean 'one'"):
        find("on", tmp_path)
    for model in listed():
        assert find(model["name"]).is_file()


def test_a_prompt_for_each_picture_draws_what_each_alone_would(run: Path) -> None:
    model = load(run)
    both = generate(model, Request(n=2, seed=5, steps=2, prompt=("owl", "a very long red police car"), guidance=2.0))
    alone = generate(model, Request(n=1, first=1, seed=5, steps=2, prompt="a very long red police car", guidance=2.0))
    assert torch.allclose(both.x0[1], alone.x0[0], atol=1e-4)
    with pytest.raises(SfumatoError, match="2 prompts for 3"):
        Request(n=3, prompt=("a", "b"))


def test_guidance_leads_away_from_what_should_not_be_seen() -> None:
    """lin = other + w (cond - other), with tokens of unlike lengths in one call."""
    process = RectifiedFlow()

    class Counting:
        """Believes in the number of words it is told."""

        def __init__(self) -> None:
            self.process = process

        def __call__(self, x_t, t, cond=None):
            n = cond["text"].present().sum(1).float()
            return process.posterior(x_t, t, n.reshape(-1, 1).expand_as(x_t))

    def said(*captions: str) -> Cond:
        ids, mask = encode(captions)
        return Cond({"text": Slot(ids, "tokens", mask)})

    x = torch.zeros(2, 1)
    against = said("five words are too many")
    guided = cfg(3.0, against=against)(Counting())(x, 0.5, said("one", "one two")).lin[:, 0]
    assert guided.tolist() == [5 + 3 * (1 - 5), 5 + 3 * (2 - 5)]
    plain = cfg(3.0)(Counting())(x, 0.5, said("one", "one two")).lin[:, 0]
    assert plain.tolist() == [3.0, 6.0]
