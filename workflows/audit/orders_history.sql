-- Folding an order's history, in the order it was written, gives its status: it starts from nowhere
-- at PENDING, and each entry leaves from where the one before arrived.
with told as (
    select order_id, from_status, to_status,
           lag(to_status) over entries as before,
           row_number() over entries = 1 as is_first,
           lead(id) over entries is null as is_last
      from order_state_history
    window entries as (partition by order_id order by id)),
breaches (subject, expected, actual) as materialized (
    select 'order ' || o.id,
           case when t.order_id is null then 'a history that ends at ' || o.order_status
                when t.is_first and (t.from_status is not null or t.to_status <> 'PENDING') then '(none) → PENDING'
                when t.from_status is distinct from t.before then format('%s → %s', coalesce(t.before, '(none)'), t.to_status)
                else 'a history that ends at ' || o.order_status end,
           case when t.order_id is null then 'no history'
                else format('%s → %s', coalesce(t.from_status, '(none)'), t.to_status) end
      from orders o left join told t on t.order_id = o.id
     where t.order_id is null
        or t.is_first and (t.from_status is not null or t.to_status <> 'PENDING')
        or t.from_status is distinct from t.before
        or t.is_last and t.to_status <> o.order_status)
select subject, expected, actual from breaches order by subject, expected limit 100
