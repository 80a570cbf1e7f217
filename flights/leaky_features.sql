-- A leak to find: the plain join on the hour uses weather that is observed at the end of the hour, up to 51 minutes late.
--   pip-dagster prove-point-in-time flight_delay 2013-08-01 --sql flights/leaky_features.sql
SELECT t.flight_key, t.flight_date, t.sched_hour,
       w0.temp AS wx0_temp, w0.wind_speed AS wx0_wind, w1.temp AS wx1_temp
FROM raw.schedule t
LEFT JOIN raw.weather w0 ON w0.origin = t.origin AND w0.time_hour = t.sched_hour
LEFT JOIN raw.weather w1 ON w1.origin = t.origin AND w1.time_hour = t.sched_hour - INTERVAL 1 HOUR
WHERE t.flight_date >= $start_date AND t.flight_date < $end_date
