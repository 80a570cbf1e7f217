"""Load the demo's Parquet files into a DuckDB source database: `load_sources.py PARQUET_FOLDER DATABASE`."""

import sys
from pathlib import Path

import duckdb


def main(folder: Path, database: Path) -> None:
    """Rebuild `database`; a reader sees either the old file or the complete new one."""
    temporary = database.with_name(f".{database.name}.tmp")
    temporary.unlink(missing_ok=True)
    database.parent.mkdir(parents=True, exist_ok=True)
    con = duckdb.connect(":memory:")
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"ATTACH '{temporary}' AS sources (STORAGE_VERSION 'v1.5.0')")
    con.execute("USE sources")
    for statement in con.extract_statements((Path(__file__).parent / "sources.sql").read_text(encoding="utf-8")):
        con.execute(statement, {"folder": str(folder)} if statement.named_parameters else None)
    con.execute("USE memory")
    con.execute("DETACH sources")
    con.close()
    temporary.replace(database)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
