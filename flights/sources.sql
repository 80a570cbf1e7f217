-- The demo's source database, from the Parquet files in data/flight_delay. Instants are TIMESTAMPTZ, the session is in
-- UTC; flight_date is the New York date, which differs from the UTC date for one flight in nine.
CREATE SCHEMA raw;

CREATE TEMP TABLE flights AS
SELECT *, concat_ws('-', carrier, flight, origin, strftime(flight_date, '%Y%m%d')) AS flight_key,
       time_hour + to_minutes((sched_dep_time % 100)::INT) AS sched_dep_at
FROM read_parquet($folder || '/flights.parquet', hive_partitioning = false);

-- Known before departure.
CREATE TABLE raw.schedule AS
SELECT flight_key, flight_date, carrier, flight, tailnum, origin, dest, distance, sched_dep_time, sched_arr_time,
       time_hour AS sched_hour, sched_dep_at
FROM flights ORDER BY flight_date, flight_key;

-- Known later: the outcome of a flight, observed when it lands.
CREATE TABLE raw.outcomes AS
WITH departed AS (
  SELECT f.*, dep_time IS NULL AS cancelled, coalesce(z.time_zone, 'America/Puerto_Rico') AS zone,
         sched_dep_at + to_minutes(dep_delay::INT) AS dep_at
  FROM flights f LEFT JOIN read_csv($folder || '/destination_time_zones.csv', header = true, hive_partitioning = false) z USING (dest)
), landed AS (
  -- The arrival's wall clock at the destination, on the date there at departure (2400 is the next midnight).
  SELECT *, timezone(zone, date_trunc('day', timezone(zone, dep_at)) + to_minutes((arr_time // 100 * 60 + arr_time % 100)::INT)) AS arr_at
  FROM departed
), observed AS (
  SELECT *, CASE WHEN arr_delay IS NULL THEN sched_dep_at + INTERVAL 2 HOUR  -- cancelled or diverted: an approximation
                 WHEN arr_at < dep_at THEN arr_at + INTERVAL 1 DAY ELSE arr_at END AS observed_at
  FROM landed
)
SELECT flight_key, flight_date, cancelled, (arr_delay IS NULL AND NOT cancelled) AS diverted, dep_delay, arr_delay, air_time,
       (arr_delay > 15) AS late15,  -- NULL if cancelled or diverted: that label never arrives
       observed_at,
       -- the first daily batch, at 04:00 New York, that can use this row
       (timezone('America/New_York', observed_at) - INTERVAL 4 HOUR)::DATE + 1 AS avail_date
FROM observed ORDER BY flight_date, flight_key;

CREATE TABLE raw.planes AS FROM read_parquet($folder || '/planes.parquet', hive_partitioning = false) ORDER BY tailnum;
CREATE TABLE raw.weather AS FROM read_parquet($folder || '/weather.parquet', hive_partitioning = false) ORDER BY origin, time_hour;
CREATE TABLE raw.airlines AS FROM read_parquet($folder || '/airlines.parquet', hive_partitioning = false) ORDER BY carrier;
