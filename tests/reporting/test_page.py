"""The page of any content: markup of users stays text, it is small, readable in both schemes, and loads nothing."""

import dataclasses
import fnmatch
import json
import os
import re
import shutil
import subprocess
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pip_dagster.reporting import charts, compared, content
from pip_dagster.reporting.content import ColumnLine, Day, Distribution, Report, Window
from pip_dagster.reporting.page import comparison_to_html, rough, to_html, to_json

TEMPLATES = Path(charts.__file__).parent / "templates"
HOSTILE = (
    '<script>alert("x")</script>',
    "'\"><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "</style></title></svg><b>",
    "😀🏳️‍🌈",
    "\u202edetrevni",
    "a\x00b\x1b[31m",
    "\ud800",
    "n" * 500,
    "javascript:alert(1)",
    "&lt;b&gt;",
)


def filled(kind, text, depth=0):
    """A content of this type in which every text is `text`."""
    if kind is str:
        return text
    if kind in (int, float, bool):
        return kind(1)
    if kind is type(None):
        return None
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{each.name: filled(hints[each.name], text, depth) for each in dataclasses.fields(kind)})
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is ...:
            return (filled(arguments[0], text),) * 3
        return tuple(filled(each, text) for each in arguments)
    if origin is dict:
        return {"segments": filled(arguments[1], text)}
    if str(origin) == "typing.Literal":
        return arguments[0]
    return filled(arguments[0], text)  # X | None


def hostile_report(text):
    found = filled(Report, text)
    days = tuple(dataclasses.replace(found.days[0], partition=f"{i}{text}") for i in range(3))
    return dataclasses.replace(
        found, days=days, thresholds=(content.Named("monitoring.psi", "0.1"), content.Named(text, text)), unavailable={}
    )


def hostile_comparison(text):
    found = filled(compared.Comparison, text)
    (scores, *_) = found.scores
    return dataclasses.replace(found, scores=(dataclasses.replace(scores, weeks=scores.weeks[:2]),), unavailable={})


class Tags(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.text = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def check_harmless(page):
    found = Tags(page)
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "img", "iframe", "link", "object", "form", "input", "base", "b x"}
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style", "action")], tag
        assert attributes.get("href", "#").startswith("#")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.replace("\r", ""))
    page.encode()
    (policy,) = (each["content"] for tag, each in found.elements if each.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return found


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_users_write_is_text(text):
    found = check_harmless(to_html(hostile_report(text)))
    check_harmless(comparison_to_html(hostile_comparison(text)))
    json.loads(to_json(hostile_report(text)).encode())
    if "<" in text or "{{" in text:
        assert text in "".join(found.text), "as it was written"
    assert "49" not in rough("{{ 7 * 7 }}")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=40))
def test_any_text_is_text(text):
    check_harmless(to_html(hostile_report(text)))


def synthetic(partitions, features):
    days = tuple(
        Day(f"2024-01-{i:03}", "live", 1, 1000 + i, 3, 0.2, 0.5, 1, 0, drift="ok", unmet=("features: x",) * (i % 2))
        for i in range(partitions)
    )
    bins = (*(f"above {i}.12345 up to {i + 1}.12345" for i in range(20)), "missing", "never seen")
    shares = tuple((1 + (i * 7) % 5) / 66 for i in range(22))
    column = ColumnLine(
        *("feature", "x", "ok", 0.02, 0.01, 0.5, 0.1, 0.1, 0.1, "above 1.2345 up to 2.3456: 5.0% to 10.0%", 1.5, 1.4),
        *(0.1, 0.2, 3, tuple(0.1 + i % 7 for i in range(partitions)), bins, shares, shares),
    )
    columns = tuple(dataclasses.replace(column, name=f"a_feature_of_the_model_{i}") for i in range(features))
    weeks = tuple(Window(days[0].partition, days[-1].partition, 7000, shares) for _ in range(6))
    text = filled(Report, "text of an ordinary length")
    return dataclasses.replace(
        text, days=days, columns=columns, scores=(Distribution("score", bins, shares, 10_000, weeks),), unavailable={},
        thresholds=(content.Named("monitoring.psi", "0.1"),), decisions=(), performance=(),
    )  # fmt: skip


