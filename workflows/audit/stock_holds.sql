-- Σ live holds of a variant = what its counter says is reserved.
with held as (
    select variant_id, sum(quantity_reserved) as quantity
      from inventory_reservations where status = 'ACTIVE' group by variant_id),
breaches (subject, expected, actual) as materialized (
    select 'variant ' || coalesce(v.sku, h.variant_id::text),
           format('reserved %s', coalesce(h.quantity, 0)),
           format('reserved %s', i.reserved_quantity)
      from inventory i
      full join held h on h.variant_id = i.variant_id
      left join product_variants v on v.id = coalesce(i.variant_id, h.variant_id)
     where i.reserved_quantity is distinct from coalesce(h.quantity, 0))
select subject, expected, actual from breaches order by subject, expected limit 100
