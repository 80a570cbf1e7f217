"""Step 1: some tables. You have your own; these are computed, so that they are the same everywhere."""

from pathlib import Path

import duckdb

DATA = Path(__file__).parent / "data"


def main() -> None:
    """Write data/orders/*.parquet, data/customers.parquet and the labelled history data/history.parquet."""
    (DATA / "orders").mkdir(parents=True, exist_ok=True)
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute("""
        CREATE TABLE customers AS
        SELECT range::BIGINT AS customer_id,
               TIMESTAMPTZ '2023-01-01 00:00:00+00' + to_days((range * 37 % 400)::INT) AS since,
               (range * 7919 % 11)::INTEGER AS earlier_returns
        FROM range(500)
    """)
    con.execute("""
        CREATE TABLE orders AS
        SELECT ['nord', 'süd'][1 + range % 2] AS shop, range AS order_no, (range * 104729 % 500)::BIGINT AS customer_id,
               TIMESTAMPTZ '2024-03-01 00:00:00+00' + to_seconds(range * 130) AS ordered_at,
               (5 + range * 48271 % 20000 / 100)::DECIMAL(10, 2) AS price, (1 + range * 31 % 6)::INTEGER AS items,
               ['card', 'invoice', 'wallet'][1 + range * 17 % 3] AS payment, range % 9 = 0 AS is_gift
        FROM range(20500)
    """)
    con.execute(f"COPY customers TO '{DATA / 'customers.parquet'}' (FORMAT parquet)")
    con.execute(f"COPY orders TO '{DATA / 'orders' / '2024-03.parquet'}' (FORMAT parquet)")
    # The pipeline scores late March; the returns of earlier orders are known.
    con.execute(f"""
        COPY (SELECT shop, order_no, items * 7 + earlier_returns * 5 + (payment = 'invoice')::INT * 20
                     + order_no * 13 % 40 > 70 AS returned
              FROM orders JOIN customers USING (customer_id) WHERE ordered_at < TIMESTAMPTZ '2024-03-25 00:00:00+00')
        TO '{DATA / "history.parquet"}' (FORMAT parquet)
    """)


if __name__ == "__main__":
    main()
