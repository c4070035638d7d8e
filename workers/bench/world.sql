-- A database that looks lived-in: on empty tables Postgres caches plans that scan them, and every
-- foreign key check is slow until the first analyze. `bench.orders` says how many past orders.

create schema bench;

-- A uuid v7 of that millisecond whose random part follows from a name: rows can name each other
-- without being joined.
create function bench.id(ms bigint, name text) returns uuid language sql immutable parallel safe as $$
    select (lpad(to_hex(ms), 12, '0') || '7' || left(md5(name), 3) || '8' || substr(md5(name), 4, 15))::uuid
$$;
create function bench.address() returns jsonb language sql immutable parallel safe as $$
    select '{"recipientName":"Asha Rao","addressLine1":"12 Marine Drive","city":"Mumbai","state":"Maharashtra",
             "postalCode":"400020","country":"India","phoneNumber":"+912212345678"}'::jsonb
$$;
create function bench.event(order_id uuid, total numeric) returns jsonb language sql stable parallel safe as $$
    select jsonb_build_object('orderId', order_id, 'totalAmount', total::text, 'currency', 'INR')
$$;

create table bench.variants (n int primary key, variant_id uuid not null, price numeric not null);

with now as (select (extract(epoch from now()) * 1000)::bigint as ms),
brand as (insert into brands (id, name) select bench.id(ms, 'brand'), 'Bench' from now returning id),
category as (insert into categories (id, name) select bench.id(ms, 'category'), 'Bench' from now returning id),
new_products as (
    insert into products (id, sku, product_name, category_id, brand_id, base_price)
    select bench.id(ms, 'product' || n), 'BEN-' || n, 'Product ' || n, category.id, brand.id, 100 + n * 4
      from now, brand, category, generate_series(0, 249) n),
new_variants as (
    insert into product_variants (id, product_id, sku, variant_name, price)
    select bench.id(ms, 'variant' || n), bench.id(ms, 'product' || n / 4), format('BEN-%s-%s', n / 4, n % 4), 'Variant ' || n % 4, 100 + n
      from now, generate_series(0, 999) n
    returning id, price)
insert into bench.variants select row_number() over (order by price) - 1, id, price from new_variants;

insert into users (id, email, password_hash, first_name)
select bench.id((extract(epoch from now()) * 1000)::bigint - n, 'user' || n), format('past-%s@bench.example', n), 'none', 'Asha'
  from generate_series(0, 19999) n;

-- The past: n in 10 are 5 CONFIRMED, 1 CONFIRMED to be paid in cash, 1 SHIPPED, 2 DELIVERED, 1 declined.
create unlogged table bench.past as
select o.n, o.at, o.ms, bench.id(o.ms, 'order' || o.n) as order_id, bench.id(o.ms, 'cart' || o.n) as cart_id,
       bench.id(o.ms, 'run' || o.n) as run_id,
       bench.id((extract(epoch from now()) * 1000)::bigint - u.n, 'user' || u.n) as user_id,
       (array['DELIVERED', 'DELIVERED', 'SHIPPED', 'CANCELLED', 'CONFIRMED', 'CONFIRMED', 'CONFIRMED', 'CONFIRMED', 'CONFIRMED', 'CONFIRMED'])[o.n % 10 + 1] as status,
       case when o.n % 10 = 9 then 'COD' else 'CREDIT_CARD' end as method,
       case o.n % 10 when 3 then 'FAILED' when 9 then 'PENDING' else 'CAPTURED' end as payment
  from (select n, ms, to_timestamp(ms / 1000.0) as at
          from generate_series(0, current_setting('bench.orders')::int - 1) n,
               lateral (select ((extract(epoch from now()) - 7776000) * 1000)::bigint
                               + n::bigint * 7680000000 / greatest(current_setting('bench.orders')::int, 1) as ms) t) o,
       lateral (select (hashint8extended(o.n, 1) & 1048575) % 20000 as n) u;
