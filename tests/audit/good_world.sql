-- A small good world: one order of each kind, all with two pens at 50.00 unless said otherwise.
create schema story;
create function story.id(name text) returns uuid language sql immutable as $$ select md5(name)::uuid $$;

insert into users (id, email, password_hash) values (story.id('user'), 'user@example.com', 'x'), (story.id('other'), 'other@example.com', 'x');
insert into products (id, sku, product_name, base_price) values (story.id('stationery'), 'STA', 'Stationery', 50);
insert into product_variants (id, product_id, sku, price)
select story.id(name), story.id('stationery'), upper(name), 50 from unnest(array['pen', 'ink']) as name;
insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at)
select story.id(name), 'RESTOCK', 100, 0, now() - interval '1 day' from unnest(array['pen', 'ink']) as name;
insert into coupons (id, code, kind, value, usage_limit) values (story.id('coupon'), 'SAVE20', 'PERCENT', 20, 10);

-- name, order status, payment status, method, discount, captured, refunded, hold's status, returned
create table story.orders as
select * from (values
    ('card',      'CONFIRMED', 'CAPTURED',           'CREDIT_CARD', 20, 144.4, 0,     'CONFIRMED', 0),
    ('cash',      'CONFIRMED', 'PENDING',            'COD',         0,  0,     0,     'CONFIRMED', 0),
    ('zero',      'CONFIRMED', 'PENDING',            'CREDIT_CARD', 0,  0,     0,     'CONFIRMED', 0),
    ('pending',   'PENDING',   'PENDING',            'UPI',         20, 0,     0,     'ACTIVE',    0),
    ('doubtful',  'PENDING',   'AUTHORIZED',         'CREDIT_CARD', 0,  0,     0,     'ACTIVE',    0),
    ('goodwill',  'CONFIRMED', 'PARTIALLY_REFUNDED', 'CREDIT_CARD', 0,  168,   50,    'CONFIRMED', 0),
    ('declined',  'CANCELLED', 'FAILED',             'CREDIT_CARD', 0,  0,     0,     'RELEASED',  0),
    ('cancelled', 'CANCELLED', 'REFUNDED',           'CREDIT_CARD', 0,  168,   168,   'RETURNED',  2),
    ('refunding', 'CANCELLED', 'CAPTURED',           'CREDIT_CARD', 20, 144.4, 0,     'RETURNED',  2),
    ('returned',  'DELIVERED', 'PARTIALLY_REFUNDED', 'CREDIT_CARD', 0,  168,   59,    'CONFIRMED', 1),
    ('sent',      'SHIPPED',   'PENDING',            'COD',         0,  0,     0,     'CONFIRMED', 0),
    ('cashed',    'DELIVERED', 'CAPTURED',           'COD',         0,  168,   0,     'CONFIRMED', 0),
    ('unwanted',  'CANCELLED', 'FAILED',             'COD',         0,  0,     0,     'RETURNED',  2),
    ('back',      'REFUNDED',  'PARTIALLY_REFUNDED', 'CREDIT_CARD', 0,  168,   118,   'RETURNED',  2))
    as o (name, status, payment, method, discount, captured, refunded, hold, returned);

insert into carts (id, user_id, status, checkout_run_id)
select story.id(name || '/cart'), story.id(case name when 'doubtful' then 'other' else 'user' end),
       case when status = 'PENDING' then 'CHECKOUT' when name = 'declined' then 'EXPIRED' else 'CONVERTED' end,
       story.id(name || '/run')
  from story.orders;

insert into orders (id, order_number, user_id, cart_id, checkout_run_id, contact_email, order_status, payment_status,
    subtotal_amount, discount_amount, tax_amount, shipping_amount, total_amount, shipping_address, billing_address,
    payment_method, order_date, confirmed_at, cancelled_at, updated_at)
