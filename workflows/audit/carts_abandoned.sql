-- A cart that was left behind was told of, once for each time it was left; there was something in it, and
-- no checkout holds it.
with told as (
    select subject, (data ->> 'lastActivityAt')::timestamptz as idle_since, count(*) as times
      from outbox_events where event_type = 'cart.abandoned'
     group by subject, (data ->> 'lastActivityAt')::timestamptz),
breaches (subject, expected, actual) as materialized (
    select 'cart ' || t.subject, 'left once at ' || t.idle_since, format('told %s times', t.times)
      from told t where t.times > 1
    union all
    select 'cart ' || c.id, 'an event cart.abandoned', 'ABANDONED, last touched ' || c.last_activity_at || ', and none'
      from carts c
     where c.status = 'ABANDONED'
       and not exists (select from told t where t.subject = c.id::text and t.idle_since = c.last_activity_at))
select subject, expected, actual from breaches order by subject, expected limit 100
