"""The interfaces, by the real clients: openai's SDK, webuiapi, and plain HTTP where there is none."""

# ruff: noqa: F811 - fixtures are imported by name
from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from serving import RED, client, ended, http, model, opened, pixels, png, served, server, tiny_model, url  # noqa: F401

from sfumato.cli import main
from sfumato.serve.policy import Verdict
from sfumato.tasks.asked import draw


def test_one_seed_is_one_picture_by_every_door_and_among_strangers(server, model, client, tmp_path, capsys) -> None:
    url, desk = server
    python = [pixels(image) for image in draw("a red apple --seed 11 --n 3", str(model)).images]
    out = tmp_path / "grid.png"
    told = ["generate", "a red apple", "--model", str(model), "--n", "3", "--seed", "11", "--out", str(out), "--json"]
    assert main(told) == 0
    files = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["pictures"][0]["files"]
    assert [pixels(Image.open(file)) for file in files] == python

    def api() -> list:
        answer = client.images.generate(prompt="a red apple", n=3, extra_body={"seed": 11})
        return [pixels(opened(one.b64_json)) for one in answer.data]

    def stranger(k: int) -> None:
        body = {
            "prompt": f"{'owl ' * k} --seed {k}",
            "n": 1 + k % 3,
            "guidance": 1 + k % 2,
            "steps": 12 + k,
            "revise": False,
        }
        ended(url, http.post(url + "/api/jobs", json=body | ({"negative": "car"} if k % 2 else {})).json()["id"])

    assert api() == python
    before = desk.fuser.calls, desk.fuser.rows
    with ThreadPoolExecutor(9) as pool:
        strangers = [pool.submit(stranger, k + 1) for k in range(7)]
        mine = [pool.submit(api) for _ in range(2)]
        assert [one.result() for one in mine] == [python, python]
        [one.result() for one in strangers]
    calls, alone = desk.fuser.calls - before[0], 2 * 2 * 18 + sum((1 + (k + 1) % 2) * (13 + k) for k in range(7))
    assert calls < 0.75 * alone, "calls were shared"
    job = http.post(url + "/api/jobs", json={"prompt": "a red apple --n 3 --seed 11"}).json()
    hashes = [file["hash"] for file in ended(url, job["id"])["files"]]
    stored = [http.get(f"{url}/api/files/{name}").content for name in hashes]
    assert [pixels(Image.open(png_of(data))) for data in stored] == python


def png_of(data: bytes):
    from io import BytesIO

    return BytesIO(data)


def test_partial_pictures_truly_get_clearer(client) -> None:
    events = list(client.images.generate(prompt="owl", stream=True, partial_images=3, extra_body={"seed": 4}))
    assert [e.type.split(".")[1] for e in events] == ["partial_image"] * 3 + ["completed"]
    assert [e.partial_image_index for e in events[:3]] == [0, 1, 2]
    final = np.asarray(opened(events[-1].b64_json)).astype(float)
    far = [np.abs(np.asarray(opened(e.b64_json)) - final).mean() for e in events[:3]]
    assert far[0] > far[1] > far[2] > 0 and far[2] < 0.5 * far[0]
    assert events[-1].usage.total_tokens == events[-1].usage.input_tokens + events[-1].usage.output_tokens
    whole = client.images.generate(prompt="owl", extra_body={"seed": 4})
    assert pixels(opened(whole.data[0].b64_json)) == final.tolist()
    (only,) = client.images.generate(prompt="owl", stream=True)
    assert only.type == "image_generation.completed"


def test_generations_give_what_is_asked(client, url) -> None:
    answer = client.images.generate(prompt="strawbery", n=2, size="64x32", output_format="webp", output_compression=40)
    images = [opened(one.b64_json) for one in answer.data]
    assert [(i.format, i.size) for i in images] == [("WEBP", (64, 32))] * 2 and answer.size == "64x32"
    assert answer.data[0].revised_prompt.startswith("strawberry") and answer.usage.input_tokens_details.text_tokens == 1
    low, high = (client.images.generate(prompt="owl", quality=q, extra_body={"seed": 1}) for q in ("low", "high"))
    assert low.quality == "low" and low.data[0].b64_json != high.data[0].b64_json
    steps = [job["result"]["steps"] for job in http.get(url + "/api/jobs?limit=2").json()["jobs"]]
    assert steps == [36, 9]
    styled = client.images.generate(prompt="owl", style="glossy", extra_body={"seed": 1})
    plain = client.images.generate(prompt="owl", extra_body={"seed": 1})
    assert styled.data[0].b64_json != plain.data[0].b64_json
    linked = client.images.generate(prompt="owl", model="dall-e-3", extra_body={"seed": 1})
    assert pixels(Image.open(png_of(http.get(linked.data[0].url).content))) == pixels(opened(plain.data[0].b64_json))
    assert [m.id for m in client.models.list()] == ["tiny"] and client.models.retrieve("tiny").owned_by == "you"


