-- One row per order in [$start, $end), with what was known when it was placed.
SELECT o.shop, o.order_no, o.ordered_at,
       o.price, o.items, o.payment, o.is_gift,
       date_diff('day', c.since, o.ordered_at) AS customer_days,
       c.earlier_returns
FROM shop.orders o
LEFT JOIN shop.customers c USING (customer_id)
WHERE o.ordered_at >= $start AND o.ordered_at < $end
