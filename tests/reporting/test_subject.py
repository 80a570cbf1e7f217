"""The subject report: everything about one person, nothing about others."""

import hashlib
import json
import os
import re
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from pip_dagster.privacy.keys import keys_of
from pip_dagster.reporting.subject_page import write_private

ROW = "SELECT order_id FROM orders.predictions ORDER BY order_id LIMIT 1"


def _report(tiny, subject, *words):
    file = tiny.root / "person.json"
    tiny.shell("subject", "report", subject, "orders", *words, "--json", "-o", str(file))
    return json.loads(file.read_text())


@pytest.mark.slice
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


class Page(HTMLParser):
    """The ids, the links within the page, and how many sections it has."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.predictions = [], set(), 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        of = dict(attrs)
        self.ids += [of["id"]] if "id" in of else []
        self.links |= {of["href"][1:]} if of.get("href", "").startswith("#") else set()
        self.predictions += tag == "summary"


@pytest.mark.slice
@pytest.mark.parametrize(("person", "rows"), [("Ærøskøbing 東京 <b>", 1), ("东京 👩‍👩‍👧 'x'", 300)])
def test_reasons_are_computed_where_none_were_stored_and_say_so_where_they_cannot_be(tiny, person, rows):
    tiny.source(
        "ALTER TABLE raw.orders ADD COLUMN person VARCHAR",
        "INSERT INTO raw.orders BY NAME SELECT 9000 + i AS order_id, DATE '2024-03-01' AS day, 12.5 AS amount, "
        f"2 AS quantity, true AS gift, 'plain' AS shop, $${person}$$ AS person FROM range({rows}) r(i)",
    )
    sql = "SELECT order_id, day, gift, shop, quantity, amount, person FROM raw.orders WHERE day >= $start_date "
    sql += "AND day < $end_date"
    tiny.declare(sql, explanations={"top": 2})
    tiny.run("2024-03-01")
    stored = _report(tiny, person, "--column", "person")["pipelines"][0]["predictions"]
    tiny.declare(sql)
    tiny.run("2024-03-01")
    of = _report(tiny, person, "--column", "person")["pipelines"][0]["predictions"]
    assert len(stored) == rows and len(of) == 2 * rows
    computed = [each for each in of if each["reasons_from"] == "computed"]
    first = {each["features"]["order_id"]: each["reasons"] for each in stored}
    assert {each["reasons_from"] for each in stored} == {"stored"} and len(computed) == rows
    assert all(each["reasons"][:2] == first[each["features"]["order_id"]] for each in computed)
    file = tiny.root / "person.html"
    tiny.shell("subject", "report", person, "orders", "--column", "person", "-o", str(file))
    page = Page(text := file.read_text())
    assert page.predictions == 2 * rows and text.count("these were computed for this report") == rows
    assert page.links <= {*page.ids} and len(page.ids) == len({*page.ids}) and str(escape(person)) in text
    shutil.rmtree(tiny.registry.get("returns", 1).path)
    (*_, last) = _report(tiny, person, "--column", "person")["pipelines"][0]["predictions"]
    assert not last["reasons"] and "v1" in last["no_reasons"]
    tiny.shell("subject", "report", person, "orders", "--column", "person", "-o", str(file))
    assert "and they cannot be computed: " in file.read_text()


def test_two_models_of_one_version_number_have_sections_of_their_own(tiny):
    tiny.run("2024-03-01", "2024-03-02")
    tiny.tamper("UPDATE ledger.scorings SET model_name = 'other' WHERE partition_key = '2024-03-02'")
    file = tiny.root / "person.html"
    tiny.shell("subject", "report", "東京", "orders", "--column", "shop", "-o", str(file))
    page = Page(file.read_text())
    assert len(page.ids) == 2 == len({*page.ids}) and page.links == {*page.ids}


def test_a_person_of_whom_only_an_erasure_is_known_has_a_page_without_predictions(tiny):
    tiny.declare(privacy={"subject": "order_id"})
    tiny.run("2024-03-01")
    (key,) = keys_of(tiny.pipeline())
    token = key.suppressing.pseudonym("Æ 東京")
    tiny.tamper(
        "INSERT INTO ledger.erasures (erasure_id, kind, state, why, made_at) "
        "VALUES ('e1', 'erase', 'done', 'x', now())",
        f"INSERT INTO ledger.suppressions (erasure_id, pipeline, subject, key_version, made_at) "
        f"VALUES ('e1', 'orders', '{token}', 'local', now())",
    )
    file = tiny.root / "person.html"
    tiny.shell("subject", "report", "Æ 東京", "-o", str(file))
    page = Page(text := file.read_text())
    assert "No prediction about this person is stored." in text and "erase e1, done" in text and not page.predictions
