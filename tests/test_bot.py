"""The Discord bot: the real discord.py, led to a Discord and a queue on this machine, and once to our own server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from fake_discord import Discord, discord_here
from PIL import Image
from serving import served, tiny_model

from sfumato.cli import main
from sfumato.core import SfumatoError
from sfumato.serve.bot import Bot
from sfumato.serve.wishes import HOUR, Limits, again, imagined, mask_of, region, sheet
from sfumato.tasks.prompt import parse


def png(value: int, side: int = 64) -> bytes:
    out = BytesIO()
    Image.new("RGB", (side, side), (value, 0, 0)).save(out, "PNG")
    return out.getvalue()


class Queue:
    """The server's queue as its documentation has it: what was asked is kept, and jobs end when a test lets them."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, bytes] = {}
        self.cancelled: list[str] = []
        self.users: list[str] = []
        self.go = asyncio.Event()
        self.outcome = "done"

    async def begin(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        if "forbidden" in wanted["prompt"]:
            told = {"message": "refused by the rule words.test: 'forbidden'", "code": "moderation_blocked"}
            return web.json_response({"error": told}, status=400)
        name = f"job{len(self.asked)}"
        self.asked.append(wanted)
        self.users.append(request.headers["X-Sfumato-Client"])
        kept = {k: v for k, v in wanted.items() if k not in ("task", "model", "image", "parents")}
        kept |= {"prompt": parse(wanted["prompt"])[0].text}  # the server keeps what it has read
        kept |= {"seed": wanted.get("seed", 99), "images": [wanted["image"]] if "image" in wanted else [], "size": None}
        files = [
            {"hash": f"{len(self.asked)}{k}".ljust(64, "0"), "width": 64, "height": 64} for k in range(wanted["n"])
        ]
        self.jobs[name] = {
            "id": name,
            "state": "queued",
            "task": wanted["task"],
            "model": "tiny",
            "request": kept,
            "files": files,
            "result": {"seed": kept["seed"], "warnings": ["a *note*"], "reasons": []},
            "error": None,
        }
        return web.json_response({"id": name, "position": 3})

    async def events(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        name = request.match_info["name"]

        async def tell(event: str, data: dict[str, Any]) -> None:
            await answer.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())

        await tell("queued", {"position": 3})
        await tell("step", {"step": 1, "of": 4, "previews": ["A" * 300_000], "mime": "image/png"})
        while not self.go.is_set() and name not in self.cancelled:
            await asyncio.sleep(0.01)
        job = self.jobs[name]
        job["state"] = "cancelled" if name in self.cancelled else self.outcome
        if self.outcome == "failed":
            job["error"] = {"message": "no *memory* is left"}
        await tell(job["state"], job)
        return answer

    async def one(self, request: web.Request) -> web.Response:
        return web.json_response(self.jobs[request.match_info["name"]])

    async def cancel(self, request: web.Request) -> web.Response:
        self.cancelled.append(request.match_info["name"])
        return web.json_response({})

    async def upload(self, request: web.Request) -> web.Response:
        name = f"{len(self.uploads)}".ljust(64, "f")
        self.uploads[name] = (await request.post())["file"].file.read()
        return web.json_response({"hash": name, "width": 64, "height": 64})

    async def file(self, request: web.Request) -> web.Response:
        return web.Response(body=png(10 * int(request.match_info["name"][1])), content_type="image/png")

    async def models(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        return web.json_response({"models": [{"name": "icons"}, {"name": "words"}]})


@contextlib.asynccontextmanager
async def queue_here() -> AsyncIterator[tuple[Queue, str]]:
    queue, app = Queue(), web.Application()
    app.router.add_post("/api/jobs", queue.begin)
    app.router.add_get("/api/jobs/{name}", queue.one)
    app.router.add_delete("/api/jobs/{name}", queue.cancel)
    app.router.add_get("/api/jobs/{name}/events", queue.events)
    app.router.add_post("/api/uploads", queue.upload)
    app.router.add_get("/api/files/{name}", queue.file)
    app.router.add_get("/api/models", queue.models)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield queue, f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def running(bot: Bot, discord: Discord) -> AsyncIterator[None]:
    task = asyncio.create_task(bot.start("right"))
    try:
        ready = asyncio.create_task(discord.identified.wait())
        await asyncio.wait({task, ready}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert discord.identified.is_set(), task
        yield
    finally:
        await bot.close()
        await asyncio.wait_for(task, 10)


def play(
    monkeypatch, scene: Callable[[Discord, Queue], Coroutine[Any, Any, None]], limits: Limits | None = None
) -> None:
    """A scene with a bot, a Discord and a queue."""

    async def all_of_it() -> None:
        async with discord_here(monkeypatch) as discord, queue_here() as (queue, address):
            async with running(Bot(address, limits or Limits(2, 60), "secret"), discord):
                await scene(discord, queue)

    asyncio.run(asyncio.wait_for(all_of_it(), 60))


def labels(message: dict[str, Any]) -> list[list[str]]:
    return [[b["label"] for b in row["components"]] for row in message["components"]]


def test_imagine_shows_a_grid_and_its_buttons_draw_on(monkeypatch) -> None:
    async def scene(discord: Discord, queue: Queue) -> None:
        asked = await discord.imagine("a *red* apple {on\\} @everyone --ar 3:2 --seed 7 --no leaf".replace("{", "\\{"))
        waiting = await discord.until(lambda: discord.shown("in the queue, 3 before it"))
        assert discord.answers[asked]["type"] == 5 and labels(waiting) == [["Cancel"]]
        assert "@everyone" not in waiting["content"] and "\\*red\\*" in waiting["content"]
        queue.go.set()
        done = await discord.until(lambda: discord.shown("seed 7"))
        wanted = {"task": "generate", "prompt": "a *red* apple \\{on\\} @everyone --ar 3:2", "n": 4, "seed": 7}
        assert queue.asked == [wanted | {"negative": "leaf"}] and queue.users == ["discord-1"]
        assert labels(done) == [["U1", "U2", "U3", "U4", "Reroll"], ["V1", "V2", "V3", "V4", "Vary region"]]
        assert "<@1>" in done["content"] and "a \\*note\\*" in done["content"] and done["id"] == waiting["id"]
        grid = np.asarray(Image.open(BytesIO(discord.files["sfumato.png"])))
        seen = {tuple(grid[y, x]) for y in (20, -20) for x in (20, -20)}
        assert seen == {(0, 0, 0), (10, 0, 0), (20, 0, 0), (30, 0, 0)}  # four pictures

        await discord.press(done, "U3", by=2)
        await discord.until(lambda: discord.shown("twice as large", "seed"))
        await discord.press(done, "V2")
        await discord.until(lambda: discord.shown("varied", "seed"))
        await discord.press(done, "Reroll")
        await discord.until(
            lambda: len(queue.asked) == 4 and len([m for m in discord.messages.values() if m["attachments"]]) == 4
        )
        up, vary, new = queue.asked[1:]
        third = queue.jobs["job0"]["files"][2]["hash"]
        assert up["task"] == "upscale" and up["image"] == third and up["parents"] == [third] and up["n"] == 1
        assert up["scale"] == 2 and queue.users[1] == "discord-2" and up["negative"] == "leaf"
        assert vary["task"] == "vary" and vary["image"] == queue.jobs["job0"]["files"][1]["hash"] and vary["n"] == 4
        assert new["task"] == "generate" and "seed" not in new and new["negative"] == "leaf"
        assert {w["prompt"] for w in (up, vary, new)} == {"a *red* apple \\{on\\} @everyone"}

    play(monkeypatch, scene)


def test_a_region_is_varied_by_a_form(monkeypatch) -> None:
    async def scene(discord: Discord, queue: Queue) -> None:
        queue.go.set()
        await discord.imagine("an owl")
        done = await discord.until(lambda: discord.shown("an owl", "seed"))
        pressed = await discord.press(done, "Vary region")
        await discord.until(lambda: pressed in discord.answers)
        form = discord.answers[pressed]
        assert form["type"] == 9 and len(form["data"]["components"]) == 3
        await discord.submit(form["data"], ["2", "top left", "a hat"])
        await discord.until(lambda: discord.shown("a region anew", "seed"))
        wanted = queue.asked[1]
        second = queue.jobs["job0"]["files"][1]["hash"]
        assert (wanted["task"], wanted["image"], wanted["prompt"], wanted["n"]) == ("inpaint", second, "a hat", 4)
        mask = np.asarray(Image.open(BytesIO(queue.uploads[wanted["mask"]])))
        assert mask.shape == (64, 64) and mask[:32, :32].min() == 255 and mask.sum() == 255 * 32 * 32
        for values, said in ((["9", "left", "x"], "no picture 9"), (["1", "nowhere", "x"], "the region is")):
            pressed = await discord.press(done, "Vary region")
            await discord.until(lambda p=pressed: p in discord.answers)
            await discord.submit(discord.answers[pressed]["data"], values)
            wrong = await discord.until(lambda s=said: discord.shown(s))
            assert wrong["flags"] & 64  # seen by the user alone
        assert len(queue.asked) == 2

    play(monkeypatch, scene)


def test_mistakes_refusals_limits_and_cancelling(monkeypatch) -> None:
    async def scene(discord: Discord, queue: Queue) -> None:
        for prompt, said in (
            ("x --sed 3", "did you mean --seed"),
            ("a forbidden thing", "words.test"),
            ("--seed 1", "say what"),
        ):
            await discord.imagine(prompt, by=7)
            assert (await discord.until(lambda s=said: discord.shown(s)))["flags"] & 64
        first = await discord.imagine("one", by=5)
        await discord.until(lambda: discord.shown("one", "in the queue"))
        await discord.imagine("two", by=5)
        await discord.until(lambda: discord.shown("not done yet"))
        await discord.imagine("three", by=6)  # another user is not held up
        waiting = await discord.until(lambda: discord.shown("three", "in the queue"))
        await discord.press(waiting, "Cancel", by=5)
        await discord.until(lambda: discord.shown("only who asked"))
        await discord.press(waiting, "Cancel", by=6)
        gone = await discord.until(lambda: discord.shown("three", "cancelled"))
        assert queue.cancelled == ["job1"] and gone["components"] == [] and first in discord.answers
        queue.outcome = "failed"
        queue.go.set()
        await discord.until(lambda: discord.shown("one", "no \\*memory\\* is left"))
        queue.outcome = "done"
        await discord.imagine("four", by=5)  # the failed one has been given back
        await discord.until(lambda: discord.shown("four", "seed"))
        await discord.imagine("five", by=5)
        await discord.until(lambda: discord.shown("2 times within an hour"))

    clock = iter(range(10_000))
    play(monkeypatch, scene, Limits(1, 2, lambda: float(next(clock))))


def test_a_line_of_choices_is_several_jobs_and_models_are_offered(monkeypatch) -> None:
    async def scene(discord: Discord, queue: Queue) -> None:
        queue.go.set()
        await discord.imagine("a {red,blue} cup", model="words")
        await discord.until(lambda: discord.shown("a red cup", "seed") and discord.shown("a blue cup", "seed"))
        assert [w["prompt"] for w in queue.asked] == ["a red cup", "a blue cup"] and queue.asked[0]["model"] == "words"
        typed = [
            {"name": "prompt", "type": 3, "value": "x"},
            {"name": "model", "type": 3, "value": "W", "focused": True},
        ]
        number = await discord.say(4, {"id": discord.commands[0]["id"], "name": "imagine", "type": 1, "options": typed})
        await discord.until(lambda: number in discord.answers)
        assert discord.answers[number]["data"]["choices"] == [{"name": "words", "value": "words"}]
        assert [o["name"] for o in discord.commands[0]["options"]] == ["prompt", "model"]

    play(monkeypatch, scene)


def test_a_button_works_after_a_restart_and_a_late_picture_is_shown(monkeypatch) -> None:
    async def all_of_it() -> None:
        async with discord_here(monkeypatch) as discord, queue_here() as (queue, address):
            queue.go.set()
            async with running(Bot(address, Limits(2, 60), "secret"), discord):
                await discord.imagine("an owl")
                done = await discord.until(lambda: discord.shown("an owl", "seed"))
            discord.identified.clear()
            queue.go.clear()
            async with running(Bot(address, Limits(2, 60), "secret"), discord):
                await discord.press(done, "V1")
                await discord.until(lambda: discord.shown("varied", "in the queue"))
                discord.gone = True  # a quarter of an hour has passed
                monkeypatch.setattr("discord.Interaction.is_expired", lambda self: True)
                queue.go.set()
                late = await discord.until(lambda: discord.shown("varied", "seed"))
                assert late["attachments"]

    asyncio.run(asyncio.wait_for(all_of_it(), 60))


def test_with_our_own_server(monkeypatch, tmp_path) -> None:
    """The whole way: Discord, the bot, the queue, a model, and back."""

    async def all_of_it(address: str) -> None:
        async with discord_here(monkeypatch) as discord, running(Bot(address, Limits(2, 60)), discord):
            await discord.imagine("a red apple --seed 7 --n 2")
            done = await discord.until(lambda: discord.shown("red apple", "seed 7"))
            assert labels(done) == [["U1", "U2", "Reroll"], ["V1", "V2", "Vary region"]]
            for button, said in (("U1", "twice as large"), ("V2", "varied")):
                await discord.press(done, button)
                assert (await discord.until(lambda s=said: discord.shown(s, "seed"), 40))["attachments"]
            pressed = await discord.press(done, "Vary region")
            await discord.until(lambda: pressed in discord.answers)
            await discord.submit(discord.answers[pressed]["data"], ["1", "0 0 50 100", "an owl"])
            await discord.until(lambda: discord.shown("a region anew", "seed"), 40)
            await discord.press(done, "Reroll")
            again = lambda: [m for m in discord.messages.values() if "red apple" in m["content"] and m["attachments"]]  # noqa: E731
            await discord.until(lambda: len(again()) == 4, 40)
            await discord.imagine("a castle by Greg Rutkowski")
            assert "living artist" in (await discord.until(lambda: discord.shown("Rutkowski", "artists")))["content"]

    with served(tiny_model(tmp_path), tmp_path / "data") as (address, _):
        asyncio.run(asyncio.wait_for(all_of_it(address), 120))


def test_what_a_line_and_a_region_ask_for() -> None:
    assert imagined("a cat --s 250 --style flat --chaos 9 --n 2", "m") == [
        {"task": "generate", "prompt": "a cat", "n": 2, "chaos": 9, "stylize": 250, "style": "flat", "model": "m"}
    ]
    for wrong in ("--seed 3", "{a,b,c} {d,e}", "x --n 5", "x --sed 1"):
        with pytest.raises(SfumatoError):
            imagined(wrong)
    assert region("Top LEFT") == (0, 0, 0.5, 0.5) and region("center") == (0.25, 0.25, 0.75, 0.75)
    assert region("0 50% 100, 100") == (0, 0.5, 1, 1)
    for wrong in ("", "left right", "10 20 30", "50 0 40 100", "0 0 101 100", "-5 0 50 50", "up there"):
        with pytest.raises(SfumatoError):
            region(wrong)
    mask = np.asarray(Image.open(BytesIO(mask_of(png(0, 3), (0, 0, 0.01, 0.01)))))
    assert mask.tolist() == [[255, 0, 0], [0, 0, 0], [0, 0, 0]]  # never an empty one
    assert sheet([png(3)]) == png(3)
    job = {
        "task": "vary",
        "model": "m",
        "request": {"prompt": "{a} b", "images": ["h"], "size": [64, 32], "seed": 4, "n": 1},
    }
    assert again(job) == {
        **{"task": "vary", "model": "m", "prompt": "\\{a\\} b", "n": 1},
        **{"image": "h", "parents": ["h"], "size": "64x32"},
    }


def test_limits_forget_after_an_hour() -> None:
    now = [0.0]
    limits = Limits(1, 2, lambda: now[0])
    for _ in range(2):
        limits.take("a")
        with pytest.raises(SfumatoError, match="not done yet"):
            limits.take("a")
        limits.give_back("a")
    with pytest.raises(SfumatoError, match="60 minutes|61 minutes"):
        limits.take("a")
    limits.take("b")
    now[0] = HOUR
    limits.take("a")
    for wrong in ((0, 1), (1, 0)):
        with pytest.raises(SfumatoError):
            Limits(*wrong)


def test_the_command_wants_a_token(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("DISCORD_TOKEN", raising=False)
    assert main(["bot"]) == 2 and "DISCORD_TOKEN" in capsys.readouterr().err
    assert main(["bot", "--token-file", str(tmp_path / "none")]) == 2
    assert main(["bot", "--at-once", "0"]) == 2
