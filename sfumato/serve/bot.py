"""The Discord bot: /imagine, a grid of four, buttons below it. All it knows of a picture is the job that its buttons name.

Nothing is kept here: a button carries the id of its job on the server, so that it works after a restart of either.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import discord
from discord import app_commands

from sfumato.core import SfumatoError
from sfumato.serve.client import Client
from sfumato.serve.wishes import (
    GRID,
    Limits,
    again,
    file_of,
    filled,
    imagined,
    mask_of,
    region,
    sheet,
    upscaled,
    varied,
)

SHOWN = 300  # letters of a prompt that are repeated
SAID = 1900  # letters of a message; Discord takes 2,000
JOB = r"(?P<job>[0-9A-Za-z_-]{1,64})"
PLACES = "left, top right, middle, or four per cents: 0 50 100 100"


class Bot(discord.Client):
    """One bot on one server of ours; `limits` counts by user."""

    def __init__(self, server: str, limits: Limits, token: str | None = None) -> None:
        super().__init__(intents=discord.Intents.none(), allowed_mentions=discord.AllowedMentions.none())
        self.address, self.server_token, self.limits = server, token, limits
        self.tree = app_commands.CommandTree(self)
        self.names: list[str] = []
        self.tree.add_command(_imagine(self))
        self.tree.error(_wrong)
        self.add_dynamic_items(Upscale, Vary, Reroll, Region, Cancel)

    async def setup_hook(self) -> None:
        self.web = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        self.desk = Client(self.web, self.address, self.server_token)
        self.names = [model["name"] for model in await self.desk.models()]
        await self.tree.sync()

    async def close(self) -> None:
        await super().close()
        if hasattr(self, "web"):
            await self.web.close()

    async def draw(self, interaction: discord.Interaction, wanted: Mapping[str, Any]) -> None:
        """Put a job into the queue, say how it goes, and show what came of it."""
        user = f"discord-{interaction.user.id}"
        if not interaction.response.is_done():
            await interaction.response.defer(thinking=True)
        self.limits.take(user)
        try:
            try:
                name, position = await self.desk.begin(wanted, user)
                message = await interaction.followup.send(
                    _waiting(wanted, position), view=_only(Cancel(name)), wait=True
                )
                post = Post(interaction, message)
                state, job = await self._follow(post, wanted, name)
            finally:
                self.limits.give_back(user)
            if state == "done":
                pictures = await asyncio.gather(*(self.desk.file(file["hash"]) for file in job["files"]))
                await post.show(_done(interaction, wanted, job), sheet(list(pictures)), buttons(job))
            else:
                why = (job.get("error") or {}).get("message") or state
                await post.say(f"{_title(wanted)}\n{_plain(str(why))}")
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise SfumatoError("the server does not answer: try again in a while") from error

    async def _follow(self, post: Post, wanted: Mapping[str, Any], name: str) -> tuple[str, dict[str, Any]]:
        """Until a job has ended: what it has come to, told at most every two seconds."""
        told, running = 0.0, asyncio.get_running_loop()
        async for event, data in self.desk.events(name):
            if event in ("done", "failed", "cancelled"):
                return event, data
            if running.time() - told >= 2:
                told = running.time()
                step = f"drawing, step {data.get('step')} of {data.get('of')}"
                line = _waiting(wanted, data["position"]) if event == "queued" else f"{_title(wanted)}\n{step}"
                await post.say(line, _only(Cancel(name)))
        job = await self.desk.job(name)  # the server hung up: it is stopping
        if job["state"] not in ("done", "failed", "cancelled"):
            raise SfumatoError("the server is stopping; the job is kept, and drawn when it is back")
        return job["state"], job


class Post:
    """The message of one job. An interaction may be answered for 15 minutes; after that its message is edited as the bot's
    own, and where the bot may not do that, nothing more is said."""

    def __init__(self, interaction: discord.Interaction, message: discord.WebhookMessage) -> None:
        self.interaction, self.message = interaction, message

    async def say(self, text: str, view: discord.ui.View | None = None) -> None:
        await self._edit(content=text[:SAID], view=view)

    async def show(self, text: str, picture: bytes, view: discord.ui.View) -> None:
        file = discord.File(io.BytesIO(picture), "sfumato.png")
        await self._edit(content=text[:SAID], attachments=[file], view=view)

    async def _edit(self, **told: Any) -> None:
        try:
            if self.interaction.is_expired():
                channel = self.interaction.channel
                if not isinstance(channel, discord.abc.Messageable):
                    return
                await channel.get_partial_message(self.message.id).edit(**told)
            else:
                await self.message.edit(**told)
        except (discord.NotFound, discord.Forbidden):  # the message or the right to edit it is gone
            return


class _Item(discord.ui.DynamicItem[discord.ui.Button], template=r"sfumato:none"):
    """A button that names its job, and what happens when it is pressed."""

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction, item: Any, match: re.Match[str], /) -> Any:
        found = match.groupdict()
        return cls(found["job"], *([int(found["k"])] if "k" in found else []))

    async def callback(self, interaction: discord.Interaction) -> None:
        try:
            await self.pressed(interaction.client, interaction)
        except (SfumatoError, aiohttp.ClientError) as error:
            await _tell(interaction, str(error) or "the server does not answer: try again in a while")

    async def pressed(self, bot: Any, interaction: discord.Interaction) -> None:
        raise NotImplementedError


class Upscale(_Item, template=rf"sfumato:u:{JOB}:(?P<k>\d)"):
    """U1 ... U4: one picture alone, twice as large."""

    def __init__(self, job: str, k: int, row: int | None = 0) -> None:
        self.job, self.k = job, k
        super().__init__(discord.ui.Button(label=f"U{k + 1}", custom_id=f"sfumato:u:{job}:{k}", row=row))

    async def pressed(self, bot: Bot, interaction: discord.Interaction) -> None:
        await bot.draw(interaction, upscaled(await bot.desk.job(self.job), self.k))


class Vary(_Item, template=rf"sfumato:v:{JOB}:(?P<k>\d)"):
    """V1 ... V4: four pictures near one."""

    def __init__(self, job: str, k: int, row: int | None = 1) -> None:
        self.job, self.k = job, k
        super().__init__(discord.ui.Button(label=f"V{k + 1}", custom_id=f"sfumato:v:{job}:{k}", row=row))

    async def pressed(self, bot: Bot, interaction: discord.Interaction) -> None:
        await bot.draw(interaction, varied(await bot.desk.job(self.job), self.k))


class Reroll(_Item, template=rf"sfumato:r:{JOB}"):
    """The same words, another seed."""

    def __init__(self, job: str) -> None:
        self.job = job
        super().__init__(discord.ui.Button(label="Reroll", custom_id=f"sfumato:r:{job}", row=0))

    async def pressed(self, bot: Bot, interaction: discord.Interaction) -> None:
        await bot.draw(interaction, again(await bot.desk.job(self.job)))


class Region(_Item, template=rf"sfumato:e:{JOB}"):
    """A form that asks which part is to be drawn anew, and as what."""

    def __init__(self, job: str) -> None:
        self.job = job
        super().__init__(discord.ui.Button(label="Vary region", custom_id=f"sfumato:e:{job}", row=1))

    async def pressed(self, bot: Bot, interaction: discord.Interaction) -> None:
        await interaction.response.send_modal(Form(self.job))


class Cancel(_Item, template=rf"sfumato:x:{JOB}"):
    """Ends a job that waits or runs; only for who asked for it."""

    def __init__(self, job: str) -> None:
        self.job = job
        style = discord.ButtonStyle.danger
        super().__init__(discord.ui.Button(label="Cancel", custom_id=f"sfumato:x:{job}", style=style))

    async def pressed(self, bot: Bot, interaction: discord.Interaction) -> None:
        about = interaction.message.interaction_metadata if interaction.message else None
        if about is not None and about.user.id != interaction.user.id:
            raise SfumatoError("only who asked for it may cancel it")
        await interaction.response.defer()
        await bot.desk.cancel(self.job)


class Form(discord.ui.Modal, title="Vary region"):
    """Which picture, which part of it, and what is to be seen there."""

    picture = discord.ui.TextInput(label="Which picture (1 to 4)", default="1", max_length=1)
    place = discord.ui.TextInput(label="Which part of it", placeholder=PLACES, max_length=60)
    words = discord.ui.TextInput(label="What is to be seen", style=discord.TextStyle.paragraph, max_length=1000)

    def __init__(self, job: str) -> None:
        super().__init__(custom_id=f"sfumato:form:{job}")
        self.job = job

    async def on_submit(self, interaction: discord.Interaction) -> None:
        bot: Any = interaction.client
        box, picked = region(self.place.value), self.picture.value
        if not picked.isdecimal():
            raise SfumatoError(f"say which picture: 1 to {GRID}")
        await interaction.response.defer(thinking=True)
        job = await bot.desk.job(self.job)
        k = int(picked) - 1
        mask = mask_of(await bot.desk.file(file_of(job, k)), box)
        name = await bot.desk.upload(mask, f"discord-{interaction.user.id}")
        await bot.draw(interaction, filled(job, k, name, self.words.value))

    async def on_error(self, interaction: discord.Interaction, error: Exception, /) -> None:
        known = isinstance(error, SfumatoError)
        await _tell(interaction, str(error) if known else "something went wrong")
        if not known:
            raise error


def buttons(job: Mapping[str, Any]) -> discord.ui.View:
    """What may be done with the pictures of a job that is done."""
    view, count = discord.ui.View(timeout=None), min(len(job["files"]), GRID)
    for k in range(count):
        view.add_item(Upscale(job["id"], k))
    view.add_item(Reroll(job["id"]))
    for k in range(count):
        view.add_item(Vary(job["id"], k))
    view.add_item(Region(job["id"]))
    return view


def _only(item: discord.ui.Item[Any]) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    view.add_item(item)
    return view


def _imagine(bot: Bot) -> app_commands.Command[Any, Any, None]:
    @app_commands.command(name="imagine", description="Draw what a sentence says: a grid of four pictures")
    @app_commands.describe(
        prompt="what to draw; options may follow: --ar 3:2 --no text --seed 7 --chaos 30 --stylize 200 --style NAME",
        model="which model draws",
    )
    async def imagine(
        interaction: discord.Interaction, prompt: app_commands.Range[str, 1, 2000], model: str | None = None
    ) -> None:
        for wanted in imagined(prompt, model):
            await bot.draw(interaction, wanted)

    @imagine.autocomplete("model")
    async def _models(interaction: discord.Interaction, typed: str) -> list[app_commands.Choice[str]]:
        fitting = [name for name in bot.names if typed.lower() in name.lower()]
        return [app_commands.Choice(name=name[:100], value=name[:100]) for name in fitting[:25]]

    return imagine


async def _wrong(interaction: discord.Interaction, error: app_commands.AppCommandError) -> None:
    """A user's mistake is told to the user alone; anything else is told shortly, and raised for the log."""
    cause = getattr(error, "original", error)
    known = isinstance(cause, SfumatoError)
    await _tell(interaction, str(cause) if known else "something went wrong")
    if not known:
        raise cause


