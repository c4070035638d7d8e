-- The limit for sets: the rows that limit.sql changes for one checkout, of many in one statement each. Stock
-- is summed up by variant and locked last, in variant order, so that its locks last no longer than a commit.

-- 1 · ids: six a cart, for each line, in variant order, a reservation's and an order line's.
create function bench.hold_and_order_set(p_carts uuid[], p_users uuid[], p_orders uuid[], p_runs uuid[], p_ids uuid[], p_keys text[])
returns void language plpgsql as $$
declare
    at timestamptz := clock_timestamp();
    numbers int[]; places int[]; variants uuid[]; quantities int[]; prices numeric[]; taxes numeric[]; names text[]; skus text[];
    subtotals numeric[]; order_taxes numeric[]; wanted uuid[]; pieces int[]; done int;
begin
    update carts c set status = 'CHECKOUT', checkout_run_id = s.run, version = version + 1, updated_at = at, last_activity_at = at
      from unnest(p_carts, p_runs) as s (cart, run)
     where c.id = s.cart and (c.status = 'ACTIVE') is true;
    get diagnostics done = row_count;
    if done <> cardinality(p_carts) then raise exception 'a cart is not ACTIVE'; end if;

    select array_agg(l.n), array_agg(l.k), array_agg(l.variant_id), array_agg(l.quantity), array_agg(l.price), array_agg(l.tax),
           array_agg(l.product_name), array_agg(l.sku)
      into numbers, places, variants, quantities, prices, taxes, names, skus
      from (select s.n, row_number() over (partition by s.n order by c.variant_id) as k, c.variant_id, c.quantity, v.price,
                   round(c.quantity * v.price * v.tax_rate / 100, 2) as tax, p.product_name, v.sku
              from unnest(p_carts) with ordinality as s (cart, n)
              join cart_items c on c.cart_id = s.cart
              join product_variants v on v.id = c.variant_id join products p on p.id = v.product_id) l;
    select array_agg(o.subtotal order by o.n), array_agg(o.tax order by o.n) into subtotals, order_taxes
      from (select l.n, sum(l.quantity * l.price) as subtotal, sum(l.tax) as tax
              from unnest(numbers, quantities, prices, taxes) as l (n, quantity, price, tax) group by l.n) o;
    if cardinality(subtotals) <> cardinality(p_carts) then raise exception 'a cart is empty'; end if;

    insert into inventory_reservations (id, order_id, cart_id, variant_id, quantity_reserved, created_at, expires_at)
    select p_ids[6 * l.n + 2 * l.k - 7], p_orders[l.n], p_carts[l.n], l.variant_id, l.quantity, at, at + interval '10 minutes'
      from unnest(numbers, places, variants, quantities) as l (n, k, variant_id, quantity);
    insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
    select l.variant_id, 'HOLD', -l.quantity, l.quantity, p_ids[6 * l.n + 2 * l.k - 7], at
      from unnest(numbers, places, variants, quantities) as l (n, k, variant_id, quantity);

    insert into orders (id, order_number, user_id, cart_id, checkout_run_id, contact_email, subtotal_amount, tax_amount,
        shipping_amount, total_amount, shipping_address, billing_address, payment_method, order_date, updated_at)
    select o.id, 'ORD-L' || nextval('order_number_seq'), o.user_id, o.cart_id, o.run_id, 'shopper@bench.example', o.subtotal, o.tax,
           50, o.subtotal + o.tax + 50, bench.address(), bench.address(), 'CREDIT_CARD', at, at
      from unnest(p_orders, p_users, p_carts, p_runs, subtotals, order_taxes) as o (id, user_id, cart_id, run_id, subtotal, tax);
    insert into order_items (id, order_id, variant_id, product_name, sku, quantity, unit_price, tax_amount, igst_amount, total_price, created_at)
    select p_ids[6 * l.n + 2 * l.k - 6], p_orders[l.n], l.variant_id, l.name, l.sku, l.quantity, l.price, l.tax, l.tax,
           l.quantity * l.price + l.tax, at
      from unnest(numbers, places, variants, quantities, prices, taxes, names, skus) as l (n, k, variant_id, quantity, price, tax, name, sku);
    insert into order_state_history (order_id, to_status, changed_by, changed_at)
    select id, 'PENDING', 'bench', at from unnest(p_orders) as o (id);
    insert into payments (order_id, payment_method, amount, payment_gateway, created_at, updated_at)
    select o.id, 'CREDIT_CARD', o.subtotal + o.tax + 50, 'bench', at, at
      from unnest(p_orders, subtotals, order_taxes) as o (id, subtotal, tax);
    insert into outbox_events (event_id, event_type, subject, data, occurred_at)
    select gen_random_uuid(), e.event, o.id::text, bench.event(o.id, e.total), at
      from unnest(p_orders, subtotals, order_taxes) as o (id, subtotal, tax),
           lateral (values ('order.created', o.subtotal + o.tax + 50), ('inventory.reserved', null)) as e (event, total);
    insert into idempotency_keys (caller, idempotency_key, request_hash, status, body, created_at)
    select 'user:' || o.user_id, o.key, sha256(o.key::bytea), 202, jsonb_build_object('workflowId', o.run_id, 'orderId', o.id), at
      from unnest(p_orders, p_users, p_runs, p_keys) as o (id, user_id, run_id, key);

    select array_agg(w.variant_id), array_agg(w.quantity) into wanted, pieces
      from (select l.variant_id, sum(l.quantity)::int as quantity
              from unnest(variants, quantities) as l (variant_id, quantity) group by l.variant_id) w;
    perform from inventory where variant_id = any(wanted) order by variant_id for update;
    update inventory i
       set available_quantity = available_quantity - w.quantity, reserved_quantity = reserved_quantity + w.quantity,
           version = version + 1, updated_at = at
      from unnest(wanted, pieces) as w (variant_id, quantity)
     where i.variant_id = w.variant_id and i.available_quantity >= w.quantity;
    get diagnostics done = row_count;
    if done <> cardinality(wanted) then raise exception 'out of stock'; end if;