create unlogged table bench.past_lines as
select p.n, p.order_id, p.cart_id, p.at, p.status, bench.id(p.ms, format('item%s/%s', p.n, k)) as item_id,
       bench.id(p.ms, format('hold%s/%s', p.n, k)) as hold_id, v.variant_id, v.n as variant, v.price,
       1 + (p.n / 10 + k) % 2 as quantity, v.price * (1 + (p.n / 10 + k) % 2) * 0.18 as tax
  from bench.past p cross join lateral generate_series(0, p.n / 10 % 2) k
  join bench.variants v on v.n = (p.n * 7919::bigint + k * 501) % 1000
 order by p.n, k;
analyze bench.past, bench.past_lines, bench.variants;

insert into carts (id, user_id, status, checkout_run_id, version, created_at, updated_at, last_activity_at)
select cart_id, user_id, 'CONVERTED', run_id, 4, at, at, at from bench.past where status <> 'CANCELLED' order by n;
insert into cart_items (cart_id, variant_id, quantity, price, added_at, updated_at)
select cart_id, variant_id, quantity, price, at, at from bench.past_lines where status <> 'CANCELLED' order by n;

insert into orders (id, order_number, user_id, cart_id, checkout_run_id, contact_email, order_status, payment_status,
    shipment_status, subtotal_amount, tax_amount, shipping_amount, total_amount, shipping_address, billing_address,
    payment_method, order_date, confirmed_at, shipped_at, delivered_at, cancelled_at, updated_at)
select p.order_id, 'ORD-P' || lpad(p.n::text, 9, '0'), p.user_id, case when p.status <> 'CANCELLED' then p.cart_id end, p.run_id,
       'past@bench.example', p.status, p.payment,
       case when p.status in ('SHIPPED', 'DELIVERED') then p.status else 'PENDING' end,
       l.subtotal, l.tax, 50, l.subtotal + l.tax + 50, a.address, a.address, p.method, p.at,
       case when p.status <> 'CANCELLED' then p.at end, case when p.status in ('SHIPPED', 'DELIVERED') then p.at end,
       case when p.status = 'DELIVERED' then p.at end, case when p.status = 'CANCELLED' then p.at end, p.at
  from bench.past p
  join (select n, sum(price * quantity) as subtotal, sum(tax) as tax from bench.past_lines group by n) l using (n),
       (select bench.address() as address) a
 order by p.n;
insert into order_items (id, order_id, variant_id, product_name, sku, quantity, unit_price, tax_amount, igst_amount, total_price, created_at)
select item_id, order_id, variant_id, 'Product ' || variant / 4, format('BEN-%s-%s', variant / 4, variant % 4), quantity, price, tax, tax,
       price * quantity + tax, at
  from bench.past_lines order by n;

insert into order_state_history (order_id, from_status, to_status, changed_by, changed_at)
select p.order_id, s.was, s.became, 'bench', p.at
  from bench.past p, lateral (values
    (1, null, 'PENDING', true),
    (2, 'PENDING', 'CANCELLED', p.status = 'CANCELLED'),
    (3, 'PENDING', 'CONFIRMED', p.status <> 'CANCELLED'),
    (4, 'CONFIRMED', 'PROCESSING', p.status in ('SHIPPED', 'DELIVERED')),
    (5, 'PROCESSING', 'SHIPPED', p.status in ('SHIPPED', 'DELIVERED')),
    (6, 'SHIPPED', 'DELIVERED', p.status = 'DELIVERED')) as s (step, was, became, happened)
 where s.happened
 order by p.n, s.step;

insert into payments (order_id, payment_method, amount, payment_gateway, gateway_payment_id, payment_status, captured_amount, created_at, updated_at)
select p.order_id, p.method, o.total_amount, case when p.method <> 'COD' then 'bench' end,
       case when p.method <> 'COD' then 'past_' || p.n end, p.payment,
       case when p.payment = 'CAPTURED' then o.total_amount else 0 end, p.at, p.at
  from bench.past p join orders o on o.id = p.order_id order by p.n;
insert into payment_attempts (payment_id, attempt, idempotency_key, gateway_payment_id, status, created_at, updated_at)
select id, 1, gen_random_uuid(), gateway_payment_id, payment_status, created_at, updated_at
  from payments where payment_method <> 'COD' order by id;

