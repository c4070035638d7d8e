-- What an order sold was committed for it, line by line; an order that is not sold keeps nothing, but for
-- what was lost or written off; and a variant has never sold more than was ever stocked.
with sold as (
    select i.order_id, i.variant_id,
           sum(case when o.order_status in ('CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'REFUNDED')
                    then i.quantity else i.written_off end) as quantity
      from order_items i join orders o on o.id = i.order_id
     group by i.order_id, i.variant_id),
committed as (
    select r.order_id, r.variant_id,
           sum(case when o.order_status in ('CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'REFUNDED')
                    then r.quantity_reserved else r.quantity_reserved - r.quantity_returned end) as quantity
      from inventory_reservations r left join orders o on o.id = r.order_id
     where r.status in ('CONFIRMED', 'RETURNED') and r.order_id is not null
     group by r.order_id, r.variant_id),
stocked as (
    select variant_id, sum(available_delta) as quantity
      from inventory_movements where kind in ('RESTOCK', 'ADJUST') group by variant_id),
gone as (
    select variant_id, sum(quantity_reserved - quantity_returned) as quantity
      from inventory_reservations where status in ('CONFIRMED', 'RETURNED') group by variant_id),
breaches (subject, expected, actual) as materialized (
    select format('order %s, variant %s', order_id, variant_id),
            format('%s committed', coalesce(s.quantity, 0)),
            format('%s committed', coalesce(c.quantity, 0))
       from sold s full join committed c using (order_id, variant_id)
      where coalesce(s.quantity, 0) <> coalesce(c.quantity, 0)
    union all
    select 'variant ' || g.variant_id, format('at most %s sold', coalesce(s.quantity, 0)), format('%s sold', g.quantity)
       from gone g left join stocked s using (variant_id)
      where g.quantity > coalesce(s.quantity, 0))
select subject, expected, actual from breaches order by subject, expected limit 100
