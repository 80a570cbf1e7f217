{{ config(materialized='external', location='../data/orders.parquet') }}

-- One row per order that was not cancelled.
SELECT order_id, ordered_at::DATE AS ordered_on, amount::DOUBLE AS amount, items, coupon = 'GIFT' AS is_gift
FROM {{ source('raw', 'orders') }}
WHERE NOT cancelled
