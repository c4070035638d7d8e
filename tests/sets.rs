//! What the shop's SQL does for many orders at a time is what it does for each of them in turn.

use chrono::{DateTime, Utc};
use domain::{
    ids::{CartId, OrderId, OrderNumber, UserId},
    money::Money,
    payment::PaymentMethod,
    ports::{GatewayPayment, GatewayPaymentStatus, NextAction},
    pricing::{AppliedCoupon, Pricing, ShippingMethod},
};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use uuid::Uuid;
use workflows::{
    Rules,
    store::{
        carts::{self, CartLine},
        coupons::{self, Ask, Customer, Hold},
        inventory::{self, Demand, Wanted},
        messages::{self, Event, Skip},
        orders::{self, Confirmation, NewIntent, NewItems, NewOrder},
        payments::Captured,
    },
};

use crate::{
    interleavings::driver::Dice,
    world::{World, mumbai},
};

/// What a story answers, and what it leaves in these tables, but for what is drawn anew each time or counts
/// statements. Afterwards it never happened.
async fn told<T>(pool: &PgPool, tables: &str, story: impl AsyncFnOnce(&mut PgConnection) -> T) -> (T, Vec<Vec<Value>>) {
    let mut tx = pool.begin().await.expect("a transaction");
    let answer = story(&mut tx).await;
    let mut left = Vec::new();
    for table in tables.split_whitespace() {
        let drawn = match table {
            // One alert a crossing, whoever's it is.
            "outbox_events" => "{id,event_id,xid,data}",
            "inventory" => "{id,version}",
            "payment_attempts" => "{id,payment_id}",
            "notifications" => "{id,message_id}",
            _ => "{id}",
        };
        let rows = format!("select to_jsonb(t) - '{drawn}'::text[] as rest from {table} t order by rest");
        left.push(sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut *tx).await.expect("the rows"));
    }
    tx.rollback().await.expect("rolled back");
    (answer, left)
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

async fn variants(pool: &PgPool) -> Vec<Uuid> {
    sqlx::query_scalar("select variant_id from inventory order by variant_id").fetch_all(pool).await.expect("variants")
}

#[tokio::test]
async fn stock_held_for_many_goes_to_those_who_would_get_it_one_by_one() {
    let world = World::new().await;
    let known = variants(&world.pool).await;
    let (mut lost, mut won) = (0, 0);
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let stock: Vec<i32> = known.iter().map(|_| i32::try_from(dice.roll(25)).expect("small")).collect();
        let mut demands = Vec::new();
        for _ in 0..=dice.roll(8) {
            let mut wanted = Vec::new();
            for &variant in known.iter().chain(&[Uuid::max()]) {
                if dice.roll(if variant.is_max() { 20 } else { 2 }) == 0 {
                    let quantity = i32::try_from(dice.roll(8) + 1).expect("small");
                    wanted.push(Wanted { variant_id: variant.into(), quantity, reservation_id: Uuid::now_v7() });
                }
            }
            demands.push(Demand { holder: OrderId::generate().into(), wanted, expires_at: now() });
        }
        let stock = &stock;
        let set_stock = async |conn: &mut PgConnection| {
            let set = "update inventory i set available_quantity = s.pieces
                         from unnest($1::uuid[], $2::int[]) as s(variant_id, pieces) where i.variant_id = s.variant_id";
            sqlx::query(set).bind(&known).bind(stock).execute(conn).await.expect("stock");
        };
        let tables = "inventory inventory_reservations inventory_movements outbox_events";
        let together = told(&world.pool, tables, async |conn| {
            set_stock(conn).await;
            inventory::hold(conn, &demands, now()).await.expect("held")
        });
        let one_by_one = told(&world.pool, tables, async |conn| {
            set_stock(conn).await;
            let mut answers = Vec::new();
            for demand in &demands {
                answers.extend(inventory::hold(conn, std::slice::from_ref(demand), now()).await.expect("held"));
            }
            answers
        });
        let (mut together, mut one_by_one) = (together.await, one_by_one.await);
        for short in together.0.iter_mut().chain(&mut one_by_one.0) {
            short.sort_by_key(|short| short.variant_id);
        }
        assert_eq!(together, one_by_one, "seed {seed}: {demands:#?} of {stock:?}");
        lost += together.0.iter().filter(|short| !short.is_empty()).count();
        won += together.0.iter().filter(|short| short.is_empty()).count();
    }
    assert!(lost > 100 && won > 100, "{lost} lost, {won} won");
}

