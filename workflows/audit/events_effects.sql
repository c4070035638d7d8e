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
      from outbox_events where event_type ~ '^(inventory|payment|coupon)\.' group by subject),
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
      from coupon_redemption_log where status in ('SUCCESS', 'REVERSED') group by order_id)
select 'order ' || o.id, e.event || ' ' || e.expected, e.event || ' × ' || e.actual
  from orders o
  left join announced a on a.subject = o.id::text
  left join stock s on s.order_id = o.id
  left join payments p on p.order_id = o.id
  left join given_back g on g.order_id = o.id
  left join redeemed c on c.order_id = o.id
 cross join lateral (values
    ('inventory.reserved', 'at least once, before inventory.committed', coalesce(a.reserved, 0),
        s.order_id is null or a.reserved > 0 and a.sold_before_held is not true),
    ('inventory.committed', case when s.committed then 'once' else 'never' end, coalesce(a.committed, 0),
        coalesce(a.committed, 0) = coalesce(s.committed, false)::int),
    ('inventory.released', case when s.released then 'at least once' else 'never' end, coalesce(a.released, 0),
        s.expired or coalesce(a.released > 0, false) = coalesce(s.released, false)),
    ('inventory.refunded', case when s.returned then 'at least once' else 'never' end, coalesce(a.restocked, 0),
        coalesce(a.restocked > 0, false) = coalesce(s.returned, false)),
    -- Money that came for an order that was never sold is given back; its arrival may go untold.
    ('payment.captured', case when p.captured_amount > 0 then 'once' else 'never' end, coalesce(a.captured, 0),
        case when o.confirmed_at is null then coalesce(a.captured, 0) <= 1
             else coalesce(a.captured, 0) = coalesce(p.captured_amount > 0, false)::int end),
    ('payment.refunded', format('%s times', coalesce(g.refunds, 0)), coalesce(a.refunded, 0),
        coalesce(a.refunded, 0) = coalesce(g.refunds, 0)),
    ('payment.failed', 'at least once', coalesce(a.failed, 0),
        p.payment_status is distinct from 'FAILED' or a.failed > 0),
    ('coupon.redeemed', format('%s times', coalesce(c.coupons, 0)), coalesce(a.redeemed, 0),
        coalesce(a.redeemed, 0) = coalesce(c.coupons, 0))
 ) as e (event, expected, actual, holds)
 where e.holds is not true
 order by 1, 2 limit 100
