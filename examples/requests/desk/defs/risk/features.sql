SELECT request_id, requested_at, amount, items, is_new_customer
FROM app.requests
WHERE requested_at >= $start AND requested_at < $end
