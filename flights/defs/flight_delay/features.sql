-- Point-in-time features of the flights of [$start_date, $end_date), the New York dates on which they leave.
-- One SQL for a day and for a range: the same rows, the same values. It reads the schedule of the day, the planes, the
-- weather observed before each flight's scheduled hour, and outcomes with avail_date <= flight_date, that is flights
-- that had landed by 04:00 New York on flight_date ("days before" alone would leak flights that land after midnight).
WITH target AS (
  SELECT s.*, hour(timezone('America/New_York', sched_dep_at))::SMALLINT AS dep_hour
  FROM raw.schedule s WHERE flight_date >= $start_date AND flight_date < $end_date
), hist AS (
  SELECT o.avail_date, s.carrier, s.flight, s.tailnum, s.origin, s.dest, hour(timezone('America/New_York', s.sched_dep_at))::SMALLINT AS dep_hour,
         o.late15::INT AS late, o.arr_delay, o.cancelled::INT AS canc
  FROM raw.outcomes o JOIN raw.schedule s USING (flight_key)
  WHERE o.avail_date > $start_date - INTERVAL 28 DAY AND o.avail_date < $end_date
    AND o.flight_date < $end_date AND o.flight_date > $start_date - INTERVAL 31 DAY
), days AS (SELECT DISTINCT flight_date AS d FROM target)
, h_sys AS (
  SELECT d, avg(late) FILTER (avail_date = d) AS sys_late_1d, avg(late) FILTER (avail_date > d - 7) AS sys_late_7d,
         avg(canc) FILTER (avail_date = d) AS sys_canc_1d
  FROM days JOIN (SELECT * FROM hist) h ON h.avail_date <= d AND h.avail_date > d - 7 GROUP BY d
), carrier_day AS (SELECT carrier k, avail_date, sum(late) l, count(late) n, sum(arr_delay) ad FROM hist GROUP BY ALL)
, h_carrier AS (
  SELECT d, k, sum(l) FILTER (avail_date = d) / nullif(sum(n) FILTER (avail_date = d), 0) AS carrier_late_1d,
         sum(l) FILTER (avail_date > d - 7) / nullif(sum(n) FILTER (avail_date > d - 7), 0) AS carrier_late_7d,
         sum(l) / nullif(sum(n), 0) AS carrier_late_28d, sum(ad) / nullif(sum(n), 0) AS carrier_delay_28d
  FROM days JOIN carrier_day ON avail_date <= d AND avail_date > d - 28 GROUP BY d, k
), origin_day AS (SELECT origin k, avail_date, sum(late) l, count(late) n FROM hist GROUP BY ALL)
, h_origin AS (
  SELECT d, k, sum(l) FILTER (avail_date = d) / nullif(sum(n) FILTER (avail_date = d), 0) AS origin_late_1d,
         sum(l) FILTER (avail_date > d - 7) / nullif(sum(n) FILTER (avail_date > d - 7), 0) AS origin_late_7d
  FROM days JOIN origin_day ON avail_date <= d AND avail_date > d - 7 GROUP BY d, k
), oh_day AS (SELECT origin, dep_hour, avail_date, sum(late) l, count(late) n FROM hist GROUP BY ALL)
, h_oh AS (
  SELECT d, origin, dep_hour, sum(l) / nullif(sum(n), 0) AS originhour_late_28d
  FROM days JOIN oh_day ON avail_date <= d AND avail_date > d - 28 GROUP BY d, origin, dep_hour
), route_day AS (SELECT origin, dest, avail_date, sum(late) l, count(late) n FROM hist GROUP BY ALL)
, h_route AS (
  SELECT d, origin, dest, sum(l) FILTER (avail_date > d - 7) / nullif(sum(n) FILTER (avail_date > d - 7), 0) AS route_late_7d,
         sum(l) / nullif(sum(n), 0) AS route_late_28d, sum(n) AS route_n_28d
  FROM days JOIN route_day ON avail_date <= d AND avail_date > d - 28 GROUP BY d, origin, dest
), fn_day AS (SELECT carrier, flight, origin, avail_date, sum(late) l, count(late) n, sum(arr_delay) ad FROM hist GROUP BY ALL)
, fn_key AS (SELECT DISTINCT flight_date AS d, carrier, flight, origin FROM target)
, h_fn AS (
  SELECT d, carrier, flight, origin, sum(l) / nullif(sum(n), 0) AS flightno_late_28d, sum(ad) / nullif(sum(n), 0) AS flightno_delay_28d, sum(n) AS flightno_n_28d
  FROM fn_key JOIN fn_day USING (carrier, flight, origin) WHERE avail_date <= d AND avail_date > d - 28 GROUP BY d, carrier, flight, origin
), tail_day AS (SELECT tailnum, avail_date, sum(late) l, count(late) n, sum(arr_delay) ad FROM hist WHERE tailnum IS NOT NULL GROUP BY ALL)
, tail_key AS (SELECT DISTINCT flight_date AS d, tailnum FROM target WHERE tailnum IS NOT NULL)
, h_tail AS (
  SELECT d, tailnum, sum(ad) FILTER (avail_date = d) / nullif(sum(n) FILTER (avail_date = d), 0) AS tail_delay_1d,
         sum(ad) / nullif(sum(n), 0) AS tail_delay_7d
  FROM tail_key JOIN tail_day USING (tailnum) WHERE avail_date <= d AND avail_date > d - 7 GROUP BY d, tailnum
), cong AS (SELECT flight_date, origin, dep_hour, count(*) AS n_origin_hour FROM target GROUP BY ALL)
, holidays(h) AS (VALUES (DATE '2013-01-01'), (DATE '2013-01-21'), (DATE '2013-02-18'), (DATE '2013-03-31'), (DATE '2013-05-27'), (DATE '2013-07-04'), (DATE '2013-09-02'),
                         (DATE '2013-10-14'), (DATE '2013-11-11'), (DATE '2013-11-28'), (DATE '2013-12-25'), (DATE '2014-01-01'))
