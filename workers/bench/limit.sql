-- The limit: the business rows of one checkout, changed by three functions, one commit each. No
-- journal, no queue: what is left is what Postgres itself must do for a sale on this schema.

create table bench.tick (n bigint not null);
insert into bench.tick values (0);

-- 1 · The cart is taken, the stock held, the order written. ids: for each line, in variant order, a
-- reservation's and an order line's (uuid v7, drawn by the caller as production does).
create function bench.hold_and_order(p_cart uuid, p_user uuid, p_order uuid, p_run uuid, p_ids uuid[], p_key text)
returns void language plpgsql as $$
declare
    at timestamptz := clock_timestamp();
    variants uuid[]; quantities int[]; prices numeric[]; taxes numeric[]; names text[]; skus text[];
    subtotal numeric; tax numeric; lines int; held int;
begin
    -- "is true" keeps the planner off the index by status, which it takes for the better one whenever
    -- its statistics have seen few ACTIVE carts.
    update carts set status = 'CHECKOUT', checkout_run_id = p_run, version = version + 1, updated_at = at, last_activity_at = at
     where id = p_cart and (status = 'ACTIVE') is true;
    if not found then raise exception 'cart % is not ACTIVE', p_cart; end if;

    select array_agg(l.variant_id), array_agg(l.quantity), array_agg(l.price), array_agg(l.tax),
           array_agg(l.product_name), array_agg(l.sku), sum(l.quantity * l.price), sum(l.tax), count(*)
      into variants, quantities, prices, taxes, names, skus, subtotal, tax, lines
      from (select c.variant_id, c.quantity, v.price, round(c.quantity * v.price * v.tax_rate / 100, 2) as tax, p.product_name, v.sku
              from cart_items c join product_variants v on v.id = c.variant_id join products p on p.id = v.product_id
             where c.cart_id = p_cart
             order by c.variant_id) l;

    perform from inventory where variant_id = any(variants) order by variant_id for update;
    update inventory i
       set available_quantity = available_quantity - l.quantity, reserved_quantity = reserved_quantity + l.quantity,
           version = version + 1, updated_at = at
      from unnest(variants, quantities) as l (variant_id, quantity)
     where i.variant_id = l.variant_id and i.available_quantity >= l.quantity;
    get diagnostics held = row_count;
    if held <> lines then raise exception 'out of stock'; end if;

    insert into inventory_reservations (id, order_id, cart_id, variant_id, quantity_reserved, created_at, expires_at)
    select p_ids[2 * n - 1], p_order, p_cart, variants[n], quantities[n], at, at + interval '10 minutes' from generate_series(1, lines) n;
    insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
    select variants[n], 'HOLD', -quantities[n], quantities[n], p_ids[2 * n - 1], at from generate_series(1, lines) n;

    insert into orders (id, order_number, user_id, cart_id, checkout_run_id, contact_email, subtotal_amount, tax_amount,
        shipping_amount, total_amount, shipping_address, billing_address, payment_method, order_date, updated_at)
    values (p_order, 'ORD-L' || nextval('order_number_seq'), p_user, p_cart, p_run, 'shopper@bench.example', subtotal, tax,
        50, subtotal + tax + 50, bench.address(), bench.address(), 'CREDIT_CARD', at, at);
    insert into order_items (id, order_id, variant_id, product_name, sku, quantity, unit_price, tax_amount, igst_amount, total_price, created_at)
    select p_ids[2 * n], p_order, variants[n], names[n], skus[n], quantities[n], prices[n], taxes[n], taxes[n],
           quantities[n] * prices[n] + taxes[n], at from generate_series(1, lines) n;
    insert into order_state_history (order_id, to_status, changed_by, changed_at) values (p_order, 'PENDING', 'bench', at);
    insert into payments (order_id, payment_method, amount, payment_gateway, created_at, updated_at)
    values (p_order, 'CREDIT_CARD', subtotal + tax + 50, 'bench', at, at);
    insert into outbox_events (event_id, event_type, subject, data, occurred_at) values
        (gen_random_uuid(), 'order.created', p_order::text, bench.event(p_order, subtotal + tax + 50), at),
        (gen_random_uuid(), 'inventory.reserved', p_order::text, bench.event(p_order, null), at);
    insert into idempotency_keys (caller, idempotency_key, request_hash, status, body, created_at)
    values ('user:' || p_user, p_key, sha256(p_key::bytea), 202, jsonb_build_object('workflowId', p_run, 'orderId', p_order), at);
end $$;

-- 2 · The gateway has answered.
create function bench.pay(p_order uuid, p_gateway_payment text) returns void language plpgsql as $$
declare
    at timestamptz := clock_timestamp();
    payment bigint;
begin
    update payments set gateway_payment_id = p_gateway_payment, updated_at = at where order_id = p_order returning id into payment;
    insert into payment_attempts (payment_id, attempt, idempotency_key, gateway_payment_id, status, created_at, updated_at)
    values (payment, 1, gen_random_uuid(), p_gateway_payment, 'CAPTURED', at, at);
end $$;

-- 3 · Everything that makes it a sale.
create function bench.confirm(p_order uuid, p_message uuid) returns void language plpgsql as $$
declare
    at timestamptz := clock_timestamp();
    cart uuid; total numeric; email text; variants uuid[]; quantities int[]; reservations uuid[];
begin
    update orders set order_status = 'CONFIRMED', payment_status = 'CAPTURED', confirmed_at = at, updated_at = at
     where id = p_order and (order_status = 'PENDING') is true
    returning cart_id, total_amount, contact_email into cart, total, email;
    if not found then raise exception 'order % is not PENDING', p_order; end if;
    update payments set payment_status = 'CAPTURED', captured_amount = total, updated_at = at where order_id = p_order;

    with confirmed as (
        update inventory_reservations set status = 'CONFIRMED' where order_id = p_order and (status = 'ACTIVE') is true
        returning id, variant_id, quantity_reserved)
    select array_agg(id), array_agg(variant_id), array_agg(quantity_reserved)
      into reservations, variants, quantities
      from (select * from confirmed order by variant_id) c;
    perform from inventory where variant_id = any(variants) order by variant_id for update;
    update inventory i set reserved_quantity = reserved_quantity - l.quantity, version = version + 1, updated_at = at
      from unnest(variants, quantities) as l (variant_id, quantity)
     where i.variant_id = l.variant_id;
    insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
    select variant_id, 'COMMIT', 0, -quantity, id, at
      from unnest(reservations, variants, quantities) as l (id, variant_id, quantity);

    update carts set status = 'CONVERTED', version = version + 1, updated_at = at where id = cart;
    insert into order_state_history (order_id, from_status, to_status, changed_by, changed_at)
    values (p_order, 'PENDING', 'CONFIRMED', 'bench', at);
    insert into outbox_events (event_id, event_type, subject, data, occurred_at) values
        (gen_random_uuid(), 'order.confirmed', p_order::text, bench.event(p_order, total), at),
        (gen_random_uuid(), 'inventory.committed', p_order::text, bench.event(p_order, null), at),
        (gen_random_uuid(), 'payment.captured', p_order::text, bench.event(p_order, total), at);
    insert into notifications (id, event, subject_id, channel, recipient, message_id, status, sends, created_at, sent_at)
    values (p_message, 'order.confirmed', p_order, 'EMAIL', email, p_message || '@bench.example', 'SENT', 1, at, at);
end $$;
