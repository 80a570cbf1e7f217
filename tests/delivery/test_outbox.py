"""The outbox: exactly what is live goes to each target, and the ledger says so."""

import json

import duckdb


def declare(tiny, **targets):
    tiny.declare(deliver=targets)
    return tiny


def shown(root, key):
    """What a reader of the manifest sees of a partition."""
    folder = root / key
    manifest = json.loads((folder / "latest.json").read_text())
    files = [str(folder / each["path"]) for each in manifest["files"]]
    with duckdb.connect() as con:
        return manifest, con.execute("FROM read_parquet(?) ORDER BY ALL", [files]).fetchall()


def test_what_is_live_is_delivered_once(scored):
    declare(scored, lake={"parquet": "out/orders", "columns": {"order_id": "order_id", "prediction": "score"}})
    first = json.loads(scored.shell("deliver", "orders", "--json"))
    assert first["targets"][0]["delivered"] == ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]
    manifest, rows = shown(scored.root / "out" / "orders", "2024-03-01")
    live = scored.published("SELECT order_id, score FROM orders.predictions WHERE partition_key = '2024-03-01'")
    assert sorted((order, score) for _, order, score in rows) == sorted(live)
    assert manifest["rows"] == len(live)
    again = json.loads(scored.shell("deliver", "orders", "--json"))
    assert again["targets"][0]["delivered"] == []
    print(scored.shell("deliver", "orders", "2024-03-01"))
    print(scored.shell("deliver", "orders", "--verify"))
