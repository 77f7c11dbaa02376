"""The other doors of the server: A1111's clients, Imagen's, the Studio's, and who may come in."""

# ruff: noqa: F811 - fixtures are imported by name
from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
import webuiapi
from PIL import Image, ImageDraw
from serving import RED, client, ended, http, model, opened, pixels, png, served, server, tiny_model, url  # noqa: F401

import sfumato

TOKEN = "a-long-enough-token"


def test_webuiapi_draws_watches_and_interrupts(url) -> None:
    web = webuiapi.WebUIApi(baseurl=url + "/sdapi/v1")
    assert "DPM++ 2M" in web.util_get_sampler_names() and web.get_options()["sd_model_checkpoint"].startswith("tiny [")
    web.set_options({"sd_model_checkpoint": web.util_get_model_names()[0]})
    for listed in (
        web.get_schedulers,
        web.get_upscalers,
        web.get_latent_upscale_modes,
        web.get_sd_vae,
        web.get_scripts,
    ):
        assert isinstance(listed(), list | dict)
    told = {"prompt": "(red:1.2) apple", "seed": 9, "width": 32, "height": 32, "steps": 6}
    one, again = (web.txt2img(**told, batch_size=2) for _ in range(2))
    assert [i.size for i in one.images] == [(32, 32)] * 2 and one.info["all_seeds"] == [9, 9]
    assert [pixels(i) for i in one.images] == [pixels(i) for i in again.images] and one.info["prompt"] == "red apple"
    assert one.parameters["steps"] == 6
    mask = Image.new("L", (16, 16))
    ImageDraw.Draw(mask).rectangle((4, 4, 11, 11), fill=255)
    filled = web.img2img(images=[RED], mask_image=mask, prompt="owl", steps=6, width=16, height=16, seed=1)
    out, hole = np.asarray(filled.image), np.asarray(mask) > 0
    assert (out[~hole] == (200, 30, 30)).all() and (out[hole] != (200, 30, 30)).any()
    turned = web.img2img(
        images=[RED], mask_image=mask, inpainting_mask_invert=1, prompt="owl", steps=6, width=16, height=16, seed=1
    )
    assert (np.asarray(turned.image)[hole] == (200, 30, 30)).all()
    near, far = (
        np.asarray(web.img2img(images=[RED], prompt="owl", denoising_strength=s, width=16, height=16, seed=1).image)
        for s in (0.1, 0.9)
    )
    assert np.abs(near - np.array((200.0, 30, 30))).mean() < np.abs(far - np.array((200.0, 30, 30))).mean()
    with pytest.raises(RuntimeError, match="Sampler not found"):
        web.txt2img(prompt="owl", sampler_name="Nobody's")
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(web.txt2img, prompt="owl", steps=250, batch_size=10)
        seen = []
        while not seen or seen[-1] < 0.05:
            told = web.get_progress()
            if told["progress"]:
                seen.append(told["progress"])
            assert not drawing.done()
        assert told["state"]["job_count"] == 1 and opened(told["current_image"]).size == (16, 16)
        began = time.monotonic()
        web.interrupt()
        assert len(drawing.result(10).images) == 10 and time.monotonic() - began < 5
    web.util_wait_for_ready(check_interval=0.02)