select story.id(name), 'ORD-' || name, story.id(case name when 'doubtful' then 'other' else 'user' end), story.id(name || '/cart'), story.id(name || '/run'),
       'user@example.com', status, payment, subtotal, discount, tax, shipping, subtotal - discount + tax + shipping,
       '{}', '{}', method, now() - interval '1 hour',
       case when status not in ('PENDING') and name <> 'declined' then now() - interval '1 hour' end,
       case when status = 'CANCELLED' then now() - interval '30 minutes' end, now()
  from (select *, case when name = 'zero' then 0 else 100 end as subtotal,
               case when name = 'zero' then 0 else (100 - discount) * 0.18 end as tax,
               case when name = 'zero' then 0 else 50 end as shipping
          from story.orders) o;

insert into order_items (id, order_id, variant_id, product_name, sku, quantity, unit_price, discount_amount, tax_amount,
    igst_amount, total_price, created_at)
select story.id(s.name || '/line'), o.id, story.id('pen'), 'Pen', 'PEN', 2, o.subtotal_amount / 2, o.discount_amount,
       o.tax_amount, o.tax_amount, o.total_amount - o.shipping_amount, o.order_date
  from story.orders s join orders o on o.id = story.id(s.name);

insert into payments (order_id, payment_method, amount, payment_status, captured_amount, refund_amount, created_at, updated_at)
select o.id, o.payment_method, o.total_amount, o.payment_status, s.captured, s.refunded, now(), now()
  from story.orders s join orders o on o.id = story.id(s.name);
insert into refunds (id, payment_id, run_id, gateway_payment_id, amount, reason, status, created_at, updated_at)
select gen_random_uuid(), p.id, gen_random_uuid(), 'pay', p.refund_amount, 'asked for', 'SUCCEEDED', now(), now()
  from payments p where p.refund_amount > 0;

insert into inventory_reservations (id, order_id, cart_id, variant_id, quantity_reserved, quantity_returned, status,
    created_at, expires_at, released_at)
select story.id(name || '/hold'), story.id(name), story.id(name || '/cart'), story.id('pen'), 2,
       returned, hold, now(), now() + interval '10 minutes', case when hold = 'RELEASED' then now() end
  from story.orders;
insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
select story.id('pen'), m.kind, m.available, m.reserved, story.id(name || '/hold'), now()
  from story.orders, lateral (values
    ('HOLD', -2, 2, true),
    ('COMMIT', 0, -2, hold in ('CONFIRMED', 'RETURNED')),
    ('RELEASE', 2, -2, hold = 'RELEASED'),
    ('RETURN', returned, 0, returned > 0)) as m (kind, available, reserved, happened)
 where m.happened;
insert into inventory (variant_id, available_quantity, reserved_quantity)
select variant_id, sum(available_delta), sum(reserved_delta) from inventory_movements group by variant_id;

insert into order_coupons (order_id, coupon_id, coupon_code, discount_applied, applied_at)
select story.id(name), story.id('coupon'), 'SAVE20', 20, now() from story.orders where discount > 0;
insert into coupon_redemption_log (coupon_id, user_id, order_id, discount_applied, status, created_at, updated_at)
select story.id('coupon'), story.id('user'), story.id(name), 20,
       case name when 'card' then 'SUCCESS' when 'pending' then 'HELD' else 'REVERSED' end, now(), now()
  from story.orders where discount > 0;
update coupons set current_usage_count = 1, held_count = 1;

