"""What was begun and not finished is named by `doctor`, with the command that resumes it."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime

import pytest
from anchoring import declare_anchors
from click.testing import CliRunner

from pip_dagster.erasure import erase as erasing
from pip_dagster.erasure import purge as purging
from pip_dagster.erasure.erase import erase
from pip_dagster.erasure.holds import place_hold
from pip_dagster.erasure.purge import purge
from pip_dagster.erasure.wish import Wish

DAY = "2024-03-01"


def erasures(tiny):
    """Text → remedy of what doctor warns of."""
    from pip_dagster.cli.main import cli

    said = CliRunner().invoke(cli, ["--project", str(tiny.root), "doctor", "--json"]).stdout
    found = [each for each in json.loads(said)["lines"] if each["what"] == "erasures"]
    return {each["text"]: each["remedy"] for each in found if each["level"] == "warning"}


def failing(patch, module, name):
    patch.setattr(module, name, lambda *_, **__: 1 / 0)
    return pytest.raises(ZeroDivisionError)


@pytest.mark.slice
def test_doctor_names_what_is_not_finished_and_what_resumes_it(tiny, monkeypatch):
    declare_anchors(tiny)
    tiny.declare(privacy={"subject": "order_id"})
    tiny.run(DAY)
    tiny.shell("audit", "accept", "--moves", "--why", "moved from Python")
    pipelines = [tiny.pipeline()]
    [(one,)] = tiny.source_rows(f"SELECT max(order_id) FROM raw.orders WHERE day = '{DAY}'")
    hold = place_hold(tiny.project, pipelines, str(one), why="claim 8", by="ada")

    with monkeypatch.context() as patch, failing(patch, erasing, "places_behind"):
        erase(tiny.project, pipelines, Wish(str(one), "request 'a'", "ada"))
    with monkeypatch.context() as patch, failing(patch, erasing.FilePlace, "remove"):
        erase(tiny.project, pipelines, Wish(str(one), "request 'a'", "ada"))
    [(text, remedy)] = erasures(tiny).items()
    assert "erasure" in text and "is not finished" in text and "done: golden rows, warehouse, published" in text
    again = shlex.split(remedy.partition(", with the same person")[0].replace(" ID ", f" {one} "))[1:]
    with monkeypatch.context() as patch:
        patch.setattr(erasing, "anchor_after", lambda *_, **__: False)
        tiny.shell(*again)
    [(text, remedy)] = erasures(tiny).items()
    assert "is done, and no anchor vouches for what it rewrote" in text
    tiny.shell(*shlex.split(remedy.partition(", with the same person")[0].replace(" ID ", f" {one} "))[1:])
    assert not erasures(tiny)

    tiny.shell("hold", "release", hold, "--why", "settled")
    [(text, remedy)] = erasures(tiny).items()
    assert text.startswith(f"hold {hold} is released, and 2 rows that it kept") and "repeat the erasure" in remedy

    days = (datetime.now(UTC) - datetime.fromisoformat(DAY).replace(tzinfo=UTC)).days - 1
    tiny.declare(privacy={"subject": "order_id", "retention": {"content": f"{days} days"}})
    with monkeypatch.context() as patch, failing(patch, purging, "certify"):
        purge(tiny.project, [tiny.pipeline()], actor="ada")
    [(text, remedy)] = erasures(tiny).items()
    assert text.startswith("purge ") and "is not finished" in text and remedy == "pip-dagster purge orders"
    with monkeypatch.context() as patch, failing(patch, purging, "vouch"):
        purge(tiny.project, [tiny.pipeline()], actor="ada")
    assert ["no anchor vouches" in text for text in erasures(tiny)] == [True]
    assert "no anchor vouches" in tiny.shell("audit", "verify", "--anchors", code=1)
    tiny.shell("purge", "orders")
    assert not erasures(tiny) and "agrees with" in tiny.shell("audit", "verify", "--anchors")