def test_the_calls_of_sillytavern_and_open_webui(url) -> None:
    """As their sources make them, in their order."""
    base = url + "/sdapi/v1"
    assert http.get(base + "/options").json()["sd_model_checkpoint"]
    for name in ("upscalers", "latent-upscale-modes", "sd-vae", "sd-modules", "samplers", "schedulers", "sd-models"):
        assert isinstance(http.get(f"{base}/{name}").json(), list)
    title = http.get(base + "/sd-models").json()[0]["title"]
    assert http.post(base + "/options", json={"sd_model_checkpoint": title}).status_code == 200
    assert http.post(base + "/options", json={"sd_model_checkpoint": "other"}).status_code == 404
    told = http.get(base + "/progress").json()
    assert told["progress"] == 0 and told["state"]["job_count"] == 0
    tavern = {
        "prompt": "best quality, (owl:1.3), <lora:x:1>",
        "negative_prompt": "car",
        "sampler_name": "DPM++ 2M Karras",
        "scheduler": "Automatic",
        "steps": 6,
        "cfg_scale": 7,
        "width": 512,
        "height": 512,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "Latent",
        "denoising_strength": 0.7,
        "seed": -1,
        "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"},
        "override_settings_restore_afterwards": True,
        "clip_skip": 1,
        "save_images": True,
        "send_images": True,
        "do_not_save_grid": False,
        "do_not_save_samples": False,
    }
    told = http.post(base + "/txt2img", json=tavern).json()
    assert opened(told["images"][0]).size == (512, 512) and json.loads(told["info"])["prompt"].endswith("owl,")
    body = {"prompt": "owl", "batch_size": 2, "width": 64, "height": 64}
    assert len(http.post(base + "/txt2img", json=body).json()["images"]) == 2
    body = {"model": "dall-e-2", "prompt": "owl", "n": 1, "size": "512x512", "response_format": "b64_json"}
    assert opened(http.post(url + "/v1/images/generations", json=body).json()["data"][0]["b64_json"]).size == (512, 512)
    body = {
        "instances": {"prompt": "owl"},
        "parameters": {"sampleCount": 1, "outputOptions": {"mimeType": "image/png"}},
    }
    told = http.post(url + "/v1beta/models/imagen-3.0-generate-002:predict", json=body)
    assert opened(told.json()["predictions"][0]["bytesBase64Encoded"]).format == "PNG"


def test_imagen_predicts(url) -> None:
    body = {"instances": [{"prompt": "owl"}], "parameters": {"sampleCount": 2, "seed": 3, "aspectRatio": "16:9"}}
    body["parameters"]["outputOptions"] = {"mimeType": "image/jpeg"}
    told = http.post(url + "/v1beta/models/imagen-4.0-generate-001:predict", json=body).json()["predictions"]
    image = opened(told[0]["bytesBase64Encoded"])
    assert len(told) == 2 and image.format == "JPEG" and image.width > image.height
    wrong = http.post(url + "/v1beta/models/tiny:predict", json={"instances": []})
    assert wrong.status_code == 400 and wrong.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert http.post(url + "/v1/models/none:predict", json=body).json()["error"]["status"] == "NOT_FOUND"


def test_the_studio_sees_its_jobs_go_finds_them_and_what_came_of_them(url) -> None:
    first = http.post(url + "/api/jobs", json={"prompt": "a Police car --seed 5 --no owl", "n": 1, "steps": 40}).json()
    events = []
    with http.stream("GET", f"{url}/api/jobs/{first['id']}/events", timeout=30) as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                events.append([line[7:]])
            elif line.startswith("data: "):
                events[-1].append(json.loads(line[6:]))
    kinds = [kind for kind, _ in events]
    assert kinds[-1] == "done" and "step" in kinds
    steps = [(told["step"], told["of"]) for kind, told in events if kind == "step"]
    assert steps == sorted(steps) and steps[-1][1] == 40
    assert opened(next(told["previews"][0] for kind, told in events if kind == "step" and told["previews"])).size == (
        16,
        16,
    )
    done = events[-1][1]
    (file,) = done["files"]
    assert done["request"]["negative"] == "owl" and done["result"]["seed"] == 5
    data = http.get(f"{url}/api/files/{file['hash']}")
    assert data.headers["content-type"] == "image/png" and data.headers["x-content-type-options"] == "nosniff"
    uploaded = http.post(url + "/api/uploads", files={"file": ("x.png", data.content)}).json()
    assert uploaded["hash"] == file["hash"] and uploaded["settings"]["request"]["seed"] == 5
    child = http.post(
        url + "/api/jobs", json={"task": "vary", "image": file["hash"], "parents": [first["id"]], "strength": 0.3}
    ).json()
    assert set(ended(url, child["id"])["parents"]) == {first["id"], file["hash"]}
    assert http.get(f"{url}/api/jobs/{first['id']}").json()["children"] == [child["id"]]
    found = http.get(url + "/api/jobs", params={"q": "CAR police", "state": "done"}).json()
    assert [job["id"] for job in found["jobs"]] == [first["id"]] and found["next"] is None
    assert http.get(url + "/api/jobs", params={"q": "%", "limit": 1}).json()["jobs"] == []
    page = http.get(url + "/api/jobs?limit=1").json()
    assert http.get(f"{url}/api/jobs?limit=1&before={page['next']}").json()["jobs"][0]["id"] != page["jobs"][0]["id"]


