"""A project with all that can be altered, and the ways of a forger who may write all of it but anchors and keys."""

import subprocess

import yaml

from pip_dagster.ledger import audit
from pip_dagster.registry.signing import keygen

FIRST, SECOND, THIRD, FOURTH = "2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"
POSSIBLE = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "quantity", "min_value": 2, "max_value": 100},
    "name": "quantity_is_possible",
}
SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}


def declare(gated, **changes):
    """Rows in quarantine, reasons, labels and a delivered copy."""
    (gated.folder / "expectations.yaml").write_text(yaml.safe_dump({"features": [POSSIBLE]}), encoding="utf-8")
    declared = {
        "sources": SOURCES,
        "quality": {"expectations": "expectations.yaml", "max_quarantined": 0.9},
        "explanations": {"top": 2},
        "labels": {"sql": "labels.sql", "outcome": "returned"},
        "monitoring": {"performance": {}},
        "deliver": {"copy": {"parquet": "delivered"}},
    }
    return gated.declare(**declared | changes)


def prepare(gated, root):
    """Partitions by two versions, a promotion, a rollback, a split, a restated label, a delivery, and anchors."""
    keygen(root / "anchor")
    subprocess.run(["git", "init", "-q", root / "evidence"], check=True)
    with (root / "pyproject.toml").open("a") as file:
        file.write(
            '[tool.pip_dagster.anchors]\nkey = "anchor.pem"\nsigners = ["anchor.pub.pem"]\n'
            '[tool.pip_dagster.anchors.places]\narchive = {file = "archive/audit.ndjson"}\n'
            'tags = {git = "evidence"}\n'
        )
    declare(gated)
    gated.shell("audit", "accept", "--moves", "--why", "moved from Python")
    gated.shell("models", "promote", "returns", "v1", "--override", "a test")
    gated.run(FIRST, SECOND, THIRD)
    gated.shell("models", "promote", "returns", "v2", "--override", "a test")
    gated.run(FIRST, SECOND)
    gated.shell("models", "rollback", "orders", "--why", "it was worse")
    gated.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    gated.shell("audit", "accept", "--moves", "--why", "a test")
    declare(gated, scoring={"split": {"arms": {"challenger": "40%"}, "salt": "spring"}})
    gated.run(FOURTH)
    gated.shell("performance", "orders", "--evaluate")
    gated.source(f"UPDATE raw.outcomes SET returned = 1 - returned WHERE day = '{FIRST}' AND order_id % 3 = 0")
    gated.shell("performance", "orders", "--evaluate")
    gated.shell("deliver", "orders")
    gated.shell("publish")
    gated.shell("audit", "anchor")


def with_fitting_hashes(tiny):
    """Give every entry of the audit the number and the hashes that fit, as a forger would."""
    columns = ", ".join(audit.COLUMNS)
    changes, previous = [], ""
    for number, row in enumerate(tiny.warehouse(f"SELECT {columns} FROM ledger.audit ORDER BY seq, hash"), 1):
        entry = dict(zip(audit.COLUMNS, row, strict=True))
        old = entry["hash"]
        entry |= {"seq": number, "made_at": audit.micros(entry["made_at"]), "previous_hash": previous}
        previous = audit.hash_of(entry)
        changes.append(
            f"UPDATE ledger.audit SET seq = {number}, previous_hash = '{entry['previous_hash']}', hash = '{previous}' "
            f"WHERE hash = '{old}'"
        )
    tiny.tamper(*changes)


def one_value(tiny, table, where=lambda name, sql_type: True):
    """SQL that alters one value of a table: the last bit of a float, a letter, a number; None if it has no rows."""
    space, _, name = table.partition(".")
    rows = tiny.warehouse(
        f"SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = '{space}' AND table_name = '{name}' "
        "AND database_name = current_database() ORDER BY column_index DESC"
    )
    if not tiny.warehouse(f"SELECT 1 FROM {table} LIMIT 1"):
        return None
    for column, sql_type in rows:
        if not where(column, sql_type) or not tiny.warehouse(
            f'SELECT 1 FROM {table} WHERE "{column}" IS NOT NULL LIMIT 1'
        ):
            continue
        value = f'"{column}"'
        altered = {
            "VARCHAR": f"{value} || 'x'",
            "BIGINT": f"{value} + 1",
            "INTEGER": f"{value} + 1",
            "DOUBLE": f"{value} + 1",
            "FLOAT": f"{value} * (1 + 1.2e-7)",
            "BOOLEAN": f"NOT {value}",
            "TIMESTAMP WITH TIME ZONE": f"{value} + INTERVAL 1 MINUTE",
        }.get(sql_type)
        if altered:
            of = f"(SELECT min(rowid) FROM {table} WHERE {value} IS NOT NULL)"
            return f"UPDATE {table} SET {value} = {altered} WHERE rowid = {of}"
    return None
