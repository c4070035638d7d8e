-- Each change of an order's state has its event, once, in order: the order.* events of an order, as
-- written, are its history read aloud. PROCESSING and REFUNDED are not announced.
with history as (
    select order_id::text as subject,
           string_agg(case to_status when 'PENDING' then 'order.created' when 'CONFIRMED' then 'order.confirmed'
                           when 'SHIPPED' then 'order.shipped' when 'DELIVERED' then 'order.delivered'
                           else 'order.cancelled' end, ', ' order by id) as told
      from order_state_history
     where to_status in ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')
     group by order_id),
announced as (
    select subject, string_agg(event_type, ', ' order by id) as told
      from outbox_events
     where event_type in ('order.created', 'order.confirmed', 'order.shipped', 'order.delivered', 'order.cancelled')
     group by subject),
breaches (subject, expected, actual) as materialized (
    select 'order ' || subject, coalesce(h.told, 'no events: no such order'), coalesce(a.told, 'no events')
      from history h full join announced a using (subject)
     where h.told is distinct from a.told)
select subject, expected, actual from breaches order by subject, expected limit 100