@pytest.mark.parametrize("task", ["inpaint", "outpaint", "upscale", "vary", "sketch", "layout"])
def test_every_task_of_the_studio(url, task: str) -> None:
    def upload(image: Image.Image) -> str:
        return http.post(url + "/api/uploads", files={"file": png(image)}).json()["hash"]

    lines, mask = Image.new("L", (16, 16), 255), Image.new("L", (16, 16))
    ImageDraw.Draw(lines).line((2, 2, 12, 12), fill=0)
    ImageDraw.Draw(mask).rectangle((4, 4, 11, 11), fill=255)
    layout = {"width": 16, "height": 16, "boxes": [{"box": [0, 0, 0.5, 0.5], "text": "owl"}]}
    needs = {
        "inpaint": {"image": RED, "mask": mask},
        "outpaint": {"image": RED, "size": "24x20"},
        "upscale": {"image": RED, "scale": 2},
        "vary": {"image": RED},
        "sketch": {"sketch": lines},
        "layout": {"layout": layout},
    }[task]
    body = {name: upload(value) if isinstance(value, Image.Image) else value for name, value in needs.items()}
    job = http.post(url + "/api/jobs", json={"task": task, "prompt": "owl", "steps": 3} | body).json()
    done = ended(url, job["id"])
    assert done["state"] == "done", done["error"]
    size = {"outpaint": (24, 20), "upscale": (32, 32)}.get(task, (16, 16))
    assert [(file["width"], file["height"]) for file in done["files"]] == [size]
    failed = http.post(url + "/api/jobs", json={"task": task})
    assert failed.status_code == 200 and ended(url, failed.json()["id"])["state"] == "failed"


def test_health_metrics_and_the_document(url) -> None:
    assert http.get(url + "/health").json()["status"] == "ok"
    lines = http.get(url + "/metrics").text.splitlines()
    told = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    done = http.get(url + "/api/jobs?state=done&limit=500").json()["jobs"]
    assert told['sfumato_jobs_total{state="done"}'] == len(done) and told["sfumato_waiting"] == 0
    assert told["sfumato_pictures_total"] == sum(job["request"]["n"] for job in done)
    document = http.get(url + "/openapi.json").json()
    assert document["info"]["version"] == sfumato.__version__
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation.get("description") or operation.get("summary"), path
            assert "422" not in operation["responses"] and "200" in operation["responses"]
    body = document["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"image", "mask", "prompt", "size", "partial_images"} <= set(body["properties"])


def test_with_a_token_nothing_but_health_is_open(model, tmp_path) -> None:
    with served(model, tmp_path / "data", TOKEN) as (url, _):
        assert http.get(url + "/health").status_code == 200
        for path in ("/v1/models", "/api/jobs", "/metrics", "/openapi.json", "/sdapi/v1/options", "/api/jobs/x/events"):
            assert http.get(url + path).status_code == 401
        with pytest.raises(openai.AuthenticationError) as error:
            openai.OpenAI(base_url=url + "/v1", api_key="wrong", max_retries=0).models.list()
        assert error.value.code == "invalid_api_key"
        client = openai.OpenAI(base_url=url + "/v1", api_key=TOKEN, max_retries=0)
        link = client.images.generate(prompt="owl", response_format="url", extra_body={"steps": 2}).data[0].url
        assert http.get(link).status_code == 200
        assert http.get(link[:-1] + ("0" if link[-1] != "0" else "1")).status_code == 401
        assert http.get(link.split("?")[0]).status_code == 401
        web = webuiapi.WebUIApi(baseurl=url + "/sdapi/v1", username="anyone", password=TOKEN)
        assert web.util_get_model_names()
        assert http.get(url + "/v1/models", auth=("anyone", "wrong")).status_code == 401
        for key in ({"headers": {"x-goog-api-key": TOKEN}}, {"params": {"key": TOKEN}}):
            assert http.get(url + "/v1/models", **key).status_code == 200
