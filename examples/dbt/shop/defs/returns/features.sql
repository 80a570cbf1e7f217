SELECT order_id, ordered_on, amount, items, is_gift
FROM shop.orders
WHERE ordered_on >= $start_date AND ordered_on < $end_date