, hol AS (SELECT d, min(abs(d - h)) AS days_to_holiday FROM days, holidays GROUP BY d)
SELECT t.flight_key, t.flight_date, t.sched_hour,
  isodow(t.flight_date)::SMALLINT AS dow, hol.days_to_holiday::SMALLINT AS days_to_holiday,
  (t.sched_dep_time // 100 * 60 + t.sched_dep_time % 100)::SMALLINT AS sched_dep_min,
  (((t.sched_arr_time // 100 * 60 + t.sched_arr_time % 100) - (t.sched_dep_time // 100 * 60 + t.sched_dep_time % 100) + 1440) % 1440)::SMALLINT AS sched_block_min,
  t.carrier, t.origin, t.dest, t.distance, c.n_origin_hour::SMALLINT AS n_origin_hour,
  (year(t.flight_date) - p.year_built)::SMALLINT AS plane_age, p.seats, (p.tailnum IS NOT NULL) AS plane_known,
  -- Weather labelled hour h was observed at about h:51, so the hour before the scheduled one is the last that is known by it.
  w1.temp AS wx1_temp, w1.wind_speed AS wx1_wind, w1.precip AS wx1_precip, w1.visib AS wx1_visib, w1.pressure AS wx1_pressure, w1.humid AS wx1_humid, w1.wind_gust AS wx1_gust,
  hs.sys_late_1d, hs.sys_late_7d, hs.sys_canc_1d, hc.carrier_late_1d, hc.carrier_late_7d, hc.carrier_late_28d, hc.carrier_delay_28d,
  ho.origin_late_1d, ho.origin_late_7d, hoh.originhour_late_28d, hr.route_late_7d, hr.route_late_28d, hr.route_n_28d::INT AS route_n_28d,
  hf.flightno_late_28d, hf.flightno_delay_28d, hf.flightno_n_28d::INT AS flightno_n_28d, ht.tail_delay_1d, ht.tail_delay_7d
FROM target t
JOIN cong c ON c.flight_date = t.flight_date AND c.origin = t.origin AND c.dep_hour = t.dep_hour
JOIN hol ON hol.d = t.flight_date
LEFT JOIN raw.planes p ON p.tailnum = t.tailnum
LEFT JOIN raw.weather w1 ON w1.origin = t.origin AND w1.time_hour = t.sched_hour - INTERVAL 1 HOUR
LEFT JOIN h_sys hs ON hs.d = t.flight_date
LEFT JOIN h_carrier hc ON hc.d = t.flight_date AND hc.k = t.carrier
LEFT JOIN h_origin ho ON ho.d = t.flight_date AND ho.k = t.origin
LEFT JOIN h_oh hoh ON hoh.d = t.flight_date AND hoh.origin = t.origin AND hoh.dep_hour = t.dep_hour
LEFT JOIN h_route hr ON hr.d = t.flight_date AND hr.origin = t.origin AND hr.dest = t.dest
LEFT JOIN h_fn hf ON hf.d = t.flight_date AND hf.carrier = t.carrier AND hf.flight = t.flight AND hf.origin = t.origin
LEFT JOIN h_tail ht ON ht.d = t.flight_date AND ht.tailnum = t.tailnum
ORDER BY t.flight_key
