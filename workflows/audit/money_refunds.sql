-- What a payment says was refunded = Σ its refunds that succeeded, and never more than was captured,
-- nor is more than that claimed; the shop keeps nothing for what was called off. Money captured besides what pays for an order goes back beside its books.
-- What a gateway has given back is there once; but what somebody did elsewhere may stand in the place of several of ours.
with given_back as (
    select payment_id, sum(amount) filter (where status = 'SUCCEEDED') as amount,
           -- What a gateway refused is owed all the same, and so claimed.
           sum(amount) as claimed
      from refunds where not is_extra group by payment_id),
breaches (subject, expected, actual) as materialized (
    select 'order ' || p.order_id, format('at most %s kept', p.amount - c.amount),
           format('%s kept', p.captured_amount - coalesce(k.amount, 0))
      from payments p
      join (select order_id, sum(called_off_amount) as amount from order_items group by order_id) c
        on c.order_id = p.order_id and c.amount > 0
      left join (select payment_id, sum(amount) as amount from refunds where not is_extra group by payment_id) k
        on k.payment_id = p.id
     where p.captured_amount - coalesce(k.amount, 0) > p.amount - c.amount
       and not exists (select from orders o where o.id = p.order_id and o.cancellation_run_id is not null)
    union all
    select 'order ' || p.order_id,
           format('refunded %s, at most %s', coalesce(g.amount, 0), p.captured_amount),
           format('refunded %s, claimed %s', p.refund_amount, coalesce(g.claimed, 0))
      from payments p left join given_back g on g.payment_id = p.id
     where p.refund_amount <> coalesce(g.amount, 0) or p.refund_amount > p.captured_amount
        or coalesce(g.claimed, 0) > p.captured_amount
    union all
    select 'order ' || p.order_id, format('refund %s of the gateway once', r.gateway_refund_id), count(*) || ' times'
      from refunds r join payments p on p.id = r.payment_id
     where r.gateway_refund_id is not null
     group by p.order_id, r.gateway_payment_id, r.gateway_refund_id having count(*) > 1 and bool_or(r.origin <> 'GATEWAY'))
select subject, expected, actual from breaches order by subject, expected limit 100
