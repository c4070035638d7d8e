-- Whatever a checkout holds is held by a run that lives: a PENDING order, a cart in CHECKOUT, a live
-- reservation of a cart. Nobody else would ever let go of it.
with breaches (subject, expected, actual) as materialized (
    select 'order ' || o.id, 'a live run ' || o.checkout_run_id, 'PENDING, its run is not live'
       from orders o
      where o.order_status = 'PENDING' and not exists (select from engine.runs r where r.id = o.checkout_run_id)
    union all
    select 'cart ' || c.id, 'a live run ' || c.checkout_run_id, 'CHECKOUT, its run is not live'
       from carts c
      where c.status = 'CHECKOUT' and not exists (select from engine.runs r where r.id = c.checkout_run_id)
    union all
    select 'reservation ' || h.id, 'a cart in CHECKOUT and a live run', format('ACTIVE, cart %s %s, its run is not live', h.cart_id, c.status)
       from inventory_reservations h
       left join carts c on c.id = h.cart_id
      where h.status = 'ACTIVE' and (h.cart_id is not null or h.order_id is not null)
        and not (coalesce(c.status = 'CHECKOUT', false) and exists (select from engine.runs r where r.id = c.checkout_run_id)))
select subject, expected, actual from breaches order by subject, expected limit 100