insert into inventory_reservations (id, order_id, cart_id, variant_id, quantity_reserved, status, created_at, expires_at, released_at)
select hold_id, order_id, case when status <> 'CANCELLED' then cart_id end, variant_id, quantity,
       case when status = 'CANCELLED' then 'RELEASED' else 'CONFIRMED' end, at, at + interval '10 minutes',
       case when status = 'CANCELLED' then at end
  from bench.past_lines order by n;
insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at)
select variant_id, 'RESTOCK', 100000000, 0, now() - interval '91 days' from bench.variants order by n;
insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
select l.variant_id, m.kind, m.available, m.reserved, l.hold_id, l.at
  from bench.past_lines l, lateral (values
    ('HOLD', -l.quantity, l.quantity, true),
    ('COMMIT', 0, -l.quantity, l.status <> 'CANCELLED'),
    ('RELEASE', l.quantity, -l.quantity, l.status = 'CANCELLED')) as m (kind, available, reserved, happened)
 where m.happened
 order by l.n;
insert into inventory (variant_id, available_quantity, reserved_quantity)
select variant_id, sum(available_delta), sum(reserved_delta) from inventory_movements group by variant_id;

insert into outbox_events (event_id, event_type, subject, data, occurred_at, published_at)
select gen_random_uuid(), e.event, p.order_id::text, bench.event(p.order_id, 100), p.at, p.at
  from bench.past p, lateral (values
    (1, 'order.created', true),
    (2, 'inventory.reserved', true),
    (3, 'order.confirmed', p.status <> 'CANCELLED'),
    (4, 'inventory.committed', p.status <> 'CANCELLED'),
    (5, 'payment.captured', p.payment = 'CAPTURED'),
    (6, 'payment.failed', p.payment = 'FAILED'),
    (7, 'order.cancelled', p.status = 'CANCELLED'),
    (8, 'inventory.released', p.status = 'CANCELLED'),
    (9, 'order.shipped', p.status in ('SHIPPED', 'DELIVERED')),
    (10, 'order.delivered', p.status = 'DELIVERED')) as e (step, event, happened)
 where e.happened
 order by p.n, e.step;
insert into notifications (id, event, subject_id, channel, recipient, message_id, status, sends, created_at, sent_at)
select bench.id(ms, 'message' || n), 'order.confirmed', order_id, 'EMAIL', 'past@bench.example', n || '@bench.example', 'SENT', 1, at, at
  from bench.past where status <> 'CANCELLED' order by n;

drop table bench.past, bench.past_lines;

-- Carts to be checked out: of 3 different variants, one each; or, hot, all of one and the same.
create function bench.prepare_carts(p_count int, p_hot boolean, p_seed bigint)
returns table (user_id uuid, cart_id uuid) language plpgsql as $$
declare
    ms bigint := (extract(epoch from clock_timestamp()) * 1000)::bigint;
    at timestamptz := engine.now();  -- the clock may have been moved, and a cart of yesterday has been left behind
begin
    create temporary table fresh on commit drop as
    select n, bench.id(ms, 'shopper' || n) as user_id, bench.id(ms, 'cart' || n) as cart_id,
           hashint8extended(n, p_seed) & 4611686018427387903 as dice
      from generate_series(1, p_count) n;
    insert into users (id, email, password_hash) select f.user_id, f.user_id || '@bench.example', 'none' from fresh f;
    insert into carts (id, user_id, created_at, updated_at, last_activity_at) select f.cart_id, f.user_id, at, at, at from fresh f;
    insert into cart_items (cart_id, variant_id, quantity, price)
    select f.cart_id, v.variant_id, 1, v.price
      from fresh f
     -- Three thirds of the circle, each with an offset of its own: always different, all equally often.
     cross join lateral (values (0, 0::bigint), (1, 1 + f.dice / 1000 % 333), (2, 334 + f.dice / 333000 % 333)) as line (k, distance)
      join bench.variants v on v.n = case when p_hot then 0 else (f.dice + line.distance) % 1000 end
     where line.k = 0 or not p_hot;
    return query select f.user_id, f.cart_id from fresh f order by f.n;
end $$;
