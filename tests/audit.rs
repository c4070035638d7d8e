//! The books catch what they are there to catch: a small good world balances, and each way of
//! breaking it is reported by exactly the check that is meant to see it.

use std::collections::BTreeSet;

use sqlx::PgPool;
use workflows::audit::{CHECKS, books};

/// One order of each kind. `story.id('…')` gives a thing its id by name.
const GOOD_WORLD: &str = include_str!("audit/good_world.sql");

/// One way to break the good world, and the check that must see it.
struct Break {
    check: &'static str,
    story: &'static str,
    sql: &'static str,
}

const fn broken(check: &'static str, story: &'static str, sql: &'static str) -> Break {
    Break { check, story, sql }
}

const BREAKS: &[Break] = &[
    broken("stock_counters", "stock appears without a movement", "update inventory set available_quantity = available_quantity + 1 where variant_id = story.id('pen')"),
    broken("stock_counters", "a movement without stock", "insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at) values (story.id('pen'), 'RESTOCK', 5, 0, now())"),
    broken("stock_counters", "stock falls below zero, and the ledger agrees",
        "alter table inventory drop constraint inventory_available_check;
         update inventory set available_quantity = -1 where variant_id = story.id('ink');
         insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at)
         select variant_id, 'ADJUST', -1 - sum(available_delta), 0, now() from inventory_movements where variant_id = story.id('ink') group by variant_id"),
    broken("stock_holds", "a hold that nobody has",
        "update inventory set reserved_quantity = reserved_quantity + 1 where variant_id = story.id('pen');
         insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at) values (story.id('pen'), 'ADJUST', 0, 1, now())"),
    broken("stock_reservations", "a hold given back twice",
        "insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
         values (story.id('pen'), 'RELEASE', 1, -1, story.id('declined/hold'), now()), (story.id('pen'), 'ADJUST', -1, 1, null, now())"),
    broken("stock_reservations", "a sale that never left the hold", "update inventory_movements set kind = 'EXPIRE' where reservation_id = story.id('card/hold') and kind = 'COMMIT'"),
    broken("stock_reservations", "a hold that is counted for another variant",
        "insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at) values (story.id('pen'), 'ADJUST', -1, 0, now());
         update inventory_movements set variant_id = story.id('ink') where reservation_id = story.id('declined/hold') and kind = 'HOLD';
         update inventory_movements set variant_id = story.id('ink') where reservation_id = story.id('declined/hold') and kind = 'RELEASE';
         insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at) values (story.id('pen'), 'ADJUST', 1, 0, now())"),
    broken("stock_reservations", "a sale by nobody",
        "insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at) values
         (story.id('pen'), 'HOLD', -1, 1, now()), (story.id('pen'), 'COMMIT', 0, -1, now()), (story.id('pen'), 'ADJUST', 1, 0, now())"),
    broken("stock_sold", "an order that sold more than was taken",
        "update order_items set quantity = 3, unit_price = 50, total_price = 150 + tax_amount where order_id = story.id('cash');
         update orders set subtotal_amount = 150, tax_amount = 18, total_amount = 218 where id = story.id('cash');
         update payments set amount = 218 where order_id = story.id('cash')"),
    broken("stock_sold", "a cancelled order that keeps its stock",
        "update inventory_reservations set status = 'CONFIRMED', quantity_returned = 0 where order_id = story.id('cancelled');
         update inventory_movements set kind = 'ADJUST', reservation_id = null where reservation_id = story.id('cancelled/hold') and kind = 'RETURN';
         delete from outbox_events where subject = story.id('cancelled')::text and event_type = 'inventory.refunded'"),
    broken("stock_sold", "more sold than was ever stocked",
        "update inventory_movements set available_delta = 1 where kind = 'RESTOCK' and variant_id = story.id('ink');
         update inventory set available_quantity = 1 where variant_id = story.id('ink');
         insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at) values (story.id('ink'), 'HOLD', -2, 2, story.id('service/hold'), now()),
         (story.id('ink'), 'COMMIT', 0, -2, story.id('service/hold'), now()), (story.id('ink'), 'RELEASE', 2, 0, story.id('purged'), now());
         insert into inventory_reservations (id, variant_id, quantity_reserved, status, created_at, expires_at) values (story.id('service/hold'), story.id('ink'), 2, 'CONFIRMED', now(), now())"),
    broken("money_lines", "a total that its lines do not make", "update orders set total_amount = total_amount + 1, shipping_amount = shipping_amount - 1, tax_amount = tax_amount + 2 where id = story.id('cash');
         update payments set amount = amount + 1 where order_id = story.id('cash')"),
    broken("money_lines", "a discount that no line got", "update orders set discount_amount = discount_amount + 1, tax_amount = tax_amount + 1 where id = story.id('card')"),
    broken("money_states", "goods confirmed unpaid",
        "update orders set payment_status = 'PENDING' where id = story.id('card'); update payments set payment_status = 'PENDING', captured_amount = 0 where order_id = story.id('card');
         delete from outbox_events where subject = story.id('card')::text and event_type = 'payment.captured'"),
    broken("money_states", "a capture of the wrong amount", "update payments set captured_amount = captured_amount - 1 where order_id = story.id('card')"),
    broken("money_states", "a payment over another amount than the order's", "update payments set amount = amount + 1 where order_id = story.id('pending')"),
    broken("money_states", "cash taken before anything left",
        "update orders set payment_status = 'CAPTURED' where id = story.id('cash'); update payments set payment_status = 'CAPTURED', captured_amount = amount where order_id = story.id('cash');
         insert into outbox_events (event_id, event_type, subject, data, occurred_at) values (gen_random_uuid(), 'payment.captured', story.id('cash')::text, '{}', now())"),
    broken("money_states", "a cancelled order nobody refunds", "delete from engine.run_keys where workflow = 'refund'; delete from engine.runs where workflow = 'refund'"),
    broken("money_states", "an order and a payment that disagree", "update orders set payment_status = 'CAPTURED' where id = story.id('returned')"),
    broken("money_refunds", "a piece called off and paid for",
        "update order_items set called_off = 1, called_off_amount = 1, written_off = 1 where order_id = story.id('card')"),
    broken("money_refunds", "a refund that is not recorded",
        "insert into refunds (id, payment_id, run_id, gateway_payment_id, amount, reason, status, created_at, updated_at)
         select gen_random_uuid(), id, gen_random_uuid(), 'pay', 1, 'goodwill', 'SUCCEEDED', now(), now() from payments where order_id = story.id('returned');
         insert into outbox_events (event_id, event_type, subject, data, occurred_at) values (gen_random_uuid(), 'payment.refunded', story.id('returned')::text, '{}', now())"),
    broken("money_refunds", "more promised back than was taken",
        "insert into refunds (id, payment_id, run_id, gateway_payment_id, amount, reason, status, created_at, updated_at)
         select gen_random_uuid(), id, story.id('refunding/refund'), 'pay', captured_amount - refund_amount + 1, 'goodwill', 'PENDING', now(), now()
           from payments where order_id = story.id('card')"),
    broken("money_refunds", "a refund of the gateway booked twice",
        "insert into refunds (id, payment_id, run_id, gateway_payment_id, gateway_refund_id, amount, reason, status, created_at, updated_at)
         select gen_random_uuid(), payment_id, gen_random_uuid(), gateway_payment_id, gateway_refund_id, amount, reason, status, now(), now()
           from refunds where gateway_refund_id = 're_1';
         update payments set refund_amount = 100 where order_id = story.id('goodwill');
         insert into outbox_events (event_id, event_type, subject, data, occurred_at) values (gen_random_uuid(), 'payment.refunded', story.id('goodwill')::text, '{}', now())"),
    broken("money_refunds", "a refund made elsewhere that counts for less", "update payments set refund_amount = 20 where order_id = story.id('goodwill')"),
    broken("money_disputes", "a dispute over money that was never taken", "update payment_disputes set gateway_payment_id = 'another' where status = 'OPENED'"),
    broken("money_disputes", "a dispute over an order that was not paid",
        "insert into payment_disputes (gateway, gateway_dispute_id, order_id, gateway_payment_id, status, created_at, updated_at)
         values ('story', 'declined', story.id('declined'), 'pay', 'WON', now(), now());
         insert into outbox_events (event_id, event_type, subject, data, occurred_at) values (gen_random_uuid(), 'payment.disputed', story.id('declined')::text, '{\"status\": \"WON\"}', now())"),
    broken("money_disputes", "a dispute that nobody heard of", "delete from outbox_events where event_type = 'payment.disputed' and subject = story.id('returned')::text"),
    broken("money_disputes", "an end of a dispute told twice", "insert into outbox_events (event_id, event_type, subject, data, occurred_at) select gen_random_uuid(), event_type, subject, data, occurred_at from outbox_events where event_type = 'payment.disputed' and data ->> 'status' = 'LOST'"),
    broken("fraud_reviews", "a review of an order that is sold", "update order_reviews set status = 'OPEN', decided_by = null, reason = null, ended_at = null where status = 'APPROVED'"),
    broken("fraud_reviews", "a review that another run waits for", "update order_reviews set run_id = story.id('pending/run') where status = 'OPEN'"),
    broken("fraud_reviews", "a review that an ended checkout has left open", "update order_reviews set status = 'OPEN', ended_at = null where status = 'EXPIRED'"),
    broken("fraud_reviews", "a review that nobody can see", "update order_screenings set decision = 'ALLOW' where order_id = story.id('doubtful')"),
    broken("fraud_reviews", "a doubtful order sold that nobody has looked at", "delete from order_reviews where status = 'APPROVED'"),
    broken("fraud_reviews", "a doubtful order sold though its time was over", "update order_reviews set status = 'EXPIRED', decided_by = null, reason = null, ended_at = held_until where status = 'APPROVED'"),
    broken("fraud_reviews", "an order that was denied", "update order_screenings set decision = 'DENY' where order_id = story.id('cancelled')"),
    broken("fraud_reviews", "a review that ended at no time",
        "alter table order_reviews drop constraint order_reviews_check; update order_reviews set ended_at = null where status = 'EXPIRED'"),
    broken("fraud_reviews", "an approval by nobody",
        "alter table order_reviews drop constraint order_reviews_check1; update order_reviews set decided_by = null where status = 'APPROVED'"),
    broken("fraud_reviews", "an approval that came too late", "update order_reviews set ended_at = held_until where status = 'APPROVED'"),
    broken("fraud_reviews", "a review that ended before its time was over", "update order_reviews set ended_at = held_until - interval '1 second' where status = 'EXPIRED'"),
    broken("money_currency", "a line priced in another money", "update order_items set currency = 'USD' where order_id = story.id('card')"),
    broken("money_currency", "money given back in another", "update refunds set currency = 'USD'"),
    broken("money_currency", "an order that its cart was not", "update carts set currency = 'USD' where id = story.id('card/cart')"),
    broken("coupons_counters", "a use that no log row explains", "update coupons set current_usage_count = current_usage_count + 1"),
    broken("coupons_counters", "a hold that no log row explains", "update coupons set held_count = held_count - 1"),
    broken("coupons_counters", "more uses than allowed", "alter table coupons drop constraint coupons_usage_check; update coupons set usage_limit = 1"),
    broken("coupons_redemptions", "a coupon logged twice for one order",
        "alter table coupon_redemption_log drop constraint coupon_redemption_once;
         insert into coupon_redemption_log (coupon_id, user_id, order_id, discount_applied, status, created_at, updated_at)
         values (story.id('coupon'), story.id('user'), story.id('declined'), 0, 'RELEASED', now(), now()), (story.id('coupon'), story.id('user'), story.id('declined'), 0, 'RELEASED', now(), now())"),
    broken("coupons_redemptions", "a coupon still held after the sale",
        "update coupon_redemption_log set status = 'HELD' where order_id = story.id('card'); update coupons set held_count = 2, current_usage_count = 0;
         delete from outbox_events where event_type = 'coupon.redeemed' and subject = story.id('card')::text"),
    broken("coupons_redemptions", "a discount that was never counted",
        "insert into order_coupons (order_id, coupon_id, coupon_code, discount_applied, applied_at) values (story.id('cash'), story.id('coupon'), 'SAVE20', 0, now())"),
    broken("orders_history", "a status that history does not lead to", "update orders set order_status = 'PROCESSING' where id = story.id('card')"),
    broken("orders_history", "a step from where the order was not", "update order_state_history set from_status = 'PROCESSING' where order_id = story.id('card') and to_status = 'CONFIRMED'"),
    broken("orders_history", "a history that starts in the middle", "update order_state_history set from_status = 'CONFIRMED' where order_id = story.id('zero') and to_status = 'PENDING'"),
    broken("orders_carts", "a cart ordered twice", "drop index orders_one_live_per_cart; update orders set cart_id = story.id('card/cart') where id = story.id('zero')"),
    broken("orders_carts", "a cart converted into nothing", "insert into carts (id, user_id, status) values (story.id('lost/cart'), story.id('user'), 'CONVERTED')"),
    broken("orders_carts", "a cart that can be ordered again", "update carts set status = 'EXPIRED' where id = story.id('card/cart')"),
    broken("orders_carts", "a pending order whose cart is another run's", "update carts set checkout_run_id = story.id('refunding/refund') where id = story.id('pending/cart')"),
    broken("orders_runs", "a refund that nobody sends",
        "insert into refunds (id, payment_id, run_id, gateway_payment_id, amount, reason, status, failure, created_at, updated_at)
         select gen_random_uuid(), p.id, gen_random_uuid(), 'pay', 1, 'asked for', 'FAILED', 'too old', now(), now()
           from payments p where p.order_id = story.id('card')"),
    broken("orders_runs", "a checkout whose run is gone", "delete from engine.run_keys where workflow = 'checkout'; delete from engine.runs where workflow = 'checkout'"),
    broken("orders_runs", "a cancellation that was accepted and forgotten", "update orders set cancellation_run_id = story.id('forgotten') where id = story.id('card')"),
    broken("orders_runs", "a cart that nobody will unlock", "insert into carts (id, session_hash, status, checkout_run_id) values (story.id('stuck/cart'), 'x', 'CHECKOUT', story.id('card/run'))"),
    broken("orders_runs", "a live hold of a finished checkout", "update inventory_reservations set order_id = story.id('nobody') where order_id = story.id('pending')"),
    broken("carts_abandoned", "a cart left behind untold", "update carts set last_activity_at = last_activity_at + interval '1 hour' where status = 'ABANDONED'"),
    broken("carts_abandoned", "a cart left once and told twice", "insert into outbox_events (event_id, event_type, subject, data, occurred_at) select gen_random_uuid(), event_type, subject, data, occurred_at from outbox_events where event_type = 'cart.abandoned'"),
    broken("runs_keys", "a run that could be started again", "delete from engine.run_keys where workflow = 'refund'"),
    broken("runs_keys", "a live run whose key expires", "update engine.run_keys set expires_at = now() where workflow = 'refund'"),
    broken("money_states", "cash that nobody took on delivery",
        "update orders set payment_status = 'PENDING' where id = story.id('cashed'); update payments set payment_status = 'PENDING', captured_amount = 0 where order_id = story.id('cashed');
         delete from outbox_events where subject = story.id('cashed')::text and event_type = 'payment.captured'"),
    broken("money_states", "cash taken on the way",
        "update orders set payment_status = 'CAPTURED' where id = story.id('sent'); update payments set payment_status = 'CAPTURED', captured_amount = amount where order_id = story.id('sent');
         insert into outbox_events (event_id, event_type, subject, data, occurred_at) values (gen_random_uuid(), 'payment.captured', story.id('sent')::text, '{}', now())"),
    broken("money_states", "an order refunded whose payment does not say so",
        "update orders set payment_status = 'CAPTURED' where id = story.id('back'); update payments set payment_status = 'CAPTURED' where order_id = story.id('back')"),
    broken("orders_parcels", "a piece in two parcels", "update shipment_items set quantity = 2 where shipment_id = story.id('sent/first')"),
    broken("orders_parcels", "a parcel with somebody else's line", "update shipment_items set order_item_id = story.id('card/line') where shipment_id = story.id('sent/first')"),
    broken("orders_parcels", "a parcel for an order that nobody packs",
        "insert into shipments (id, order_id, courier_service, tracking_number, status, created_at) values (gen_random_uuid(), story.id('card'), 'x', 'x', 'PENDING', now())"),
    broken("orders_parcels", "a parcel of a cancelled order that left",
        "insert into shipments (id, order_id, courier_service, tracking_number, status, created_at) values (gen_random_uuid(), story.id('declined'), 'x', 'x', 'SHIPPED', now());
         update orders set shipment_status = 'SHIPPED' where id = story.id('declined')"),
    broken("orders_parcels", "an order that has arrived and does not know",
        "update shipments set status = 'DELIVERED' where order_id = story.id('sent'); update orders set shipment_status = 'DELIVERED' where id = story.id('sent')"),
    broken("orders_parcels", "an order cancelled on its way", "update shipments set status = 'IN_TRANSIT' where order_id = story.id('unwanted')"),
    broken("orders_parcels", "a shipped order cancelled of which nothing came back",
        "delete from shipment_items where order_item_id = story.id('unwanted/line'); delete from shipments where order_id = story.id('unwanted')"),
    broken("orders_parcels", "an order delivered of which a piece never left", "update shipment_items set quantity = 1 where shipment_id = story.id('cashed/second')"),
    broken("orders_parcels", "a parcel that was lost and is still expected", "update shipments set status = 'LOST', delivered_at = null where id = story.id('sent/first'); update orders set shipment_status = 'READY' where id = story.id('sent')"),
    broken("orders_parcels", "an order that shows another place than its parcels are at", "update orders set shipment_status = 'IN_TRANSIT' where id = story.id('sent')"),
    broken("orders_returns", "more returned than was sold", "update return_items set quantity = 2 where return_id = story.id('returned/second')"),
    broken("orders_returns", "a return that nobody settles", "delete from engine.run_keys where workflow = 'return'; delete from engine.runs where workflow = 'return'"),
    broken("orders_returns", "a return of what never arrived", "update returns set order_id = story.id('card') where id = story.id('cashed/no'); update return_items set order_item_id = story.id('card/line') where return_id = story.id('cashed/no')"),
    broken("orders_returns", "a line returned whole for less than it cost", "update return_items set refund_amount = 117 where return_id = story.id('back/all')"),
    broken("orders_returns", "stock put back for a return that was rejected", "update returns set status = 'REJECTED' where id = story.id('returned/first')"),
    broken("orders_returns", "a return settled and not paid back", "update refunds set reference = null where reference = story.id('returned/first')::text"),
    broken("orders_returns", "a return that says more than was left to pay back",
        "insert into refunds (id, payment_id, run_id, gateway_payment_id, amount, reason, status, created_at, updated_at)
         select gen_random_uuid(), id, gen_random_uuid(), 'pay', 50, 'goodwill', 'SUCCEEDED', now(), now() from payments where order_id = story.id('back');
         update payments set payment_status = 'REFUNDED', refund_amount = 168 where order_id = story.id('back'); update orders set payment_status = 'REFUNDED' where id = story.id('back');
         insert into outbox_events (event_id, event_type, subject, data, occurred_at) values (gen_random_uuid(), 'payment.refunded', story.id('back')::text, '{}', now());
         update returns set refund_amount = 168 where id = story.id('back/all')"),
    broken("orders_returns", "a return paid less than it is worth", "update returns set refund_amount = 50 where id = story.id('returned/first');
         update refunds set amount = 50 where reference = story.id('returned/first')::text; update payments set refund_amount = 50 where order_id = story.id('returned')"),
    broken("orders_returns", "an order refunded of which a piece was kept", "update return_items set quantity = 1 where return_id = story.id('back/all')"),
    broken("runs_owners", "a run nobody has", "update engine.runs set owner = null, updated_at = now() - interval '61 seconds' where id = story.id('pending/run')"),
    broken("runs_owners", "a run in a dead worker's hands", "delete from engine.workers; update engine.runs set updated_at = now() - interval '61 seconds' where id = story.id('pending/run')"),
    broken("runs_parked", "a run parked", "update engine.runs set status = 'STUCK', failure = '{\"code\":\"x\"}' where id = story.id('pending/run')"),
    broken("runs_lost", "a run accepted and vanished", "insert into engine.run_keys (workflow, run_key, run_id) values ('checkout', 'lost', (lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid)"),
    broken("messages_once", "a message sent twice", "insert into notifications (id, event, subject_id, channel, recipient, message_id, status, sends, created_at, sent_at) select gen_random_uuid(), event, subject_id, channel, upper(recipient), 'another', status, sends, created_at, sent_at from notifications"),
    broken("messages_sent", "a message sent but never handed over", "update notifications set sends = 0"),
    broken("messages_confirmed", "a buyer who was not told", "update notifications set event = 'order.shipped'"),
    broken("events_orders", "a change announced twice", "insert into outbox_events (event_id, event_type, subject, data, occurred_at) values (gen_random_uuid(), 'order.confirmed', story.id('card')::text, '{}', now())"),
    broken("events_orders", "a change not announced", "delete from outbox_events where event_type = 'order.cancelled' and subject = story.id('cancelled')::text"),
    broken("events_orders", "changes announced in the wrong order", "update outbox_events set event_type = case event_type when 'order.created' then 'order.confirmed' else 'order.created' end where event_type in ('order.created', 'order.confirmed') and subject = story.id('card')::text"),
    broken("events_orders", "an order announced that does not exist", "insert into outbox_events (event_id, event_type, subject, data, occurred_at) values (gen_random_uuid(), 'order.created', gen_random_uuid()::text, '{}', now())"),
    broken("events_effects", "a sale of stock not announced", "delete from outbox_events where event_type = 'inventory.committed' and subject = story.id('card')::text"),
    broken("events_effects", "a sale announced before its hold", "update outbox_events set event_type = case event_type when 'inventory.reserved' then 'inventory.committed' else 'inventory.reserved' end where event_type in ('inventory.reserved', 'inventory.committed') and subject = story.id('card')::text"),
    broken("events_effects", "a release not announced", "delete from outbox_events where event_type = 'inventory.released'"),
    broken("events_effects", "stock given back and not announced", "delete from outbox_events where event_type = 'inventory.refunded'"),
    broken("events_effects", "a capture announced twice", "insert into outbox_events (event_id, event_type, subject, data, occurred_at) values (gen_random_uuid(), 'payment.captured', story.id('card')::text, '{}', now())"),
    broken("events_effects", "a refund not announced", "delete from outbox_events where event_type = 'payment.refunded' and subject = story.id('cancelled')::text"),
    broken("events_effects", "a failed payment not announced", "delete from outbox_events where event_type = 'payment.failed'"),
    broken("events_effects", "a redemption not announced", "delete from outbox_events where event_type = 'coupon.redeemed' and subject = story.id('card')::text"),
];

async fn good_world() -> PgPool {
    let pool = crate::world::database().await;
    sqlx::raw_sql(GOOD_WORLD).execute(&pool).await.expect("the good world is written");
    pool
}

#[tokio::test]
async fn a_good_world_balances() {
    let found = books(&good_world().await).await.expect("the books are read");
    assert!(found.balanced, "{:#?}", found.breaches);
}

#[tokio::test]
async fn an_empty_world_balances() {
    let found = books(&crate::world::database().await).await.expect("the books are read");
    assert!(found.balanced, "{:#?}", found.breaches);
}

#[tokio::test]
async fn each_break_is_seen_by_its_check_and_by_no_other() {
    let mut wrong = Vec::new();
    for Break { check, story, sql } in BREAKS {
        let pool = good_world().await;
        sqlx::raw_sql(*sql).execute(&pool).await.unwrap_or_else(|error| panic!("{check}: {story}: {error}"));
        let found = books(&pool).await.unwrap_or_else(|error| panic!("{check}: {story}: {error}"));
        let seen_by: BTreeSet<_> = found.breaches.iter().map(|breach| breach.check).collect();
        if found.balanced || seen_by != BTreeSet::from([*check]) {
            wrong.push(format!("{check}: {story}: {:#?}", found.breaches));
        }
        pool.close().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_check_has_a_break_it_is_proven_by() {
    let proven: BTreeSet<_> = BREAKS.iter().map(|broken| broken.check).collect();
    let all: BTreeSet<_> = CHECKS.iter().map(|check| check.name).collect();
    assert_eq!(proven, all);
}