async def _tell(interaction: discord.Interaction, text: str) -> None:
    text = _plain(text)[:SAID]
    if interaction.response.is_done():
        await interaction.followup.send(text, ephemeral=True)
    else:
        await interaction.response.send_message(text, ephemeral=True)


def _title(wanted: Mapping[str, Any]) -> str:
    words = _plain(wanted.get("prompt") or "")
    names = {"upscale": "twice as large", "vary": "varied", "inpaint": "a region anew"}
    note = names.get(wanted["task"])
    return f"**{words[:SHOWN]}**{'...' if len(words) > SHOWN else ''}" + (f" ({note})" if note else "")


def _waiting(wanted: Mapping[str, Any], position: int | None) -> str:
    where = "begins now" if not position else f"in the queue, {position} before it"
    return f"{_title(wanted)}\n{where}"


def _done(interaction: discord.Interaction, wanted: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    result = job.get("result") or {}
    facts = [f"seed {result['seed']}" if "seed" in result else "", str(job["model"])]
    notes = [_plain(str(note)) for note in (*result.get("warnings", ()), *result.get("reasons", ()))]
    about = ", ".join(_plain(fact) for fact in facts if fact)
    return "\n".join([f"{_title(wanted)} for {interaction.user.mention}", about, *notes])


def _plain(text: str) -> str:
    """Words that a user wrote, without their power to format, to mention and to link."""
    return discord.utils.escape_mentions(discord.utils.escape_markdown(text)).replace("://", ":\u200b//")