#[tokio::test]
async fn coupons_are_found_and_held_for_many_as_one_by_one() {
    let world = World::new().await;
    let coupons = "insert into coupons (id, code, kind, value, usage_limit, per_user_limit, auto_apply)
                   select gen_random_uuid(), code, 'PERCENT', 5, uses, each, code = 'AUTO'
                     from (values ('FEW', 30, null), ('ONCE', null, 1), ('AUTO', null, 2)) as c(code, uses, each)";
    sqlx::query(coupons).execute(&world.pool).await.expect("coupons");
    let mut shoppers = Vec::new();
    for _ in 0..4 {
        shoppers.push(world.shopper(&[("MOU-001", 1)]).await);
    }
    // One has a coupon on the cart, two have used some before, and a guest has the address of another.
    let before =
        "with carried as (insert into cart_coupons (cart_id, coupon_id) select $2, id from coupons where code = 'FEW')
                  insert into coupon_redemption_log
                         (coupon_id, user_id, redeemer, order_id, discount_applied, status, created_at, updated_at)
                  select c.id, u.id, coupon_redeemer(u.email), gen_random_uuid(), 1, 'SUCCESS', now(), now()
                    from coupons c, users u where c.code <> 'SAVE20' and u.id = any($1)";
    let used: Vec<Uuid> = shoppers[..2].iter().map(|(user, _)| Uuid::from(*user)).collect();
    sqlx::query(before).bind(used).bind(Uuid::from(shoppers[3].1)).execute(&world.pool).await.expect("used");
    let of_another = format!(" {}+shop@EXAMPLE.com", shoppers[0].0);
    for seed in 0..50 {
        let mut dice = Dice::new(seed);
        let asked: Vec<(CartId, Option<UserId>, Vec<String>)> = (0..=dice.roll(6))
            .map(|_| {
                let (user, cart) = dice.pick(&shoppers);
                let mut codes = vec!["few".to_owned(), " Once ".to_owned(), "SAVE20".to_owned(), "NONE".to_owned()];
                codes.retain(|_| dice.roll(2) == 0);
                (cart, (dice.roll(3) > 0).then_some(user), codes)
            })
            .collect();
        let asks: Vec<Ask<'_>> = asked
            .iter()
            .map(|(cart_id, user_id, codes)| {
                let email = user_id.is_none().then_some(of_another.as_str());
                Ask { cart_id: *cart_id, customer: Customer { user_id: *user_id, email }, codes }
            })
            .collect();
        let mut conn = world.pool.begin().await.expect("a transaction");
        let found = coupons::lock_candidates(&mut conn, &asks).await.expect("found");
        for (ask, found) in asks.iter().zip(&found) {
            let alone = coupons::lock_candidates(&mut conn, &[*ask]).await.expect("found").remove(0);
            let free = coupons::candidates(&mut conn, ask.cart_id, ask.customer, ask.codes).await.expect("found");
            let shown = |found: &[coupons::Candidate]| serde_json::to_value(found).expect("JSON");
            assert_eq!(shown(&found.candidates), shown(&alone.candidates), "seed {seed}: {ask:?}");
            assert_eq!(shown(&found.candidates), shown(&free), "seed {seed}: {ask:?}");
            assert_eq!(found.redeemer, alone.redeemer, "seed {seed}: {ask:?}");
            let limited: Vec<_> = found.candidates.iter().filter(|c| c.coupon.code == "AUTO").collect();
            let has_used = ask.customer.user_id.is_none_or(|user| shoppers[..2].iter().any(|(used, _)| *used == user));
            assert!(limited.len() == 1 && limited[0].redeemed_by_user == i64::from(has_used), "seed {seed}: {ask:?}");
        }
        conn.rollback().await.expect("rolled back");
        let applied: Vec<Vec<AppliedCoupon>> = found
            .iter()
            .map(|found| {
                let one =
                    |c: &coupons::Candidate| (c.coupon.id, c.coupon.code.clone(), Decimal::from(dice.roll(9) + 1));
                let all = found.candidates.iter().map(one);
                all.map(|(coupon_id, code, discount)| AppliedCoupon { coupon_id, code, discount }).collect()
            })
            .collect();
        let order_ids: Vec<OrderId> = asks.iter().map(|_| OrderId::generate()).collect();
        let hold = |index: usize| {
            let (user_id, redeemer) = (asks[index].customer.user_id, found[index].redeemer.as_deref());
            Hold { order_id: order_ids[index], user_id, redeemer, coupons: &applied[index] }
        };
        let holds: Vec<Hold<'_>> = (0..asks.len()).map(hold).collect();
        let tables = "coupons coupon_redemption_log";
        let together = told(&world.pool, tables, async |c| coupons::hold(c, &holds, now()).await.expect("held")).await;
        let one_by_one = told(&world.pool, tables, async |conn| {
            for hold in &holds {
                coupons::hold(conn, &[*hold], now()).await.expect("held");
            }
        });
        assert_eq!(together, one_by_one.await, "seed {seed}");
    }
}

