-- What comes back was delivered, and comes back once: to the shelf, and in money. A return that is not
-- settled is in a live run's hands; one that is has put its pieces back, and paid back its lines' share,
-- which for a line that came back whole is exactly its price. What was called off and not written off is back
-- in stock, too. A REFUNDED order has come back whole, but for what was called off.
with items as (
    select b.order_item_id, r.id as return_id, r.order_id, r.status, b.quantity, b.refund_amount
      from return_items b join returns r on r.id = b.return_id),
lines as (
    select order_item_id, order_id,
           sum(quantity) filter (where status <> 'REJECTED') as asked,
           sum(quantity) filter (where status = 'REFUNDED') as settled,
           sum(refund_amount) filter (where status = 'REFUNDED') as worth,
           sum(quantity) filter (where status = 'RECEIVED') as under_way
      from items group by order_item_id, order_id),
restocked as (
    select order_id, variant_id, sum(quantity_returned) as quantity
      from inventory_reservations where order_id is not null group by order_id, variant_id),
paid as (
    -- What came back from the bank is owed again, and in a live run's hands.
    select f.reference, sum(f.amount) filter (where f.status = 'SUCCEEDED'
               or exists (select from engine.runs e where e.id = f.run_id and e.workflow = 'refund')) as amount
      from refunds f where f.reference is not null group by f.reference),
breaches (subject, expected, actual) as materialized (
    select 'order line ' || l.order_item_id,
            format('a line of order %s, at most %s in returns', l.order_id, coalesce(i.quantity - i.called_off, 0)),
            format('a line of order %s, %s in returns', i.order_id, coalesce(l.asked, 0))
       from lines l left join order_items i on i.id = l.order_item_id
      where i.order_id is distinct from l.order_id or l.asked > i.quantity - i.called_off
    union all
    select 'order line ' || i.id, format('worth %s', i.total_price - i.called_off_amount), format('all %s returned, worth %s', l.settled, l.worth)
       from lines l join order_items i on i.id = l.order_item_id
      where l.settled = i.quantity - i.called_off and l.worth is distinct from i.total_price - i.called_off_amount
    union all
    select 'return ' || r.id, 'of an order that was delivered', 'of an order that is ' || o.order_status
       from returns r join orders o on o.id = r.order_id
      where o.order_status not in ('SHIPPED', 'DELIVERED', 'REFUNDED')
    union all
    select 'return ' || r.id, 'a live run ' || r.run_id, r.status || ', its run is not live'
       from returns r
      where r.status in ('REQUESTED', 'APPROVED', 'RECEIVED')
        and not exists (select from engine.runs e where e.id = r.run_id)
    union all
    select format('order %s, variant %s', i.order_id, i.variant_id),
            format('%s to %s back in stock', b.least, b.least + coalesce(l.under_way, 0)),
            format('%s back in stock', coalesce(s.quantity, 0))
       from order_items i join orders o on o.id = i.order_id
       left join lines l on l.order_item_id = i.id
       left join restocked s on s.order_id = i.order_id and s.variant_id = i.variant_id
      cross join lateral (select coalesce(l.settled, 0) + i.called_off - i.written_off as least) b
      where o.order_status in ('CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'REFUNDED')
        and coalesce(s.quantity, 0) not between b.least and b.least + coalesce(l.under_way, 0)
    union all
    select 'return ' || r.id, format('%s paid back', r.refund_amount), format('%s paid back', coalesce(f.amount, 0))
       from returns r left join paid f on f.reference = r.id::text
      where r.status = 'REFUNDED' and coalesce(f.amount, 0) is distinct from r.refund_amount
    union all
    -- Less than its lines' share only when the staff had promised the rest of the payment before.
    select 'return ' || r.id, format('%s or more', s.worth), format('%s', r.refund_amount)
       from returns r join payments p on p.order_id = r.order_id
       join (select return_id, sum(refund_amount) as worth from items group by return_id) s on s.return_id = r.id
      where r.status = 'REFUNDED' and r.refund_amount < s.worth
        and p.captured_amount > (select coalesce(sum(f.amount), 0) from refunds f
                                  where f.payment_id = p.id and not f.is_extra)
    union all
    select 'order ' || o.id, 'everything returned', 'REFUNDED, and something was not'
       from orders o
      where o.order_status = 'REFUNDED'
        and exists (select from order_items i left join lines l on l.order_item_id = i.id
                     where i.order_id = o.id and i.quantity - i.called_off <> coalesce(l.settled, 0)))
select subject, expected, actual from breaches order by subject, expected limit 100
