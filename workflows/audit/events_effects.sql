-- What happened to an order's stock, money and coupons was announced under the order, as often as it
-- happened, and the hold before the sale.
with announced as (
    select subject,
           count(*) filter (where event_type = 'inventory.reserved') as reserved,
           count(*) filter (where event_type = 'inventory.committed') as committed,
           count(*) filter (where event_type = 'inventory.released') as released,
           count(*) filter (where event_type = 'inventory.refunded') as restocked,
           count(*) filter (where event_type = 'payment.captured') as captured,
           count(*) filter (where event_type = 'payment.refunded') as refunded,
           count(*) filter (where event_type = 'payment.failed') as failed,
           count(*) filter (where event_type = 'coupon.redeemed') as redeemed,
           min(id) filter (where event_type = 'inventory.reserved') > min(id) filter (where event_type = 'inventory.committed') as sold_before_held
      from outbox_events where event_type not like 'order.%' group by subject),
stock as (
    select order_id,
           bool_or(status in ('CONFIRMED', 'RETURNED')) as committed,
           bool_or(status = 'RELEASED') as released,
           bool_or(status = 'EXPIRED') as expired,
           bool_or(quantity_returned > 0) as returned
      from inventory_reservations where order_id is not null group by order_id),
given_back as (
    select p.order_id, count(*) as refunds
      from refunds r join payments p on p.id = r.payment_id where r.status = 'SUCCEEDED' group by p.order_id),
redeemed as (
    select order_id, count(*) as coupons
      from coupon_redemption_log where status in ('SUCCESS', 'REVERSED') group by order_id),
facts as materialized (
    select o.id, o.confirmed_at, p.payment_status, coalesce(p.captured_amount > 0, false) as took_money,
           s.order_id is not null as held, coalesce(s.committed, false) as sold, coalesce(s.released, false) as released,
           coalesce(s.expired, false) as expired, coalesce(s.returned, false) as returned,
           coalesce(g.refunds, 0) + coalesce(p.refunds_undone, 0) as refunds, coalesce(c.coupons, 0) as coupons,
           coalesce(a.reserved, 0) as told_reserved, coalesce(a.committed, 0) as told_committed,
           coalesce(a.released, 0) as told_released, coalesce(a.restocked, 0) as told_restocked,
           coalesce(a.captured, 0) as told_captured, coalesce(a.refunded, 0) as told_refunded,
           coalesce(a.failed, 0) as told_failed, coalesce(a.redeemed, 0) as told_redeemed,
           coalesce(a.sold_before_held, false) as sold_before_held
      from orders o
      left join announced a on a.subject = o.id::text
      left join stock s on s.order_id = o.id
      left join payments p on p.order_id = o.id
      left join given_back g on g.order_id = o.id
      left join redeemed c on c.order_id = o.id),
breaches (subject, expected, actual) as materialized (
    select 'order ' || f.id, e.event || ' ' || e.expected, e.event || ' × ' || e.actual
      from facts f
     cross join lateral (values
        ('inventory.reserved', 'at least once, before inventory.committed', told_reserved,
            not held or told_reserved > 0 and not sold_before_held),
        ('inventory.committed', case when sold then 'once' else 'never' end, told_committed, told_committed = sold::int),
        ('inventory.released', case when released then 'at least once' else 'never' end, told_released,
            expired or (told_released > 0) = released),
        ('inventory.refunded', case when returned then 'at least once' else 'never' end, told_restocked,
            (told_restocked > 0) = returned),
        -- Money that came for an order that was never sold is given back; its arrival may go untold.
        ('payment.captured', case when took_money then 'once' else 'never' end, told_captured,
            case when confirmed_at is null then told_captured <= 1 else told_captured = took_money::int end),
        ('payment.refunded', refunds || ' times', told_refunded, told_refunded = refunds),
        ('payment.failed', 'at least once', told_failed, payment_status is distinct from 'FAILED' or told_failed > 0),
        ('coupon.redeemed', coupons || ' times', told_redeemed, told_redeemed = coupons)
     ) as e (event, expected, actual, holds)
     where not e.holds)
select subject, expected, actual from breaches order by subject, expected limit 100
