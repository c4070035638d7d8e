-- One log row per order and coupon, and it stands as its order stands: HELD while PENDING, SUCCESS
-- once sold, given back (RELEASED or REVERSED) once cancelled and its checkout is over.
with breaches (subject, expected, actual) as materialized (
    select format('order %s, coupon %s', l.order_id, l.coupon_id), '1 row', format('%s rows', count(*))
       from coupon_redemption_log l group by l.order_id, l.coupon_id having count(*) > 1
    union all
    select format('order %s, coupon %s', l.order_id, l.coupon_id),
            case o.order_status
                when 'PENDING' then 'HELD' when 'CANCELLED' then 'RELEASED or REVERSED'
                when 'REFUNDED' then 'SUCCESS or REVERSED' else 'SUCCESS' end,
            l.status || ', order ' || o.order_status
       from coupon_redemption_log l join orders o on o.id = l.order_id
      where case o.order_status
                when 'PENDING' then l.status <> 'HELD'
                when 'CANCELLED' then l.status not in ('RELEASED', 'REVERSED')
                     and not (l.status = 'HELD' and exists (select from engine.runs r where r.id = o.checkout_run_id))
                when 'REFUNDED' then l.status not in ('SUCCESS', 'REVERSED')
                else l.status <> 'SUCCESS' end
    union all
    -- An order's coupon that was redeemed without a trace was never counted against its limit.
    select format('order %s, coupon %s', c.order_id, c.coupon_id), '1 row', 'no row'
       from order_coupons c
      where not exists (select from coupon_redemption_log l where l.order_id = c.order_id and l.coupon_id = c.coupon_id))
select subject, expected, actual from breaches order by subject, expected limit 100
