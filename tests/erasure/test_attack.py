"""The published attack: an erased row's score is searched by the rows that are left and any digest that is anywhere."""

import json
import re
from functools import partial

import duckdb
import numpy as np
import pandas as pd
import pytest
from anchoring import declare_anchors
from byte_scan import needles, scan

from pip_dagster.erasure.erase import erase
from pip_dagster.erasure.wish import Wish
from pip_dagster.evidence.contents import covered_columns
from pip_dagster.warehouse.digest import digest_sql

FIRST = "2024-03-01"
FEW = 2**14  # candidates of each way but the cheapest


@pytest.fixture
def shop(tiny):
    """Scored, published, delivered and anchored."""
    declare_anchors(tiny)
    tiny.declare(privacy={"subject": "order_id"}, deliver={"out": {"parquet": "delivered"}}, monitoring={})
    tiny.run(FIRST)
    tiny.shell("deliver", "orders")
    tiny.shell("audit", "anchor")
    return tiny


def digests_in(folder):
    """Whatever looks like a digest in any file but the source, as text; tables of DuckDB are read."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "sources.duckdb":
            data = path.read_bytes()
            if data[8:12] == b"DUCK":
                data += "\n".join(_texts(path)).encode()
            found |= {each.decode() for each in re.findall(rb"[0-9a-f]{32,64}", data)}
    return found


def _texts(path):
    with duckdb.connect() as con:
        con.execute(f"ATTACH $${path}$$ AS scanned (READ_ONLY)")
        tables = con.execute("SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'scanned'")
        for schema, table in tables.fetchall():
            for (row,) in con.execute(f'SELECT t::VARCHAR FROM scanned."{schema}"."{table}" t').fetchall():
                yield row


class Attacker:
    """Has all that is left of a project, all that was known of the erased row but its score, and patience."""

    def __init__(self, con, order):
        self.con, self.order = con, order
        bits = np.arange(0x3F000000, 0x3F800000, dtype=np.uint32)  # all float32 from one half to one
        con.register("every", pd.DataFrame({"score": bits.view(np.float32)}))
        con.execute("CREATE TEMP TABLE candidates AS FROM every")

    def fewer(self, score):
        """Search around the score only."""
        above = "FROM candidates WHERE score >= $score ORDER BY score LIMIT $few"
        self.con.execute(f"CREATE TEMP TABLE few AS {above}", {"score": score, "few": FEW})

    def tries(self, name, rows, columns, digest, candidates, *, secret=""):
        """Create a table of candidates and the digests that the rows would have with them; `columns` is name → type."""
        cast = ", ".join([*secret, *(f'"{column}"::{of}' for column, of in columns.items())])
        others, own = f"{rows} WHERE order_id <> {self.order}", f"{rows} WHERE order_id = {self.order}"
        sums = f"SELECT count(*), sum(hash({cast})::HUGEINT), bit_xor(hash({cast})) FROM {others}"
        n, total, bits = self.con.execute(sums).fetchone()
        added = f"{n + 1}", f"({total}::HUGEINT + h)", f"xor({bits}::UBIGINT, h)"
        tried = f"SELECT r.* REPLACE (c.score AS score) FROM (FROM {own}) r, {candidates} c"
        self.con.execute(
            f"CREATE TEMP TABLE {name} AS SELECT score, {digest(*added)} AS digest "
            f"FROM (SELECT score, hash({cast}) AS h FROM ({tried}))"
        )

    def found(self, known, nonces):
        """How → the scores whose digest is among the known ones."""
        self.con.register("known", pd.DataFrame({"digest": sorted(known)}))
        ways = {name: f"SELECT score FROM {name} WHERE digest IN (FROM known)" for name in ("delivered", "published")}
        ways["plain"] = "SELECT score FROM plain WHERE substr(digest, 5) IN (FROM known)"
        commitments = " OR ".join(
            f"sha256('{nonce}|score_digest|' || digest) IN (FROM known)" for nonce in nonces if nonce
        )
        ways["commitment"] = f"SELECT score FROM plain SEMI JOIN few USING (score) WHERE {commitments}"
        return {name: [score for (score,) in self.con.execute(way).fetchall()] for name, way in ways.items()}


def of_hashes(n, total, bits):
    return f"md5(concat_ws('|', {n}, {total}, {bits}))"


def types(con, relation):
    return {name: of for name, of, *_ in con.execute(f"DESCRIBE {relation}").fetchall()}


@pytest.mark.slice
def test_no_way_leads_to_the_score_of_an_erased_row(shop):
    order, score = next((key, score) for key, score in shop.scores().items() if score > 0.5)
    files = list(map(str, (shop.root / "delivered").rglob("*.parquet")))
    read = "SELECT nonce FROM ledger.scorings"
    nonces, [(mean,)] = [n for (n,) in shop.warehouse(read)], shop.warehouse("SELECT mean_score FROM ledger.scorings")
    [(secret,)] = shop.warehouse("SELECT value FROM ledger.meta WHERE key = 'published_secret'")
    [(text,)] = shop.warehouse(
        "SELECT DISTINCT columns FROM ledger.published_columns JOIN ledger.published_digests USING (columns_digest) "
        "WHERE table_name = 'predictions'"
    )
    published = dict(json.loads(text))
    with duckdb.connect() as con:
        attacker = Attacker(con, order)
        attacker.fewer(score)
        con.execute(f"ATTACH '{shop.project.warehouse}' AS w (READ_ONLY)")
        [(name,)] = con.execute("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'scores_%'").fetchall()
        con.execute(f"CREATE TABLE scores AS FROM w.orders.{name}")
        con.execute("DETACH w")
        con.execute(f"ATTACH '{shop.project.published_database}' AS p (READ_ONLY)")
        con.execute("CREATE TABLE predictions AS FROM p.orders.predictions")
        con.execute("DETACH p")
        con.execute(f"CREATE TABLE sent AS FROM read_parquet({files}, hive_partitioning = false)")
        covered = covered_columns("scores", types(con, "scores"))
        attacker.tries("plain", "scores", covered, partial(digest_sql, covered), "candidates")
        attacker.tries("delivered", "sent", types(con, "sent"), of_hashes, "few")
        attacker.tries("published", "predictions", published, of_hashes, "few", secret=[f"'{secret}'"])
        before = attacker.found(digests_in(shop.root), nonces)
        assert before == dict.fromkeys(["plain", "delivered", "published", "commitment"], [score]), "it works at all"
        assert scan(shop.root, needles(mean))
        erase(shop.project, [shop.pipeline()], Wish(str(order), "request 17", "ada"))
        after = attacker.found(digests_in(shop.root), [n for (n,) in shop.warehouse(read)])
        assert after == dict.fromkeys(before, []), "the old digest is somewhere"
        assert not scan(shop.root, needles(mean)), "the mean less the others' scores is the score"
        assert shop.warehouse("SELECT mean_score, min_score, max_score FROM ledger.scorings") == [(None,) * 3]
