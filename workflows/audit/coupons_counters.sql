-- A coupon's two counters = its log, and together they never pass its limit.
with log as (
    select coupon_id, count(*) filter (where status = 'HELD') as held, count(*) filter (where status = 'SUCCESS') as used
      from coupon_redemption_log group by coupon_id),
breaches (subject, expected, actual) as materialized (
    select 'coupon ' || c.code,
           format('held %s, used %s, together at most %s', coalesce(l.held, 0), coalesce(l.used, 0), coalesce(c.usage_limit::text, 'any')),
           format('held %s, used %s', c.held_count, c.current_usage_count)
      from coupons c left join log l on l.coupon_id = c.id
     where c.held_count <> coalesce(l.held, 0) or c.current_usage_count <> coalesce(l.used, 0)
        or c.held_count + c.current_usage_count > c.usage_limit)
select subject, expected, actual from breaches order by subject, expected limit 100