@pytest.mark.parametrize(("partitions", "features"), [(90, 40), (90, 2000), (1000, 40)])
def test_the_page_is_small(partitions, features):
    page = to_html(synthetic(partitions, features)).encode()
    assert len(page) < (300_000 if partitions == 90 and features == 40 else 1_000_000)
    assert json.loads(to_json(synthetic(partitions, 1)))["days"][-1]["rows"] == 999 + partitions


def luminance(colour):
    colour = colour if len(colour) == 7 else "#" + "".join(2 * each for each in colour[1:])
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_in_every_scheme_and_is_never_small():
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    schemes = [dict(re.findall(r"--(\w+):(#\w+)", each)) for each in re.findall(r":root\{[^}]*\}", css)]
    assert len(schemes) == 3, "light, dark and print"
    for scheme in schemes:
        for text in ("text", "soft", "main", "second", "ok", "warning", "alarm", "unknown"):
            for ground in ("bg", "panel"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground, scheme)
        assert contrast(scheme["main"], scheme["band"]) >= 3, "a line on the band"
    sizes = [float(each) for each in re.findall(r"font(?:-size)?:[^;{}]*?(\d+(?:\.\d+)?)px", css)]
    assert min(sizes) >= 12


SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"


def test_the_documented_schema_is_that_of_the_content():
    """Written again by `UPDATE_SNAPSHOTS=1 pytest <this file>`; a field that is gone needs another schema version."""
    schema = TypeAdapter(Report).json_schema(mode="serialization")
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SCHEMA.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    documented = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert {name: set(of["properties"]) for name, of in documented["$defs"].items()} == {
        name: set(of["properties"]) for name, of in schema["$defs"].items()
    }
    jsonschema.validate(json.loads(to_json(hostile_report("x"))), documented)


def test_the_templates_are_in_the_wheel():
    root = TEMPLATES.parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["pip_dagster"]
    for file in TEMPLATES.iterdir():
        name = str(file.relative_to(root / "pip_dagster"))
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


def test_scales_have_round_numbers_around_the_values():
    scale = charts.Scale.of([0.13, None, 0.47])
    assert scale.low <= 0.13 and scale.high >= 0.47 and scale.ticks == (0.6, 0.4, 0.2, 0.0)[: len(scale.ticks)]
    assert charts.Scale.of([]).ticks and charts.Scale.of([3.0]).high > 3.0
    assert charts.Scale.of([0.0, 0.0]).y(0.0) == 100.0


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MEASURE = """<!doctype html><body style="margin:0"><iframe src="{page}" style="border:0;width:{width}px;height:900px"
onload="const d = this.contentDocument.documentElement; let small = [];
const page = this.contentDocument; const view = this.contentWindow;
for (const each of page.body.querySelectorAll('*')) {{
  if (each.closest('svg') && each.tagName != 'svg') continue;
  if (each.childNodes.length && parseFloat(view.getComputedStyle(each).fontSize) < 12) small.push(each.tagName);
}}
document.title = JSON.stringify({{width: d.scrollWidth, height: d.scrollHeight, small: small.slice(0, 5),
  unnamed: [...page.querySelectorAll('svg[role=img]')].filter(e => !e.querySelector('title')).length}})"></iframe>"""


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_without_errors_and_without_scrolling_sideways(tmp_path, width):
    page = tmp_path / "report.html"
    report = dataclasses.replace(hostile_report("n" * 500), columns=synthetic(3, 40).columns)
    page.write_text(to_html(report), encoding="utf-8")
    (tmp_path / "measure.html").write_text(MEASURE.format(page=page.as_uri(), width=width))
    ended = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"),
            *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"),
            (tmp_path / "measure.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CONSOLE" not in ended.stderr, ended.stderr[-2000:]
    found = json.loads(re.search(r"<title>(\{.*?\})</title>", ended.stdout)[1].replace("&quot;", '"'))
    assert found["width"] <= width and found["height"] > 2000
    assert found["small"] == [] and found["unnamed"] == 0