-- What happened to each order, in order.
create table story.changes as
select c.n, o.name, c.status from story.orders o, lateral (
    select u.n, u.status from unnest(case
        when o.status = 'PENDING' then array['PENDING']
        when o.name = 'declined' then array['PENDING', 'CANCELLED']
        when o.name = 'unwanted' then array['PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED', 'CANCELLED']
        when o.status = 'SHIPPED' then array['PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED']
        when o.status = 'DELIVERED' then array['PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED']
        when o.status = 'REFUNDED' then array['PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'REFUNDED']
        when o.status = 'CANCELLED' then array['PENDING', 'CONFIRMED', 'CANCELLED']
        else array['PENDING', 'CONFIRMED'] end) with ordinality as u (status, n)) as c;
insert into order_state_history (order_id, from_status, to_status, changed_by, changed_at)
select story.id(name), lag(status) over (partition by name order by n), status, 'story', now()
  from story.changes order by name, n;
insert into outbox_events (event_id, event_type, subject, data, occurred_at)
select gen_random_uuid(), event, story.id(name)::text, '{}', now()
  from (
    select name, n * 10 as n, case status when 'PENDING' then 'order.created' else 'order.' || lower(status) end as event
      from story.changes where status not in ('PROCESSING', 'REFUNDED')
    union all
    select name, e.n, e.event from story.orders, lateral (values
        (11, 'inventory.reserved', true),
        (21, 'inventory.committed', hold in ('CONFIRMED', 'RETURNED')),
        (22, 'payment.captured', captured > 0),
        (23, 'coupon.redeemed', discount > 0 and status <> 'PENDING'),
        (24, 'payment.failed', payment = 'FAILED'),
        (25, 'inventory.released', hold = 'RELEASED'),
        (31, 'inventory.refunded', returned > 0),
        (32, 'payment.refunded', refunded > 0)) as e (n, event, happened)
     where e.happened) as e
 order by name, n;

-- The pending checkout and the refund under way are in a living worker's hands, another checkout waits for the staff;
-- the rest has ended.
insert into engine.workers (id, name, queues) values (story.id('worker'), 'story', '{shop}');
insert into engine.runs (id, workflow, version, run_key, queue, status, waiting_for, input, owner, wake_at, created_at, updated_at) values
    (story.id('pending/run'), 'checkout', 1, story.id('pending/cart') || ':1', 'shop', 'RUNNING', null, jsonb_build_object('orderId', story.id('pending')), story.id('worker'), now(), now(), now()),
    (story.id('doubtful/run'), 'checkout', 1, story.id('doubtful/cart') || ':1', 'shop', 'WAITING', 'review', jsonb_build_object('orderId', story.id('doubtful')), null, now() + interval '1 hour', now(), now()),
    (story.id('refunding/refund'), 'refund', 1, 'refund:' || story.id('refunding'), 'shop', 'RUNNING', null, jsonb_build_object('orderId', story.id('refunding')), story.id('worker'), now(), now(), now());
insert into engine.run_keys (workflow, run_key, run_id) select workflow, run_key, id from engine.runs;

-- The buyer by card was told, by a run that ended a moment ago (its id is a uuid v7 of now).
insert into notifications (id, event, subject_id, channel, recipient, message_id, status, sends, created_at, sent_at)
values (story.id('message'), 'order.confirmed', story.id('card'), 'EMAIL', 'user@example.com', 'm1', 'SENT', 1, now(), now());
insert into engine.finished_runs (id, workflow, version, run_key, queue, status, input, epoch, crashes, created_at, finished_at)
values ((lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || '70008000000000000001')::uuid,
    'notification', 1, 'order.confirmed/' || story.id('card'), 'shop', 'COMPLETED',
    jsonb_build_object('event', 'order.confirmed', 'orderId', story.id('card')), 1, 0, now(), now());

-- A guest has left a pen behind, two hours ago.
insert into carts (id, session_hash, status, last_activity_at)
values (story.id('left/cart'), 'left', 'ABANDONED', now() - interval '2 hours');
insert into outbox_events (event_id, event_type, subject, data, occurred_at)
select gen_random_uuid(), 'cart.abandoned', id::text, jsonb_build_object('cartId', id, 'lastActivityAt', last_activity_at), now()
  from carts where status = 'ABANDONED';

-- Half of an order has left; another came back to us once, and arrived the second time; a third came back,
-- and was called off.
insert into shipments (id, order_id, courier_service, tracking_number, status, created_at, delivered_at)
select story.id(name), story.id(split_part(name, '/', 1)), 'Blue Dart', name, status, now(),
       case when status = 'DELIVERED' then now() end
  from (values ('sent/first', 'SHIPPED'), ('sent/second', 'READY'), ('cashed/first', 'RETURNED'), ('cashed/second', 'DELIVERED'),
               ('unwanted/first', 'RETURNED'))
    as p (name, status);
insert into shipment_items (shipment_id, order_item_id, quantity)
select story.id(name), story.id(split_part(name, '/', 1) || '/line'), quantity
  from (values ('sent/first', 1), ('sent/second', 1), ('cashed/first', 2), ('cashed/second', 2), ('unwanted/first', 2)) as p (name, quantity);
update orders set shipment_status = case id when story.id('sent') then 'SHIPPED' when story.id('cashed') then 'DELIVERED' else 'RETURNED' end
 where id in (story.id('sent'), story.id('cashed'), story.id('unwanted'));

-- One pen has come back and the other is asked for; an order came back whole, its shipping charge did not;
-- and somebody may not return anything.
insert into returns (id, order_id, status, reason, run_id, refund_amount, created_at, updated_at)
select story.id(name), story.id(split_part(name, '/', 1)), status, 'dried up', story.id(name || '/run'), worth, now(), now()
  from (values ('returned/first', 'REFUNDED', 59), ('returned/second', 'REQUESTED', null), ('back/all', 'REFUNDED', 118),
               ('cashed/no', 'REJECTED', null)) as r (name, status, worth);
insert into return_items (return_id, order_item_id, quantity, refund_amount)
select story.id(name), story.id(split_part(name, '/', 1) || '/line'), quantity, worth
  from (values ('returned/first', 1, 59), ('returned/second', 1, null), ('back/all', 2, 118), ('cashed/no', 2, null))
    as r (name, quantity, worth);
update refunds r set reference = story.id(case p.order_id when story.id('back') then 'back/all' else 'returned/first' end)::text
  from payments p where p.id = r.payment_id and p.order_id in (story.id('back'), story.id('returned'));
insert into engine.runs (id, workflow, version, run_key, queue, status, waiting_for, input, owner, wake_at, created_at, updated_at) values
    (story.id('returned/second/run'), 'return', 1, story.id('returned/second')::text, 'shop', 'WAITING', 'decision',
     jsonb_build_object('orderId', story.id('returned')), null, now() + interval '1 day', now(), now());
insert into engine.run_keys (workflow, run_key, run_id) select workflow, run_key, id from engine.runs where workflow = 'return';

-- One order waits to be looked at; one was approved of, and one not looked at in time.
insert into order_screenings (order_id, rules_version, points, reasons, decision, review_deadline_s, billing_country,
    shipping_country, amount, currency, counts, screened_at)
select story.id(name), 1, 60, '[]', decision, 3600, 'France', 'India', 100, 'INR', '[]', now() - interval '2 hours'
  from (values ('doubtful', 'REVIEW'), ('card', 'REVIEW'), ('declined', 'REVIEW'), ('cancelled', 'ALLOW'), ('denied', 'DENY'))
    as s (name, decision);
insert into order_reviews (order_id, run_id, status, opened_at, held_until, decided_by, reason, ended_at)
select story.id(name), story.id(name || '/run'), status, now() - interval '2 hours', now() - interval '1 hour' * late,
       by, by || ' knows', now() - interval '1 hour' * ended
  from (values ('doubtful', 'OPEN', -1, null, null), ('card', 'APPROVED', 0, 'user:staff', 1.5), ('declined', 'EXPIRED', 1, null, 0.9))
    as r (name, status, late, by, ended);

-- Money that somebody has given back on the gateway's own site; and what banks want back: of one order still, of another
-- they do not any more, and of a third they have got it, and never said that they wanted it.
update refunds r set gateway_refund_id = 're_1', reason = 'made at the gateway'
  from payments p where p.id = r.payment_id and p.order_id = story.id('goodwill');
update payments set gateway_payment_id = 'pay_1' where order_id = story.id('goodwill');
insert into payment_disputes (gateway, gateway_dispute_id, order_id, gateway_payment_id, amount, currency, status, created_at, updated_at)
select 'story', name, story.id(name), payment, 59, 'INR', status, now(), now()
  from (values ('returned', 'pay', 'OPENED'), ('goodwill', 'pay_1', 'WON'), ('back', 'pay', 'LOST')) as d (name, payment, status);
insert into outbox_events (event_id, event_type, subject, data, occurred_at)
select gen_random_uuid(), 'payment.disputed', story.id(name)::text, jsonb_build_object('status', status), now()
  from (values ('returned', 'OPENED'), ('goodwill', 'OPENED'), ('goodwill', 'WON'), ('back', 'LOST')) as d (name, status);
