-- Whatever a checkout holds is held by a run that lives: a PENDING order, a cart in CHECKOUT, a live
-- reservation of a cart. Nobody else would ever let go of it. And an order whose cancellation was accepted
-- is cancelled, or about to be by a run that lives. And a refund that has not arrived has a run that sends it.
with breaches (subject, expected, actual) as materialized (
    select 'order ' || o.id, 'a live run ' || o.checkout_run_id, 'PENDING, its run is not live'
       from orders o
      where o.order_status = 'PENDING' and not exists (select from engine.runs r where r.id = o.checkout_run_id)
    union all
    select 'order ' || o.id, 'CANCELLED, or a live run ' || o.cancellation_run_id, o.order_status || ', its cancellation is not live'
       from orders o
      where o.cancellation_run_id is not null and o.order_status <> 'CANCELLED'
        and not exists (select from engine.runs r where r.id = o.cancellation_run_id)
    union all
    select 'cart ' || c.id, 'a live run ' || c.checkout_run_id, 'CHECKOUT, its run is not live'
       from carts c
      where c.status = 'CHECKOUT' and not exists (select from engine.runs r where r.id = c.checkout_run_id)
    union all
    select 'refund ' || r.id, 'a live run ' || r.run_id, r.status || ', its run is not live'
       from refunds r
      where r.status <> 'SUCCEEDED' and not exists (select from engine.runs e where e.id = r.run_id)
    union all
    select 'reservation ' || h.id, 'a live checkout of order ' || h.order_id, 'ACTIVE, no such run is live'
       from inventory_reservations h
      where h.status = 'ACTIVE' and h.order_id is not null
        and not exists (select from engine.runs r
                         where r.workflow = 'checkout' and (r.input ->> 'orderId')::uuid = h.order_id))
select subject, expected, actual from breaches order by subject, expected limit 100