/// An order, and what becomes of it.
struct Sold<'a> {
    order: NewOrder<'a>,
    lines: &'a [CartLine],
    demand: Demand,
    intent: NewIntent<'a>,
    captured: Option<&'a Captured>,
}

/// All that checkouts write, from the holds to the message that is not sent.
async fn sell(conn: &mut PgConnection, sold: &[Sold<'_>]) -> Result<(), sqlx::Error> {
    let (mut ids, mut holds, mut demands, mut news, mut items, mut links) = Default::default();
    let (mut intents, mut confirmations, mut converted, mut events, mut skips) = Default::default();
    for Sold { order, lines, demand, intent, captured } in sold {
        let &NewOrder { id: order_id, user_id, quote, estimated_delivery, .. } = order;
        let (coupons, subject) = (quote.coupons.as_slice(), Uuid::from(order_id));
        Vec::push(&mut ids, order_id);
        Vec::push(&mut holds, Hold { order_id, user_id, redeemer: Some(&[1, 2]), coupons });
        Vec::push(&mut demands, demand.clone());
        Vec::push(&mut news, *order);
        Vec::push(&mut items, NewItems { order_id, lines, quote });
        Vec::push(&mut links, (order_id, coupons));
        Vec::push(&mut intents, *intent);
        Vec::push(&mut confirmations, Confirmation { order_id, payment: *captured, estimated_delivery });
        Vec::push(&mut converted, (order.cart_id, order.run_id));
        for event_type in ["order.confirmed", "inventory.committed"] {
            Vec::push(&mut events, Event { subject, event_type, data: json!({ "orderId": order_id }) });
        }
        let (event, recipient) = ("order.confirmed", order.contact_email);
        Vec::push(&mut skips, Skip { subject_id: subject, event, channel: "EMAIL", recipient, why: "a test" });
    }
    coupons::hold(conn, &holds, now()).await?;
    assert!(inventory::hold(conn, &demands, now()).await?.concat().is_empty(), "there is enough");
    orders::create(conn, &news, now()).await?;
    orders::create_items(conn, &items, now()).await?;
    orders::link_coupons(conn, &links, now()).await?;
    orders::store_intents(conn, &intents, now()).await?;
    orders::confirm(conn, &confirmations, now()).await?;
    coupons::lock_of(conn, &ids).await?;
    let committed = inventory::commit(conn, &ids, now()).await?;
    assert_eq!(committed.len(), demands.iter().map(|demand| demand.wanted.len()).sum::<usize>());
    coupons::redeem(conn, &ids, now()).await?;
    carts::convert(conn, &converted, now()).await?;
    orders::append_history(conn, &ids, Some("PENDING"), "CONFIRMED", "checkout", None, now()).await?;
    messages::publish_many(conn, &events, now()).await?;
    messages::skip(conn, &skips, now()).await?;
    let again = orders::confirm(conn, &confirmations[..1], now()).await;
    assert!(matches!(again, Err(sqlx::Error::RowNotFound)), "confirmed once: {again:?}");
    Ok(())
}

const WRITTEN: &str = "orders order_items order_coupons order_state_history payments payment_attempts carts coupons \
                       coupon_redemption_log inventory inventory_reservations inventory_movements outbox_events notifications";

#[tokio::test]
async fn many_orders_are_written_as_one_by_one() {
    let world = World::new().await;
    let mut conn = world.pool.acquire().await.expect("a connection");
    let wishes: [(&[(&str, i32)], &[&str]); 4] = [
        (&[("LAP-001", 1), ("MOU-001", 2)], &["SAVE20"]),
        (&[("MOU-001", 3)], &[]),
        (&[("LAP-001", 2), ("BAG-001", 1)], &["SAVE20"]),
        (&[("BAG-001", 5)], &["SAVE20"]),
    ];
    let mut wanted = Vec::new();
    for (number, (lines, codes)) in (0..).zip(wishes) {
        let (user, cart) = world.shopper(lines).await;
        let (run_id, codes) = (Uuid::now_v7(), codes.iter().map(|code| (*code).to_owned()).collect::<Vec<_>>());
        carts::hold_for_checkout(&mut conn, cart, run_id).await.expect("held");
        let found = coupons::candidates(&mut conn, cart, Customer::of(Some(user)), &codes).await.expect("found");
        let lines = carts::load(&mut conn, cart).await.expect("loaded").expect("a cart").lines;
        let coupons: Vec<_> = found.into_iter().map(|found| found.coupon).collect();
        let inputs: Vec<_> = lines.iter().map(CartLine::input).collect();
        let pricing = Pricing::new(Rules::default().pricing);
        let quote = pricing.quote(&inputs, &coupons, None, ShippingMethod::Standard).expect("a price");
        assert_eq!(quote.coupons.len(), codes.len());
        let order_id = OrderId::generate();
        let payment = GatewayPayment {
            gateway_payment_id: format!("pay_{number}"),
            order_id,
            status: GatewayPaymentStatus::Captured,
            amount: Money::rounded(quote.total, quote.currency),
            captured: quote.total,
            refunded: Decimal::ZERO,
            next_action: (number == 1).then(|| NextAction::Redirect { url: "https://pay.example".to_owned() }),
            failure: None,
        };
        let captured = Captured { gateway_payment_id: payment.gateway_payment_id.clone(), amount: quote.total };
        let number = OrderNumber::from_sequence(number + 1);
        wanted.push((user, cart, run_id, order_id, number, lines, quote, payment, captured));
    }
    let address = mumbai();
    let sold = wanted.iter().map(|(user, cart, run_id, order_id, number, lines, quote, payment, captured)| Sold {
        order: NewOrder {
            id: *order_id,
            number,
            run_id: *run_id,
            cart_id: *cart,
            user_id: Some(*user),
            contact_email: "asha@example.com",
            contact_phone: None,
            shipping_address: (&address, Some(Uuid::max())),
            billing_address: (None, None),
            shipping_method: ShippingMethod::Standard,
            payment_method: PaymentMethod::Upi,
            gateway: Some("scripted"),
            quote,
            estimated_delivery: now().date_naive(),
        },
        lines,
        demand: Demand { holder: (*order_id).into(), wanted: Wanted::of(lines), expires_at: now() },
        intent: NewIntent {
            order_id: *order_id,
            attempt: 1,
            idempotency_key: *run_id,
            method: if lines.len() > 1 { PaymentMethod::Upi } else { PaymentMethod::Wallet },
            ordered_with: PaymentMethod::Upi,
            gateway: "scripted",
            payment,
        },
        captured: (lines.len() > 1).then_some(captured),
    });
    let sold: Vec<Sold<'_>> = sold.collect();
    let together = told(&world.pool, WRITTEN, async |conn| sell(conn, &sold).await.expect("sold")).await;
    let one_by_one = told(&world.pool, WRITTEN, async |conn| {
        for one in sold.chunks(1) {
            sell(conn, one).await.expect("sold");
        }
    });
    assert_eq!(together, one_by_one.await);
    assert!(together.1.iter().all(|rows| !rows.is_empty()), "each table has something to compare");

    let ids: Vec<CartId> = sold.iter().map(|sold| sold.order.cart_id).collect();
    let many = carts::load_many(&mut conn, &ids).await.expect("loaded");
    for id in ids {
        let one = carts::load(&mut conn, id).await.expect("loaded");
        assert_eq!(serde_json::to_value(many.get(&id)).expect("JSON"), serde_json::to_value(one).expect("JSON"));
    }
}
