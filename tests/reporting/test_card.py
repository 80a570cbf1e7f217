"""The model card: the same figures as the report's, in Markdown and as a page."""

import dataclasses
import json
import re

from pip_dagster.registry.signing import key_id, keygen, private_key
from pip_dagster.reporting.collect import collect
from pip_dagster.reporting.page import card_to_html, card_to_markdown


def test_says_what_the_report_says_of_the_model(reported):
    reported.shell("performance", "orders", "--evaluate")
    text = reported.shell("models", "card", "orders")
    report = collect(reported.pipeline())
    assert text == card_to_markdown(report)
    for part in ("# returns v1: model card", "## Approvals", "## Drift", "champion"):
        assert part in text
    for row in report.card:
        assert f"| {row.name.replace('_', chr(92) + '_')} |" in text
    assert report.versions[0].model_digest in text
    assert all(f"| {series.metric.replace('_', chr(92) + '_')} |" in text for series in report.performance)
    widths = {
        len(re.split(r"(?<!\\)\|", line)) for line in text.split("## Versions")[1].split("##")[0].splitlines() if line
    }
    assert len(widths) == 1, "every row of a table has its columns"


def test_says_who_signed_and_when_gates_were_run(tiny, tmp_path):
    for name in ("ada", "bob"):
        keygen(tmp_path / name)
    signers = [str(tmp_path / f"{name}.pub.pem") for name in ("ada", "bob", "lost")]
    tiny.declare(scoring={"required_signers": signers})
    tiny.shell("models", "sign", "returns", "v1", "--key", str(tmp_path / "ada.pem"))
    ada, bob = (key_id(private_key(tmp_path / f"{name}.pem").public_key()) for name in ("ada", "bob"))
    text = tiny.shell("models", "card", "orders")
    assert f"| signatures | signed by the key {ada}, not signed by the key {bob}, required signer" in text
    assert "| gates judged | no gate was run |" in text
    tiny.declare()
    tiny.shell("models", "gate", "orders", "v1")
    text = tiny.shell("models", "card", "orders")
    assert re.search(r"gates judged \| 20\d\d-\d\d-\d\d .* for orders, against v1", text)
    assert "| signatures | none is required |" in text


def test_is_a_page_by_its_name(reported):
    said = reported.shell("models", "card", "orders", "-o", str(reported.root / "card.html"))
    page = (reported.root / "card.html").read_text()
    found = json.loads(reported.shell("models", "card", "orders", "--json"))
    assert found["card"][0]["name"] == "model" and found["versions"][0]["version"] == 1
    assert "card.html" in said and page == card_to_html(collect(reported.pipeline()))
    assert page.startswith("<!doctype html>") and "<script" not in page and "Known limits" in page


def test_before_anything_was_scored(tiny):
    text = tiny.shell("models", "card", "orders")
    assert "model card" in text and "No gate was run" in text


def test_text_of_people_is_no_markup(reported):
    report = collect(reported.pipeline())
    hostile = "<script>alert(1)</script> | [x](javascript:1) `code`\n# head"
    text = card_to_markdown(dataclasses.replace(report, limits=(hostile,), owners=(hostile,)))
    line = next(line for line in text.splitlines() if "alert" in line)
    assert "<script" not in line and r"\|" in line and r"\[x\]" in line and "# head" in line


def test_of_a_damaged_version_does_not_say_that_nothing_happened(reported):
    manifest = reported.registry.get("returns", 1).path / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_text("{")
    text = reported.shell("models", "card", "orders")
    assert "was registered: the file has changed" in text
    assert "No version is live" not in text and "No alias was moved" not in text
    assert "No alias was moved" not in card_to_html(collect(reported.pipeline()))
