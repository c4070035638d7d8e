-- A cart makes at most one order that lives; it is CONVERTED exactly when an order of it was
-- confirmed (cancelling that order later does not bring the cart back); and while its order is
-- PENDING it is in CHECKOUT, for the same run.
with breaches (subject, expected, actual) as materialized (
    select 'cart ' || cart_id, 'at most 1 live order', format('%s live orders', count(*))
       from orders where order_status <> 'CANCELLED' and cart_id is not null
      group by cart_id having count(*) > 1
    union all
    select 'cart ' || c.id, 'a confirmed order of it', 'CONVERTED without one'
       from carts c
      where c.status = 'CONVERTED'
        and not exists (select from orders o where o.cart_id = c.id and o.confirmed_at is not null)
    union all
    select 'cart ' || c.id,
            case when o.order_status = 'PENDING' then 'CHECKOUT by run ' || o.checkout_run_id else 'CONVERTED' end,
            format('%s by run %s, order %s %s', c.status, c.checkout_run_id, o.id, o.order_status)
       from orders o join carts c on c.id = o.cart_id
      where case when o.order_status = 'PENDING'
                 then c.status <> 'CHECKOUT' or c.checkout_run_id is distinct from o.checkout_run_id
                 else o.confirmed_at is not null and c.status <> 'CONVERTED' end)
select subject, expected, actual from breaches order by subject, expected limit 100
