-- One rule per order status and payment status. "Sold" is CONFIRMED, PROCESSING, SHIPPED or DELIVERED.
--
--   PENDING    any                  its checkout run is live (see orders_runs); nothing is settled yet
--   sold       PENDING              cash on delivery, or nothing to pay: captured 0
--   sold       CAPTURED             captured = total exactly, refunded 0;
--                                   cash exactly when it has been delivered, without what was called off
--   sold       PARTIALLY_REFUNDED   captured = total, 0 < refunded < captured
--   sold       REFUNDED             captured = total = refunded
--   sold       AUTHORIZED, FAILED   never
--   CANCELLED  any                  captured - refunded = 0, or somebody alive is giving it back;
--                                   REFUNDED exactly when something had been captured and all is back
--   REFUNDED   any of the two       captured = total; refunded at least the lines, at most all of it; or somebody alive
--                                   is giving back what had gone and came back
--
-- The order and its payment name the same payment status.
with money as (
    select o.id, o.order_status as status, o.payment_status as order_says,
           coalesce(p.payment_status, o.payment_status) as payment_says,
           p.payment_method = 'COD' or o.payment_method = 'COD' as is_cash,
           o.total_amount as total, o.total_amount - c.cash as due, o.total_amount - o.shipping_amount - c.cash as goods,
           o.checkout_run_id, o.confirmed_at is not null as was_sold,
           coalesce(p.amount, o.total_amount) as amount, p.currency is null or p.currency = o.currency as same_currency,
           coalesce(p.captured_amount, 0) as captured, coalesce(p.refund_amount, 0) as refunded
      from orders o left join payments p on p.order_id = o.id
     -- What was called off before it was paid for is never collected.
     cross join lateral (
           select coalesce(sum(i.called_off_amount) filter (where o.payment_method = 'COD'), 0) as cash
             from order_items i where i.order_id = o.id) c),
judged as (
    select m.*,
        case
            when amount <> total or not same_currency then format('a payment over %s in the order''s currency', total)
            when payment_says <> order_says then 'payment ' || order_says || ', as the order says'
            when status = 'PENDING' then null
            when status in ('CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED') then case
                when order_says in ('AUTHORIZED', 'FAILED') then 'a payment that is captured, or due on delivery'
                when total = 0 and captured = 0 and order_says in ('PENDING', 'CAPTURED') then null
                when order_says = 'PENDING' and not (is_cash and captured = 0) then format('CAPTURED, captured %s', total)
                when order_says = 'PENDING' and status = 'DELIVERED' then format('CAPTURED on delivery, captured %s', total)
                when order_says = 'PENDING' then null
                when is_cash and status <> 'DELIVERED' then 'PENDING until delivery'
                when captured <> due then format('captured %s', due)
                when order_says = 'CAPTURED' and refunded <> 0 then 'refunded 0'
                when order_says = 'PARTIALLY_REFUNDED' and not (refunded > 0 and refunded < captured) then format('refunded between 0 and %s', captured)
                when order_says = 'REFUNDED' and refunded <> captured then format('refunded %s', captured)
            end
            when status = 'REFUNDED' then case
                when captured <> due then format('captured %s', due)
                when refunded < goods then format('refunded %s or more', goods)
                when refunded = 0 and order_says not in ('PENDING', 'CAPTURED') then 'payment CAPTURED'
                when refunded > 0 and refunded < captured and order_says <> 'PARTIALLY_REFUNDED' then 'payment PARTIALLY_REFUNDED'
                when refunded > 0 and refunded >= captured and order_says <> 'REFUNDED' then 'payment REFUNDED'
            end
            when captured <> refunded then format('refunded %s, or a live run giving it back', captured)
            when captured > 0 and order_says <> 'REFUNDED' then 'payment REFUNDED'
            when total = 0 and order_says = 'REFUNDED' then null
            when captured = 0 and order_says in ('CAPTURED', 'PARTIALLY_REFUNDED', 'REFUNDED') then 'a payment that took nothing'
        end as expected
      from money m),
-- The orders that runs alive are settling name themselves in the run's key or input.
settling as materialized (
    select distinct named[1]::uuid as order_id
      from engine.runs r,
           regexp_matches(r.run_key || ' ' || r.input::text,
               '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', 'g') as named
     where r.workflow in ('refund', 'reconcile', 'cancellation', 'return')),
breaches (subject, expected, actual) as materialized (
    select 'order ' || j.id,
           j.expected,
           format('order %s, payment %s, order says payment %s, total %s, payment amount %s, captured %s, refunded %s',
               j.status, j.payment_says, j.order_says, j.total, j.amount, j.captured, j.refunded)
      from judged j
     where j.expected is not null
       and not (j.status in ('CANCELLED', 'REFUNDED') and j.captured <> j.refunded
                and (j.id in (select order_id from settling)
                     -- What was never sold, its checkout takes back.
                     or not j.was_sold and exists (select from engine.runs r where r.id = j.checkout_run_id))))
select subject, expected, actual from breaches order by subject, expected limit 100
