-- A table to begin with: 60 days of orders until yesterday; what is predicted is whether an order is returned.
CREATE SCHEMA IF NOT EXISTS raw;
CREATE TABLE raw.orders AS
SELECT id AS order_id, (current_date - 60 + (id // 200)::INTEGER)::DATE AS ordered_on,
       (5 + id * 48271 % 20000 / 100)::DECIMAL(10, 2) AS price, (1 + id * 31 % 6)::INTEGER AS items,
       ['card', 'invoice', 'wallet'][1 + id * 17 % 3] AS payment, (id * 7919 % 11)::INTEGER AS earlier_returns,
       (items * 7 + earlier_returns * 5 + (payment = 'invoice')::INTEGER * 20 + id * 13 % 40 > 70) AS returned
FROM range(12000) AS orders(id);
