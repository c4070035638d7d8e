-- The buyer of a confirmed order was told, once the run that tells of it is over. Only a day's runs are
-- looked at: their messages outlive them, and reading every finished run would take too long.
with told as materialized (
    select distinct (f.input ->> 'orderId')::uuid as order_id
      from engine.finished_runs f
     where f.workflow = 'notification' and f.status = 'COMPLETED' and f.input ->> 'event' = 'order.confirmed'
       and f.id >= (lpad(to_hex((extract(epoch from now() - interval '1 day') * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid),
breaches (subject, expected, actual) as materialized (
    select 'order ' || o.id, 'a message order.confirmed', 'none, though its notification run has finished'
      from told t join orders o on o.id = t.order_id
     where o.order_status in ('CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED')
       and o.confirmed_at < (select engine.now()) - interval '60 seconds'
       and not exists (select from notifications n where n.subject_id = o.id and n.event = 'order.confirmed'))
select subject, expected, actual from breaches order by subject, expected limit 100
