-- Shelves and live carts of `bench cart`, added to the lived-in database. `bench.skus` says how many variants
-- are drawn from, `bench.carts` how many carts there are, every `bench.big_every`th of them of 200 lines.

create table bench.live (n int primary key, cart_id uuid not null, user_id uuid);

-- The lived-in shop has 1,000 variants; more of them, numbered on, until there are enough.
with now as (select (extract(epoch from now()) * 1000)::bigint as ms),
new_products as (
    insert into products (id, sku, product_name, category_id, brand_id, base_price)
    select bench.id(ms, 'product' || n), 'BEN-' || n, 'Product ' || n, category.id, brand.id, 100 + n * 4 % 1000
      from now, brands brand, categories category, generate_series(250, (current_setting('bench.skus')::int - 1) / 4) n
    returning id, sku),
new_variants as (
    insert into product_variants (id, product_id, sku, variant_name, price, attributes)
    select bench.id(now.ms, 'variant' || n), p.id, format('BEN-%s-%s', n / 4, n % 4), 'Variant ' || n % 4, 100 + n % 1000,
           jsonb_build_object('size', n % 4, 'colour', 'blue')
      from now, generate_series(1000, current_setting('bench.skus')::int - 1) n join new_products p on p.sku = 'BEN-' || n / 4
    returning id, sku, price)
insert into bench.variants
select split_part(sku, '-', 2)::int * 4 + split_part(sku, '-', 3)::int, id, price from new_variants;

insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at)
select variant_id, 'RESTOCK', 1000000, 0, now() from bench.variants where n >= 1000 order by n;
insert into inventory (variant_id, available_quantity, reserved_quantity)
select variant_id, 1000000, 0 from bench.variants where n >= 1000;

-- One coupon that comes by itself, and one that every tenth cart has noted.
insert into coupons (id, code, kind, value, auto_apply, stackable)
select bench.id((extract(epoch from now()) * 1000)::bigint, c.code), c.code, 'PERCENT', c.value, c.auto_apply, true
  from (values ('BENCH5', 5, true), ('BENCH10', 10, false)) as c (code, value, auto_apply);

-- Every other cart is a guest's, known by the hash of their token; the rest are users'.
insert into bench.live
select n, bench.id(ms, 'live cart' || n), case when n % 2 = 1 then bench.id(ms, 'live user' || n) end
  from (select (extract(epoch from now()) * 1000)::bigint as ms) now, generate_series(0, current_setting('bench.carts')::int - 1) n;
insert into users (id, email, password_hash)
select user_id, user_id || '@bench.example', 'none' from bench.live where user_id is not null order by n;
insert into carts (id, user_id, session_hash, expires_at)
select cart_id, user_id, case when user_id is null then sha256(convert_to('bench-guest-' || lpad(n::text, 8, '0'), 'UTF8')) end,
       now() + case when user_id is null then interval '1 day' else interval '30 days' end
  from bench.live order by n;
insert into cart_items (cart_id, variant_id, quantity, price)
select l.cart_id, v.variant_id, 1 + k % 2, v.price
  from bench.live l
 cross join lateral generate_series(0, least(case when l.n % current_setting('bench.big_every')::int = 0 then 200 else 1 + l.n % 5 end,
                                             current_setting('bench.skus')::int) - 1) k
  join bench.variants v on v.n = (l.n * 7919::bigint + k) % current_setting('bench.skus')::int
 order by l.n, k;
insert into cart_coupons (cart_id, coupon_id)
select l.cart_id, c.id from bench.live l, coupons c where l.n % 10 = 0 and c.code = 'BENCH10' order by l.n;
