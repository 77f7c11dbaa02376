"""The Studio's page: every file is served, nothing comes from outside, and it calls only what the server offers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from serving import tiny_model
from starlette.testclient import TestClient

import sfumato
import sfumato.serve
from sfumato.serve.app import build
from sfumato.serve.desk import Desk
from sfumato.serve.shelf import Shelf
from sfumato.serve.store import Store
from sfumato.serve.studio_page import FILES, KINDS

PAGE = Path(sfumato.serve.__file__).parent / "page"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGE.iterdir())}
SCRIPTS = {name: text for name, text in TEXTS.items() if name.endswith(".js")}
NAMESPACE = "http://www.w3.org/2000/svg"  # the name of a kind of element; nothing is fetched from it
TOKEN = "a-token-of-ours"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def client(model, tmp_path):
    return lambda token=None: TestClient(
        build(Desk(Store(tmp_path), Shelf([str(model)])), token=token), "http://127.0.0.1", follow_redirects=False
    )


def wanted(text: str) -> set[str]:
    """Files of ours that a file asks for: imports, and addresses in attributes."""
    return {f"/studio/{name}" for name in re.findall(r'from "\./([^"]+)"', text)} | set(
        re.findall(r'(?:src|href)="(/[^"]+)"', text)
    )


def outside(text: str) -> list[str]:
    return re.findall(r"(?:[a-z]+:)?//[\w.-]+\.[a-z]{2,}|@import|url\(", text.replace(NAMESPACE, ""))


def calls(text: str) -> set[tuple[str, str]]:
    """Methods and paths of the server's interface that a script names."""
    named = set(re.findall(r'ask\(\s*"([A-Z]+)", "([^"]+)"', text))
    return named | {("GET", path) for path in re.findall(r'address\("([^"]+)"', text)}


def test_all_of_the_page_is_served(client) -> None:
    found = client()
    page = found.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert set(FILES) == set(TEXTS), "a file of the page has a kind that is not served"
    for name, text in TEXTS.items():
        answer = found.get(f"/studio/{name}")
        assert answer.status_code == 200 and answer.text == text
        assert answer.headers["content-type"] == KINDS[Path(name).suffix]
        for other in wanted(text):
            assert found.get(other).status_code == 200, f"{name} asks for {other}"
    reached, todo = set(), {"/studio/index.html"}
    while todo:
        name = todo.pop().removeprefix("/studio/")
        reached.add(name)
        todo |= {other for other in wanted(TEXTS[name]) if other.removeprefix("/studio/") not in reached}
    assert reached == set(TEXTS), "a file of the page that nothing asks for"


def test_a_page_that_is_known_is_not_sent_again(client) -> None:
    found = client()
    tag = found.get("/studio/main.js").headers["etag"]
    assert found.get("/studio/main.js", headers={"if-none-match": tag}).status_code == 304
    assert found.get("/studio/main.js", headers={"if-none-match": '"another"'}).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fpolicy.json", "%2e%2e%2fguard.py", "..\\guard.py", "policy.json"])
def test_nothing_else_is_served(client, name) -> None:
    assert client().get(f"/studio/{name}").status_code == 404


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_comes_from_outside(name) -> None:
    assert outside(TEXTS[name]) == []


def test_the_check_of_outside_addresses_sees_them() -> None:
    for planted in ('<script src="https://cdn.example.com/a.js">', 'href="//fonts.example.com"', "@import 'x.css'"):
        assert outside(planted)


def test_the_page_needs_nothing_that_its_policy_forbids(client) -> None:
    policy = client().get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ") and "unsafe" not in policy and "*" not in policy
    assert not re.search(r"\s(style|on\w+)=|<style|<script(?![^>]*\ssrc=)", TEXTS["index.html"])
    for text in SCRIPTS.values():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


def test_every_call_is_one_that_the_server_offers(client) -> None:
    told = client().get("/openapi.json").json()["paths"]
    named = set().union(*(calls(text) for text in SCRIPTS.values()))
    assert len(named) > 12
    for method, path in named:
        assert method.lower() in told.get(path, {}), f"{method} {path}"


def test_the_fields_of_a_job_are_those_that_the_server_takes(client) -> None:
    schema = client().get("/openapi.json").json()["components"]["schemas"]["Wanted"]["properties"]
    form = TEXTS["compose.js"]
    body = re.search(r"export function told\(\).*?return \{(.*?)\n  \};", form, re.DOTALL).group(1)
    sent = set(re.findall(r"^    (\w+):", body, re.MULTILINE))
    assert len(sent) > 8 and sent <= set(schema)
    modes = set(re.findall(r'name="mode" value="(\w+)"', TEXTS["index.html"]))
    assert len(modes) == 5 and modes <= set(schema["task"]["enum"])


def test_no_page_without_the_token(client) -> None:
    found = client(TOKEN)
    assert found.get("/").status_code == 401 and found.get("/studio/main.js").status_code == 401
    assert found.get("/?token=another").status_code == 401
    assert found.get(f"/studio/main.js?token={TOKEN}").status_code == 401, "only the page's own address takes it"
    entered = found.get(f"/?token={TOKEN}")
    assert entered.status_code == 303 and entered.headers["location"] == "/", "the token leaves the address"
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert found.get("/").status_code == found.get("/studio/main.js").status_code == 200


def test_a_wrong_token_does_not_take_the_place_of_a_right_one(client) -> None:
    found = client(TOKEN)
    found.get(f"/?token={TOKEN}")
    answer = found.get("/?token=another")
    assert answer.status_code == 200 and "set-cookie" not in answer.headers


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", block))


def contrast(a: str, b: str) -> float:
    """WCAG 2: (L1 + 0.05) / (L2 + 0.05) of relative luminances."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        linear = []
        for k in (0, 2, 4):
            v = int(digits[k : k + 2], 16) / 255
            linear.append(v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4)
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_words_can_be_read_in_light_and_dark() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(
        4.48, abs=0.01
    )
    css = TEXTS["studio.css"]
    light = colours(css[: css.index("@media")])
    dark, asked = (
        colours(css[css.index(start) :].split("}")[0]) for start in ("@media (prefers", ':root[data-theme="dark"]')
    )
    assert dark and dark == asked, "dark by the system and dark by choice are one"
    for theme in (light, light | dark):
        for ground in ("paper", "card"):
            assert all(contrast(theme[ink], theme[ground]) >= 4.5 for ink in ("ink", "soft", "accent", "warn"))
            assert contrast(theme["edge"], theme[ground]) >= 3, "edges of fields"
        assert contrast(theme["on"], theme["accent"]) >= 4.5


def test_an_installed_package_has_the_page() -> None:
    told = (Path(sfumato.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"serve/page/*"' in told.partition("[tool.setuptools.package-data]")[2].partition("[")[2].partition("]")[0]


def test_files_are_small() -> None:
    assert all(len(text.splitlines()) <= 400 for text in TEXTS.values())
