-- What a shopper's bank wants back had been taken, as far as one has heard of it yet; and each word of it was told once.
with taken (order_id, gateway_payment_id) as (
    select p.order_id, paid.id
      from payments p join orders o on o.id = p.order_id
     cross join lateral (values (p.gateway_payment_id), (o.payment_id)) as paid (id)
     where p.captured_amount > 0
    union all
    select p.order_id, a.gateway_payment_id
      from payment_attempts a join payments p on p.id = a.payment_id where a.status = 'CAPTURED'
    union all
    -- What came besides, or late, went back.
    select p.order_id, r.gateway_payment_id from refunds r join payments p on p.id = r.payment_id),
-- The orders whose money somebody is settling name themselves in the run's key or input.
settling as materialized (
    select distinct named[1]::uuid as order_id
      from engine.runs r,
           regexp_matches(r.run_key || ' ' || r.input::text,
               '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', 'g') as named
     where r.workflow in ('refund', 'reconcile', 'cancellation')),
words as (
    select order_id, status, count(*) as disputes from payment_disputes group by order_id, status
    union all
    -- The first word of one may have been how it ended, and what was won may be lost later.
    select order_id, 'any', count(*) from payment_disputes group by order_id),
told as (
    select subject, data ->> 'status' as status, count(*) as times
      from outbox_events where event_type = 'payment.disputed' group by subject, data ->> 'status'),
breaches (subject, expected, actual) as materialized (
    select 'order ' || d.order_id, 'a captured payment ' || d.gateway_payment_id,
           format('dispute %s %s, order %s, captured %s', d.gateway_dispute_id, d.status, o.order_status,
               coalesce(p.captured_amount, 0))
      from payment_disputes d
      join orders o on o.id = d.order_id
      left join payments p on p.order_id = d.order_id
     where not exists (select from taken t where t.order_id = d.order_id and t.gateway_payment_id = d.gateway_payment_id)
       and o.order_status <> 'PENDING'
       and d.order_id not in (select order_id from settling)
       -- It will be compared with the gateway.
       and not exists (select from payment_checks c where c.order_id = d.order_id and c.counts_from is not null)
    union all
    select 'order ' || o.id,
           format('payment.disputed %s: %s to %s times', s.status, coalesce(w.disputes, 0), coalesce(a.disputes, 0)),
           format('payment.disputed %s × %s', s.status, coalesce(t.times, 0))
      from orders o
     cross join (values ('OPENED'), ('WON'), ('LOST')) as s (status)
      left join words w on w.order_id = o.id and w.status = s.status
      left join words a on a.order_id = o.id and a.status = 'any'
      left join told t on t.subject = o.id::text and t.status = s.status
     where coalesce(t.times, 0) < coalesce(w.disputes, 0)
        -- It may be won and lost by turns.
        or coalesce(t.times, 0) > coalesce(a.disputes, 0)
           and not exists (select from told x where x.subject = o.id::text and s.status <> 'OPENED'
                              and x.status not in ('OPENED', s.status)))
select subject, expected, actual from breaches order by subject, expected limit 100
