"""Prompts revised by a chat endpoint that sends its clients elsewhere: the key stays with the host it was given for."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sfumato.core import SfumatoError
from sfumato.tasks.chat import KEY, ask


@contextmanager
def server(to=None, code=302):
    """A chat endpoint that answers, or sends its clients `to` another address; yields its address and what it heard."""
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append((self.path, self.headers.get("Authorization")))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told = json.dumps({"choices": [{"message": {"content": "a red apple"}}]}).encode()
            sent_on = to is not None and not self.path.endswith("/there")
            self.send_response(code if sent_on else 200)
            if sent_on:
                self.send_header("Location", to)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_POST  # urllib goes on with GET

        def log_message(self, *told):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}", heard
        made.shutdown()


@pytest.mark.parametrize("code", [301, 302, 303])
def test_the_key_is_not_carried_to_another_host(monkeypatch, code):
    monkeypatch.setenv(KEY, "secret")
    with server() as (other, overheard), server(f"{other}/v1/chat/completions", code) as (url, heard):
        with pytest.raises(SfumatoError, match="sends the prompt on to '127.0.0.1"):
            ask(url + "/v1", "apple", [])
    assert heard == [("/v1/chat/completions", "Bearer secret")] and not overheard


def test_the_same_host_may_send_its_clients_on(monkeypatch):
    monkeypatch.setenv(KEY, "secret")
    with server("/v2/there") as (url, heard):
        assert ask(url + "/v1", "apple", []).text == "a red apple"
    assert heard == [("/v1/chat/completions", "Bearer secret"), ("/v2/there", "Bearer secret")]
