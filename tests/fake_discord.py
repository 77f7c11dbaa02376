"""Discord as far as a bot sees it: its HTTP interface and its gateway, on this machine, in the shapes of its documentation."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import discord
import yarl
from aiohttp import WSMsgType, web
from discord.gateway import DiscordWebSocket

APP, CHANNEL, GUILD = "1001", "2002", "3003"
ME = {"id": APP, "username": "sfumato", "discriminator": "0000", "avatar": None, "bot": True, "global_name": None}


def user(number: int) -> dict[str, Any]:
    return {"id": str(number), "username": f"u{number}", "discriminator": "0", "avatar": None, "global_name": None}


def _json(told: Any, status: int = 200) -> web.Response:
    """discord.py reads only what is exactly application/json."""
    return web.Response(body=json.dumps(told).encode(), status=status, headers={"Content-Type": "application/json"})


class Discord:
    """What the bot sent is kept: `commands` it registered, `messages` by id with their newest state, `answers` by interaction."""

    def __init__(self) -> None:
        self.ids = itertools.count(5000)
        self.commands: list[dict[str, Any]] = []
        self.messages: dict[str, dict[str, Any]] = {}
        self.history: list[dict[str, Any]] = []
        self.answers: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.gone = False  # the token of an interaction has run out
        self._socket: web.WebSocketResponse | None = None
        self._sequence = itertools.count(2)
        self.identified = asyncio.Event()
        self.changed = asyncio.Condition()

    # --- what users do ---

    async def say(self, kind: int, data: dict[str, Any], by: int = 1, message: dict[str, Any] | None = None) -> str:
        """An interaction of a user (2 command, 3 button, 4 autocomplete, 5 form) goes to the bot -> its id."""
        number = str(next(self.ids))
        told = {
            "id": number,
            "application_id": APP,
            "type": kind,
            "token": f"token-{number}-{by}",
            "version": 1,
            "guild_id": GUILD,
            "guild": {"id": GUILD, "locale": "en-US", "features": []},
            "channel_id": CHANNEL,
            "channel": {
                "id": CHANNEL,
                "type": 0,
                "guild_id": GUILD,
                "name": "general",
                "permissions": "0",
                "position": 0,
            },
            "member": {
                "user": user(by),
                "roles": [],
                "joined_at": "2026-01-01T00:00:00+00:00",
                "permissions": "0",
                "deaf": False,
                "mute": False,
                "flags": 0,
            },
            "app_permissions": "2147483647",
            "locale": "en-US",
            "guild_locale": "en-US",
            "entitlements": [],
            "authorizing_integration_owners": {"0": GUILD},
            "context": 0,
            "attachment_size_limit": 10_000_000,
            "data": data,
        } | ({} if message is None else {"message": message})
        await self._socket.send_json({"op": 0, "t": "INTERACTION_CREATE", "s": next(self._sequence), "d": told})
        return number

    async def imagine(self, prompt: str, by: int = 1, **options: str) -> str:
        given = [{"name": name, "type": 3, "value": value} for name, value in {"prompt": prompt, **options}.items()]
        command = next(c for c in self.commands if c["name"] == "imagine")
        return await self.say(2, {"id": command["id"], "name": "imagine", "type": 1, "options": given}, by)

    async def press(self, message: dict[str, Any], label: str, by: int = 1) -> str:
        """Press a button of a message, as it was last sent."""
        button = next(b for row in message["components"] for b in row["components"] if b["label"] == label)
        return await self.say(3, {"custom_id": button["custom_id"], "component_type": 2}, by, message)

    async def submit(self, form: dict[str, Any], values: list[str], by: int = 1) -> str:
        fields = [{"type": 4, "custom_id": row["components"][0]["custom_id"]} for row in form["components"]]
        rows = [{"type": 1, "components": [f | {"value": v}]} for f, v in zip(fields, values, strict=True)]
        return await self.say(5, {"custom_id": form["custom_id"], "components": rows}, by)

    async def until(self, true: Callable[[], Any], seconds: float = 20) -> Any:
        """Wait until something that the bot sent makes this true."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(true), seconds)
        return true()

    def shown(self, *words: str) -> dict[str, Any] | None:
        """The newest message whose text has all these words."""
        found = [m for m in self.messages.values() if all(w in m["content"] for w in words)]
        return found[-1] if found else None

    # --- what the bot asks ---

    async def _told(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _body(self, request: web.Request) -> dict[str, Any]:
        if not request.content_type.startswith("multipart/"):
            return await request.json()
        form = await request.post()
        told = json.loads(form["payload_json"])
        for key, part in form.items():
            if key.startswith("files["):
                self.files[part.filename] = part.file.read()
        return told

    def _message(self, token: str, told: dict[str, Any], number: str | None = None) -> dict[str, Any]:
        number = number or str(next(self.ids))
        old = self.messages.get(number, {})
        by = int(token.split("-")[2]) if "-" in token else 1
        message = {
            "id": number,
            "channel_id": CHANNEL,
            "author": ME,
            "content": told.get("content", old.get("content", "")),
            "timestamp": "2026-01-01T00:00:00+00:00",
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [],
            "mention_roles": [],
            "attachments": [
                {"id": str(next(self.ids)), "size": 1, "url": "x", "proxy_url": "x", "filename": a.get("filename", "x")}
                for a in told.get("attachments", [])
            ],
            "embeds": [],
            "pinned": False,
            "type": 0,
            "flags": told.get("flags", old.get("flags", 0)),
            "components": told.get("components", old.get("components", [])),
            "application_id": APP,
            "webhook_id": APP,
            "interaction_metadata": {
                "id": "1",
                "type": 2,
                "user": user(by),
                "authorizing_integration_owners": {"0": GUILD},
            },
        }
        self.messages[number] = message
        self.history.append(message)
        return message

    async def callback(self, request: web.Request) -> web.Response:
        told = await self._body(request)
        number, token = request.match_info["id"], request.match_info["token"]
        assert number not in self.answers, "an interaction is answered once"
        self.answers[number] = told
        answer: dict[str, Any] = {"interaction": {"id": number, "type": 2}}
        if told["type"] in (4, 5):
            message = self._message(token, told.get("data") or {})
            answer["interaction"]["response_message_id"] = message["id"]
            answer["resource"] = {"type": told["type"], "message": message}
        await self._told()
        return _json(answer)

    async def followup(self, request: web.Request) -> web.Response:
        message = self._message(request.match_info["token"], await self._body(request))
        await self._told()
        return _json(message)

    async def edit(self, request: web.Request) -> web.Response:
        if self.gone and "token" in request.match_info:
            return _json({"message": "Invalid Webhook Token", "code": 50027}, status=401)
        number = request.match_info["message"]
        message = self._message(request.match_info.get("token", ""), await self._body(request), number)
        await self._told()
        return _json(message)

    async def register(self, request: web.Request) -> web.Response:
        self.commands = [
            c | {"id": str(next(self.ids)), "application_id": APP, "version": "1"} for c in await request.json()
        ]
        return _json(self.commands)

    async def me(self, request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "Bot right":
            return _json({"message": "401: Unauthorized", "code": 0}, status=401)
        return _json(ME)

    async def application(self, _: web.Request) -> web.Response:
        told = {"id": APP, "name": "sfumato", "icon": None, "description": "", "bot_public": True}
        rest = {"bot_require_code_grant": False, "verify_key": "0", "flags": 0, "owner": user(9)}
        return _json(told | rest)

    async def gateway(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 45_000}})
        async for message in socket:
            if message.type != WSMsgType.TEXT:
                continue
            told = json.loads(message.data)
            if told["op"] == 1:
                await socket.send_json({"op": 11})
            elif told["op"] == 2:
                assert told["d"]["token"] == "right"
                self._socket = socket
                ready = {"v": 10, "user": ME, "guilds": [], "session_id": "s", "resume_gateway_url": "ws://127.0.0.1:9"}
                ready |= {"application": {"id": APP, "flags": 0}, "private_channels": []}
                await socket.send_json({"op": 0, "t": "READY", "s": 1, "d": ready})
                self.identified.set()
        return socket


@contextlib.asynccontextmanager
async def discord_here(monkeypatch: Any) -> AsyncIterator[Discord]:
    """Discord on this machine; discord.py is led to it."""
    here, app = Discord(), web.Application()
    api = "/api/v10"
    app.router.add_get(f"{api}/users/@me", here.me)
    app.router.add_get(f"{api}/oauth2/applications/@me", here.application)
    app.router.add_put(f"{api}/applications/{APP}/commands", here.register)
    app.router.add_post(f"{api}/interactions/{{id}}/{{token}}/callback", here.callback)
    app.router.add_post(f"{api}/webhooks/{APP}/{{token}}", here.followup)
    app.router.add_patch(f"{api}/webhooks/{APP}/{{token}}/messages/{{message}}", here.edit)
    app.router.add_patch(f"{api}/channels/{CHANNEL}/messages/{{message}}", here.edit)
    app.router.add_get("/gateway/", here.gateway)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    monkeypatch.setattr(discord.http.Route, "BASE", f"http://{address}{api}")
    monkeypatch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", yarl.URL(f"ws://{address}/gateway/"))
    try:
        yield here
    finally:
        await runner.cleanup()
