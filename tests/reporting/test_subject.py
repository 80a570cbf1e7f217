"""The subject report: everything about one person, nothing about others."""

import hashlib
import json
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor

from pip_dagster.reporting.subject_page import write_private

ROW = "SELECT order_id FROM orders.predictions ORDER BY order_id LIMIT 1"


def _report(tiny, subject, *words):
    file = tiny.root / "person.json"
    tiny.shell("subject", "report", subject, "orders", *words, "--json", "-o", str(file))
    return json.loads(file.read_text())


def test_has_every_prediction_of_one_person_and_nobody_else(tiny):
    tiny.declare(decisions={"risky": "score >= 0.4"}, explanations={"top": 2})
    tiny.run()
    tiny.declare(decisions={"risky": "score >= 0.6"}, explanations={"top": 2})
    tiny.run()
    key = str(tiny.warehouse(ROW)[0][0])
    found = _report(tiny, key, "--column", "order_id")
    stored = tiny.warehouse(f"SELECT scoring_id, score FROM orders.scores WHERE order_id = {key} ORDER BY scoring_id")
    (of,) = found["pipelines"]
    assert [each["scoring_id"] for each in of["predictions"]] == [row[0] for row in stored] and len(stored) == 2
    assert {each["decision_rule"]["risky"] for each in of["predictions"]} == {"score >= 0.4", "score >= 0.6"}
    assert [each["is_live"] for each in of["predictions"]] == [False, True]
    for each, (_, score) in zip(of["predictions"], stored, strict=True):
        assert each["result"]["score"] == score and each["features"]["order_id"] == int(key)
        assert len(each["reasons"]) == 2 and each["live"] and "risky" in each["result"]
    assert of["models"][0]["model"] == "returns" and of["models"][0]["promotions"]
    page = tiny.root / "person.html"
    tiny.shell("subject", "report", key, "--column", "order_id", "-o", str(page))
    text = page.read_text()
    assert "<script" not in text and "default-src 'none'" in text and "score &gt;= 0.6" in text
    assert page.stat().st_mode & 0o077 == 0
    entries = tiny.warehouse("SELECT subject || details FROM ledger.audit WHERE action = 'report'")
    assert len(entries) == 2 and found["token"] in entries[0][0]
    assert _report(tiny, key, "--column", "ORDER_ID")["pipelines"][0]["predictions"] == of["predictions"]
    assert not any(re.search(rf"\b{key}\b", text) for (text,) in entries)
    assert "the chain is intact" in tiny.shell("audit", "verify", code=4)  # 4: the fixture moved the alias


def test_says_so_where_nothing_is_known(tiny):
    tiny.run()
    for subject, words, expected in (
        ("no such person'", ["--column", "order_id"], "No prediction"),
        ("1", ["--column", "customer"], "no column 'customer'"),
        ("1", [], "does not declare its subject"),
    ):
        file = tiny.root / "nobody.html"
        assert expected in tiny.shell("subject", "report", subject, "orders", *words, "-o", str(file), code=1)
        assert not file.exists()


def test_a_new_file_is_its_owners_and_a_pipe_keeps_its_rights(tmp_path):
    file, pipe = tmp_path / "person.json", tmp_path / "pipe"
    assert write_private(file, ["a", "b"])[0] == file and stat.S_IMODE(file.stat().st_mode) == 0o600
    os.mkfifo(pipe)
    pipe.chmod(0o666)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        assert write_private(pipe, ["a", "b"])[1:] == (hashlib.sha256(b"ab").hexdigest(), 2)
        assert read.result(10) == b"ab"
    assert stat.S_ISFIFO(pipe.stat().st_mode) and stat.S_IMODE(pipe.stat().st_mode) == 0o666
