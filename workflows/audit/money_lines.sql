-- An order is the sum of its lines: Σ lines + shipping = total, and discount, tax and subtotal likewise.
with lines as (
    select order_id, sum(total_price) as total, sum(discount_amount) as discount, sum(tax_amount) as tax,
           sum(quantity * unit_price) as subtotal
      from order_items group by order_id),
breaches (subject, expected, actual) as materialized (
    select 'order ' || o.id,
           format('lines: subtotal %s, discount %s, tax %s, total %s',
               o.subtotal_amount, o.discount_amount, o.tax_amount, o.total_amount - o.shipping_amount),
           coalesce(format('lines: subtotal %s, discount %s, tax %s, total %s', l.subtotal, l.discount, l.tax, l.total), 'no lines')
      from orders o left join lines l on l.order_id = o.id
     where l.total + o.shipping_amount is distinct from o.total_amount
        or l.discount is distinct from o.discount_amount
        or l.tax is distinct from o.tax_amount
        or l.subtotal is distinct from o.subtotal_amount)
select subject, expected, actual from breaches order by subject, expected limit 100
