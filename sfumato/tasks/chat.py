"""Prompts revised by a chat model: any endpoint that speaks OpenAI's chat completions, when the user names one."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from urllib.parse import urlparse

from sfumato.core import SfumatoError
from sfumato.tasks.revise import Revised

KEY, MODEL = "SFUMATO_REVISE_KEY", "SFUMATO_REVISE_MODEL"  # environment variables
SECONDS = 20.0
LONGEST = 2000  # letters of an answer
SYSTEM = """You rewrite prompts for a small model that draws pictures. It knows captions like these:
{examples}
Keep everything the user asks for; add only what makes the picture clearer, in the manner of these captions, in at most 60
words. Answer with the new prompt alone."""


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Urllib carries every header to wherever it is sent on: neither the key nor the prompt may go to another host."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urlparse(newurl)[:2] != urlparse(req.full_url)[:2]:
            raise urllib.error.URLError(
                f"it sends the prompt on to {urlparse(newurl).netloc[:80]!r}: name that address"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_address(url: str) -> None:
    """SfumatoError when this is no address of an endpoint."""
    try:
        told = urlparse(url)
        fits = told.scheme in ("http", "https") and bool(told.hostname)
    except ValueError:  # brackets or a port that are none
        fits = False
    if not fits:
        raise SfumatoError(
            f"--revise takes the address of a chat endpoint such as http://localhost:11434/v1, not {url[:80]!r}"
        )


def ask(url: str, prompt: str, captions: Sequence[str]) -> Revised:
    """The prompt as the chat model at `url` (such as http://localhost:11434/v1) rewrites it.

    The key is read from SFUMATO_REVISE_KEY, the model's name from SFUMATO_REVISE_MODEL. Raises SfumatoError when the
    address is none, when there is no answer within 20 s, or when it is no prompt.
    """
    check_address(url)
    examples = "\n".join(f"- {caption}" for caption in captions[:: max(1, len(captions) // 12)][:12])
    asked = {
        "model": os.environ.get(MODEL, "default"),
        "messages": [
            {"role": "system", "content": SYSTEM.format(examples=examples)},
            {"role": "user", "content": prompt},
        ],
        "temperature": 0,
    }
    headers = {"Content-Type": "application/json"}
    if os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {os.environ[KEY]}"
    request = urllib.request.Request(
        url.rstrip("/") + "/chat/completions", json.dumps(asked).encode(), headers, method="POST"
    )
    try:
        with urllib.request.build_opener(_SameHost).open(request, timeout=SECONDS) as answer:
            told = json.loads(answer.read(1_000_000))["choices"][0]["message"]["content"]
    except (OSError, ValueError, LookupError, TypeError) as error:  # URLError and time-outs are OSErrors
        raise SfumatoError(f"{url} did not revise the prompt ({error})") from error
    text = told.strip().strip('"').strip() if isinstance(told, str) else ""
    if not text or len(text) > LONGEST:
        raise SfumatoError(f"{url} answered with no usable prompt")
    return Revised(text, (f"rewritten by {urlparse(url).hostname}",))