end $$;

-- 2 · The gateway has answered all of them.
create function bench.pay_set(p_orders uuid[], p_gateway_payments text[]) returns void language plpgsql as $$
declare
    at timestamptz := clock_timestamp();
begin
    with paid as (
        update payments p set gateway_payment_id = s.gateway_payment, updated_at = at
          from unnest(p_orders, p_gateway_payments) as s (order_id, gateway_payment)
         where p.order_id = s.order_id
        returning p.id, p.gateway_payment_id)
    insert into payment_attempts (payment_id, attempt, idempotency_key, gateway_payment_id, status, created_at, updated_at)
    select id, 1, gen_random_uuid(), gateway_payment_id, 'CAPTURED', at, at from paid;
end $$;

-- 3 · Everything that makes them sales.
create function bench.confirm_set(p_orders uuid[], p_messages uuid[]) returns void language plpgsql as $$
declare
    at timestamptz := clock_timestamp();
    ids uuid[]; messages uuid[]; cart_ids uuid[]; totals numeric[]; emails text[];
    reservations uuid[]; variants uuid[]; quantities int[]; wanted uuid[]; pieces int[];
begin
    with confirmed as (
        update orders o set order_status = 'CONFIRMED', payment_status = 'CAPTURED', confirmed_at = at, updated_at = at
          from unnest(p_orders, p_messages) as s (order_id, message)
         where o.id = s.order_id and (o.order_status = 'PENDING') is true
        returning o.id, s.message, o.cart_id, o.total_amount, o.contact_email)
    select array_agg(id), array_agg(message), array_agg(cart_id), array_agg(total_amount), array_agg(contact_email)
      into ids, messages, cart_ids, totals, emails from confirmed;
    if cardinality(ids) is distinct from cardinality(p_orders) then raise exception 'an order is not PENDING'; end if;
    update payments p set payment_status = 'CAPTURED', captured_amount = s.total, updated_at = at
      from unnest(ids, totals) as s (order_id, total)
     where p.order_id = s.order_id;

    with confirmed as (
        update inventory_reservations set status = 'CONFIRMED' where order_id = any(ids) and (status = 'ACTIVE') is true
        returning id, variant_id, quantity_reserved)
    select array_agg(id), array_agg(variant_id), array_agg(quantity_reserved) into reservations, variants, quantities from confirmed;
    insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
    select variant_id, 'COMMIT', 0, -quantity, id, at
      from unnest(reservations, variants, quantities) as l (id, variant_id, quantity);

    update carts set status = 'CONVERTED', version = version + 1, updated_at = at where id = any(cart_ids);
    insert into order_state_history (order_id, from_status, to_status, changed_by, changed_at)
    select id, 'PENDING', 'CONFIRMED', 'bench', at from unnest(ids) as o (id);
    insert into outbox_events (event_id, event_type, subject, data, occurred_at)
    select gen_random_uuid(), e.event, o.id::text, bench.event(o.id, e.total), at
      from unnest(ids, totals) as o (id, total),
           lateral (values ('order.confirmed', o.total), ('inventory.committed', null), ('payment.captured', o.total)) as e (event, total);
    insert into notifications (id, event, subject_id, channel, recipient, message_id, status, sends, created_at, sent_at)
    select m.id, 'order.confirmed', m.order_id, 'EMAIL', m.email, m.id || '@bench.example', 'SENT', 1, at, at
      from unnest(messages, ids, emails) as m (id, order_id, email);

    select array_agg(w.variant_id), array_agg(w.quantity) into wanted, pieces
      from (select l.variant_id, sum(l.quantity)::int as quantity
              from unnest(variants, quantities) as l (variant_id, quantity) group by l.variant_id) w;
    perform from inventory where variant_id = any(wanted) order by variant_id for update;
    update inventory i set reserved_quantity = reserved_quantity - w.quantity, version = version + 1, updated_at = at
      from unnest(wanted, pieces) as w (variant_id, quantity)
     where i.variant_id = w.variant_id;
end $$;
