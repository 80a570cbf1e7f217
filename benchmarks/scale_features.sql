-- The demo's 336,776 real flights, repeated $k times: k = 3 gives 1.0M rows, 30 gives 10.1M, 297 gives 100.0M.
-- Replica 0 is the real data; the others vary its numbers a little. Integer arithmetic only (no random(), no hash()), for
-- the same rows on every DuckDB version and with any number of threads. All rows are in one partition.
CREATE TABLE raw.flights AS
WITH src AS (SELECT row_number() OVER (ORDER BY flight_date, flight_key) AS rid, * FROM feat.flights)
, u AS (
  SELECT src.*, r.range::BIGINT AS rep,
         -- three uniform numbers in [-1, 1] per row, 0 for replica 0
         CASE WHEN r.range = 0 THEN 0 ELSE ((rid * 1000003 + r.range * 7919 + 1) * 48271 % 2147483647) / 1073741823.5 - 1 END AS u1,
         CASE WHEN r.range = 0 THEN 0 ELSE ((rid * 999983 + r.range * 104729 + 7) * 69621 % 2147483647) / 1073741823.5 - 1 END AS u2,
         CASE WHEN r.range = 0 THEN 0 ELSE ((rid * 611953 + r.range * 15485863 + 3) * 39373 % 2147483647) / 1073741823.5 - 1 END AS u3
  FROM range($k) r, src)
SELECT rid * 1000 + rep AS flight_id, DATE '2014-01-01' AS day,
  dow, days_to_holiday, greatest(0, least(1439, sched_dep_min + (15 * u1)::INT))::SMALLINT AS sched_dep_min, sched_block_min,
  carrier, origin, distance, n_origin_hour, plane_age, seats,
  (wx1_temp + 3 * u1)::FLOAT AS wx1_temp, greatest(0, wx1_wind + 2 * u2)::FLOAT AS wx1_wind, wx1_visib::FLOAT AS wx1_visib,
  (wx1_pressure + 1.5 * u3)::FLOAT AS wx1_pressure, greatest(0, least(100, wx1_humid + 4 * u2))::FLOAT AS wx1_humid,
  sys_late_1d::FLOAT AS sys_late_1d, sys_late_7d::FLOAT AS sys_late_7d, carrier_late_7d::FLOAT AS carrier_late_7d,
  origin_late_1d::FLOAT AS origin_late_1d,
  greatest(0, least(1, originhour_late_28d + 0.02 * u1))::FLOAT AS originhour_late_28d,
  greatest(0, least(1, route_late_28d + 0.02 * u2))::FLOAT AS route_late_28d,
  greatest(0, least(1, flightno_late_28d + 0.05 * u3))::FLOAT AS flightno_late_28d,
  (tail_delay_1d + 5 * u2)::FLOAT AS tail_delay_1d, (tail_delay_7d + 3 * u3)::FLOAT AS tail_delay_7d
FROM u
