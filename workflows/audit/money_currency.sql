-- An order has one currency: its cart's, that of every line as its product was priced, what was captured for
-- it and each refund. (That of its payment is among its states.)
with places (order_id, place, currency) as (
    select o.id, 'cart', c.currency
      from orders o join carts c on c.id = o.cart_id and c.checkout_run_id = o.checkout_run_id
    union all
    select order_id, 'line ' || sku, currency from order_items
    union all
    select p.order_id, 'attempt ' || a.attempt, a.currency
      from payment_attempts a join payments p on p.id = a.payment_id where a.status = 'CAPTURED'
    union all
    select p.order_id, 'refund ' || r.id, r.currency
      from refunds r join payments p on p.id = r.payment_id where not r.is_extra),
breaches (subject, expected, actual) as materialized (
    select 'order ' || o.id, format('%s in %s', p.place, o.currency), p.currency::text
      from orders o join places p on p.order_id = o.id
     where p.currency <> o.currency)
select subject, expected, actual from breaches order by subject, expected limit 100
