"""The shop's raw orders, a file for each day, as a loader would write them."""

from pathlib import Path

import duckdb

RAW = Path(__file__).parent / "data" / "raw"


def main() -> None:
    """Write data/raw/2024-03-01.parquet to 2024-03-04.parquet."""
    RAW.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as con:
        for day in range(1, 5):
            con.execute(f"""
                COPY (
                    SELECT {day} * 1000 + range AS order_id,
                           TIMESTAMP '2024-03-0{day} 08:00:00' + to_minutes(range) AS ordered_at,
                           (5 + range * 48271 % 20000 / 100)::DECIMAL(10, 2) AS amount,
                           (1 + range * 31 % 6)::INTEGER AS items,
                           ['GIFT', 'NONE'][1 + range % 2] AS coupon,
                           range % 17 = 0 AS cancelled
                    FROM range(200)
                ) TO '{RAW / f"2024-03-0{day}.parquet"}' (FORMAT parquet)
            """)


if __name__ == "__main__":
    main()
