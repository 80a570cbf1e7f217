-- Labels of the flights of [$start_date, $end_date): one row a flight, late15 NULL when it never arrives (cancelled or diverted).
SELECT flight_key, flight_date, late15::INT AS late15, arr_delay, observed_at
FROM raw.outcomes
WHERE flight_date >= $start_date AND flight_date < $end_date
