"""Which bucket a unit falls into: a hash of a salt and the unit, the same in every process, platform and version.

md5 over UTF-8, not DuckDB's `hash()`, which may change between its versions. What is hashed is unambiguous: each text
behind its length, so that ('a', 'bc') and ('ab', 'c') are two units.
"""

from __future__ import annotations

from collections.abc import Mapping

from pip_dagster.declaration.split import BUCKETS
from pip_dagster.sql.names import literal, quote

# Types whose text is the same everywhere; an instant's depends on the session's time zone, so it is taken as a number.
_TEXTS = {"VARCHAR", "BOOLEAN", "DATE", "UUID"} | {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
}


def unit_kind(sql_type: str) -> str | None:
    """How a column of this type is hashed: as `text` or as `instant`; None where its text is not stable."""
    if sql_type in _TEXTS or sql_type.startswith(("DECIMAL(", "ENUM(")):
        return "text"
    return "instant" if sql_type in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE") else None


def bucket_sql(salt: str, unit: Mapping[str, str], prefix: str = "") -> str:
    """SQL of a row's bucket, 0 to 9,999, by the columns of `unit` (name → kind) behind `prefix`; NULL where one is.

    The first 60 bits of md5 modulo 10,000: no bucket is more likely than another by more than 1 in 10^14.
    """
    hashed = [literal(f"{len(salt)}:{salt}")]
    for name, kind in unit.items():
        column = prefix + quote(name)
        text = f"epoch_us({column})::VARCHAR" if kind == "instant" else f"{column}::VARCHAR"
        hashed.append(f"length({text}) || ':' || {text}")
    return f"(('0x' || substr(md5({' || '.join(hashed)}), 1, 15))::BIGINT % {BUCKETS})"
