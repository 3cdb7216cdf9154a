-- What each household bought in the weeks up to the end of the window, as of its last second.
SELECT
    household,
    (window_end() - INTERVAL 1 SECOND) AS event_timestamp,
    (window_end() - INTERVAL 1 SECOND) AS created_timestamp,
    coalesce(sum(amount) FILTER (WHERE bought_at >= window_end() - INTERVAL 7 DAYS), 0)::FLOAT
        AS spend_1w,
    coalesce(sum(amount) FILTER (WHERE bought_at >= window_end() - INTERVAL 28 DAYS), 0)::FLOAT
        AS spend_4w,
    sum(amount)::FLOAT AS spend_12w,
    coalesce(stddev_pop(amount), 0)::FLOAT AS basket_deviation_12w,
    (count(*) FILTER (WHERE bought_at >= window_end() - INTERVAL 28 DAYS))::FLOAT AS baskets_4w,
    count(*)::FLOAT AS baskets_12w,
    (epoch(window_end() - max(bought_at)) / 86400)::FLOAT AS days_since_last,
    (epoch(window_end() - min(bought_at)) / 86400)::FLOAT AS days_since_first_12w,
    (sum(products) / count(*))::FLOAT AS products_per_basket_12w,
    (sum(discount) / nullif(sum(amount) + sum(discount), 0))::FLOAT AS discount_share_12w,
    (sum(fresh) / nullif(sum(amount), 0))::FLOAT AS fresh_share_12w,
    (sum(own_brand) / nullif(sum(amount), 0))::FLOAT AS own_brand_share_12w,
    sum(coupons)::FLOAT AS coupons_12w
FROM baskets
WHERE bought_at >= window_end() - INTERVAL 84 DAYS AND bought_at <= window_end() - INTERVAL 1 SECOND
GROUP BY household