def test_edits_keep_what_the_mask_does_not_open(client) -> None:
    mask = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (4, 4, 12, 12))
    answer = client.images.edit(image=png(RED), mask=png(mask), prompt="owl", extra_body={"seed": 2})
    out = np.asarray(opened(answer.data[0].b64_json))
    hole = np.zeros((16, 16), bool)
    hole[4:12, 4:12] = True
    assert (out[~hole] == (200, 30, 30)).all() and (out[hole] != (200, 30, 30)).any()
    clear = RED.convert("RGBA")
    clear.paste((0, 0, 0, 0), (4, 4, 12, 12))
    own = client.images.edit(image=png(clear), prompt="owl", extra_body={"seed": 2})
    assert (np.asarray(opened(own.data[0].b64_json).convert("RGB"))[~hole] == (200, 30, 30)).all()
    assert answer.usage.input_tokens_details.image_tokens == 4
    types = [
        e.type for e in client.images.edit(image=png(RED), mask=png(mask), prompt="owl", stream=True, partial_images=1)
    ]
    assert types == ["image_edit.partial_image", "image_edit.completed"]
    several = client.images.edit(image=[png(RED), png(RED.rotate(90))], prompt="owl", input_fidelity="high")
    assert len(several.data) == 1
    with pytest.raises(openai.BadRequestError, match="8x8"):
        client.images.edit(image=png(RED), mask=png(mask.resize((8, 8))), prompt="owl")
    with pytest.raises(openai.BadRequestError, match="image"):
        client.images.edit(image=("a.png", b"no picture"), prompt="owl")
    large = RED.resize((300, 200))
    hole = Image.new("L", large.size)
    hole.paste(255, (100, 50, 180, 120))
    answer = client.images.edit(image=png(large), mask=png(hole), prompt="owl", extra_body={"steps": 3})
    out = np.asarray(opened(answer.data[0].b64_json))
    assert out.shape == (200, 300, 3) and (out[np.asarray(hole) == 0] == (200, 30, 30)).all()


@pytest.mark.filterwarnings("ignore:deprecated")
def test_variations(client) -> None:
    answer = client.images.create_variation(image=png(RED.resize((64, 64))), n=2, size="256x256")
    for strength in (5e-324, 1e-3):
        client.images.create_variation(image=png(RED), extra_body={"strength": strength})
    images = [opened(one.b64_json) for one in answer.data]
    assert [i.size for i in images] == [(256, 256)] * 2 and pixels(images[0]) != pixels(images[1])


def test_errors_have_the_classes_that_clients_know(server, client, monkeypatch) -> None:
    url, desk = server
    with pytest.raises(openai.NotFoundError) as error:
        client.images.generate(prompt="owl", model="no-such")
    assert error.value.code == "model_not_found" and error.value.param == "model"
    for wrong in ({"n": 99}, {"size": "9x"}, {"background": "transparent"}, {"quality": "best"}, {"style": "cubist"}):
        with pytest.raises(openai.BadRequestError) as error:
            client.images.generate(prompt="owl", **wrong)
        assert error.value.type == "invalid_request_error" and next(iter(wrong)) in error.value.message
    refusal = Verdict(False, "a-rule", "owl", categories=("violence",), message="'owl' is refused by the rule a-rule")
    monkeypatch.setattr("sfumato.serve.desk.check", lambda prompt, rules: refusal)
    with pytest.raises(openai.BadRequestError) as error:
        client.images.generate(prompt="owl")
    assert error.value.code == "moderation_blocked" and error.value.type == "image_generation_user_error"
    details = error.value.body["moderation_details"]
    assert details == {"moderation_stage": "input", "categories": ["violence"], "rule": "a-rule", "word": "owl"}
    monkeypatch.undo()
    monkeypatch.setattr(desk.queue, "waiting", 0)
    with pytest.raises(openai.RateLimitError) as error:
        client.images.generate(prompt="owl")
    assert error.value.code == "queue_full" and int(error.value.response.headers["retry-after"]) >= 1
    monkeypatch.undo()
    desk.classifier = lambda image: {"violence": 1.0}
    monkeypatch.setattr(
        "sfumato.serve.desk.check_picture", lambda *told: Verdict(False, "picture", None, "output", ("violence",), "no")
    )
    with pytest.raises(openai.BadRequestError) as error:
        client.images.generate(prompt="owl")
    assert error.value.body["moderation_details"]["moderation_stage"] == "output"
    with pytest.raises(openai.APIError, match="no"):
        list(client.images.generate(prompt="owl", stream=True))
    desk.classifier = None


def test_hanging_up_ends_the_job(server) -> None:
    url, desk = server

    def idle() -> None:
        gone = time.monotonic()
        while desk.running:
            assert time.monotonic() - gone < 5
            time.sleep(0.005)

    for path, body in (("/v1/images/generations", {"steps": 250}), ("/sdapi/v1/txt2img", {"steps": 250})):
        done, cancelled = desk.totals["done"], desk.totals["cancelled"]
        with pytest.raises(httpx.ReadTimeout):
            http.post(url + path, json={"prompt": "owl", "batch_size": 10, "n": 10} | body, timeout=0.2)
        idle()
        assert (desk.totals["done"], desk.totals["cancelled"]) == (done, cancelled + 1)
    stream = {"prompt": "owl", "n": 10, "steps": 250, "stream": True, "partial_images": 3}
    done, cancelled = desk.totals["done"], desk.totals["cancelled"]
    with http.stream("POST", url + "/v1/images/generations", json=stream) as answer:
        next(answer.iter_lines())
    while desk.totals["cancelled"] == cancelled:
        time.sleep(0.005)
    idle()
    assert desk.totals["done"] == done
