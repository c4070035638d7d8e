-- Σ movements of a variant = its two counters, and neither is below zero.
with ledger as (
    select variant_id, sum(available_delta) as available, sum(reserved_delta) as reserved
      from inventory_movements group by variant_id),
breaches (subject, expected, actual) as materialized (
    select 'variant ' || coalesce(v.sku, l.variant_id::text),
           format('available %s, reserved %s, neither below 0', coalesce(l.available, 0), coalesce(l.reserved, 0)),
           format('available %s, reserved %s', i.available_quantity, i.reserved_quantity)
      from inventory i
      full join ledger l on l.variant_id = i.variant_id
      left join product_variants v on v.id = coalesce(i.variant_id, l.variant_id)
     where i.available_quantity is distinct from coalesce(l.available, 0)
        or i.reserved_quantity is distinct from coalesce(l.reserved, 0)
        or i.available_quantity < 0 or i.reserved_quantity < 0)
select subject, expected, actual from breaches order by subject, expected limit 100
