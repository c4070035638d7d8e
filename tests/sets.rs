//! What the shop's SQL does for many orders at a time is what it does for each of them in turn.

use std::{fmt::Debug, ops::Range, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    fraud::{Decision, Kind, Network},
    ids::{CartId, OrderId, OrderNumber},
    money::Money,
    payment::PaymentMethod,
    ports::{GatewayPayment, GatewayPaymentStatus, NextAction},
    pricing::{AppliedCoupon, Pricing, Quote, ShippingMethod},
};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use uuid::Uuid;
use workflows::{
    Rules,
    fraud::{ScreenOrder, Screening, screen_all},
    store::{
        carts::{self, CartLine},
        coupons::{self, Ask, Candidates, Customer, Hold},
        fraud::reviews::{self, NewReview, ReviewStatus},
        inventory::{self, Demand, Wanted},
        messages::{self, Event, Skip},
        orders::{self, Confirmation, NewIntent, NewItems, NewOrder},
        payments::{self, Captured},
    },
};

use crate::{
    fraud::{rule, set_rules},
    interleavings::driver::Dice,
    world::{World, mumbai},
};

/// Everything a checkout writes.
const WRITTEN: &str = "orders order_items order_coupons order_state_history payments payment_attempts carts coupons \
                       coupon_redemption_log inventory inventory_reservations inventory_movements outbox_events notifications \
                       order_screenings screening_keys order_reviews";

/// What is in those tables, but for what is drawn anew each time or counts statements.
async fn books(conn: &mut PgConnection) -> Vec<Vec<Value>> {
    let mut books = Vec::new();
    for table in WRITTEN.split_whitespace() {
        let drawn = match table {
            // One alert a crossing, whoever's it is.
            "outbox_events" => "{id,event_id,xid,data}",
            "inventory" => "{id,version}",
            "payment_attempts" => "{id,payment_id}",
            "notifications" => "{id,message_id}",
            "order_screenings" => "{place}",
            _ => "{id}",
        };
        let rows = format!("select to_jsonb(t) - '{drawn}'::text[] as rest from {table} t order by rest");
        books.push(sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut *conn).await.expect("the rows"));
    }
    books
}

/// Tells a story of `0..count` as a whole, and of each of them in turn: it answers the same and leaves the same
/// books. Afterwards it never happened.
async fn same<T: PartialEq + Debug>(
    pool: &PgPool,
    what: &str,
    count: usize,
    story: impl AsyncFn(&mut PgConnection, Range<usize>) -> Vec<T>,
) -> (Vec<T>, Vec<Vec<Value>>) {
    let mut tx = pool.begin().await.expect("a transaction");
    let together = (story(&mut tx, 0..count).await, books(&mut tx).await);
    tx.rollback().await.expect("rolled back");
    let mut tx = pool.begin().await.expect("a transaction");
    let mut answers = Vec::new();
    for one in 0..count {
        answers.extend(story(&mut tx, one..one + 1).await);
    }
    let one_by_one = (answers, books(&mut tx).await);
    tx.rollback().await.expect("rolled back");
    assert_eq!(together, one_by_one, "{what}");
    together
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

fn json(of: impl Serialize) -> Value {
    serde_json::to_value(of).expect("JSON")
}

#[tokio::test]
async fn stock_held_for_many_goes_to_those_who_would_get_it_one_by_one() {
    let World { pool, .. } = World::new().await;
    let known = sqlx::query_scalar("select variant_id from inventory order by variant_id").fetch_all(&pool).await;
    let mut variants: Vec<Uuid> = known.expect("variants");
    variants.push(Uuid::max());
    let (mut lost, mut won) = (0, 0);
    for seed in 0..150 {
        let mut dice = Dice::new(seed);
        let mut few = |most| i32::try_from(dice.roll(most)).expect("small");
        let stock: Vec<i32> = variants.iter().map(|_| few(25)).collect();
        let mut demands = Vec::new();
        for _ in 0..=few(8) {
            let mut wanted = Vec::new();
            for &variant in &variants {
                if few(if variant.is_max() { 20 } else { 2 }) == 0 {
                    let (variant_id, reservation_id) = (variant.into(), Uuid::now_v7());
                    wanted.push(Wanted { variant_id, quantity: few(8) + 1, reservation_id });
                }
            }
            demands.push(Demand { holder: OrderId::generate().into(), wanted, expires_at: now() });
        }
        let what = format!("seed {seed}: {demands:#?} of {stock:?}");
        let (answers, _) = same(&pool, &what, demands.len(), async |conn, range| {
            let set = "update inventory i set available_quantity = s.pieces
                         from unnest($1::uuid[], $2::int[]) as s(variant_id, pieces) where i.variant_id = s.variant_id";
            if range.start == 0 {
                sqlx::query(set).bind(&variants).bind(&stock).execute(&mut *conn).await.expect("stock");
            }
            let mut answers = inventory::hold(conn, &demands[range], now()).await.expect("held");
            answers.iter_mut().for_each(|short| short.sort_by_key(|short| short.variant_id));
            answers
        })
        .await;
        lost += answers.iter().filter(|short| !short.is_empty()).count();
        won += answers.iter().filter(|short| short.is_empty()).count();
    }
    assert!(lost > 100 && won > 100, "{lost} lost, {won} won");
}

/// Twenty of them, so that an order of one's own would hardly begin with the lowest.
#[tokio::test]
async fn coupons_of_an_order_are_taken_in_the_order_of_their_ids() {
    let World { pool, .. } = World::new().await;
    let coupons: Vec<Uuid> = sqlx::query_scalar(
        "insert into coupons (id, code, kind, value, held_count, current_usage_count)
         select gen_random_uuid(), 'C' || n, 'PERCENT', 5, 2, 1 from generate_series(1, 20) n returning id",
    )
    .fetch_all(&pool)
    .await
    .expect("coupons");
    for (status, what) in [("HELD", "release"), ("HELD", "redeem"), ("SUCCESS", "reverse")] {
        let order = OrderId::generate();
        sqlx::query(
            "insert into coupon_redemption_log (coupon_id, order_id, discount_applied, status, created_at, updated_at)
             select c, $2, 1, $3, now(), now() from unnest($1::uuid[]) c",
        )
        .bind(&coupons)
        .bind(Uuid::from(order))
        .bind(status)
        .execute(&pool)
        .await
        .expect("held");
        let mut other = pool.begin().await.expect("a transaction");
        let lock = "select id from coupons where id = any($1) order by id limit 1 for update";
        sqlx::query(lock).bind(&coupons).execute(&mut *other).await.expect("the lowest");
        let mut conn = pool.acquire().await.expect("a connection");
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *conn).await.expect("a pid");
        let doing = tokio::spawn(async move {
            match what {
                "release" => coupons::release(&mut conn, &[order], now()).await,
                "redeem" => coupons::redeem(&mut conn, &[order], now()).await,
                _ => coupons::reverse(&mut conn, &[order], now()).await,
            }
        });
        let waits = "select cardinality(pg_blocking_pids($1)) > 0";
        while !sqlx::query_scalar::<_, bool>(waits).bind(pid).fetch_one(&pool).await.expect("a look") {
            assert!(!doing.is_finished(), "{what} waits for nobody");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let all = "select id from coupons where id = any($1) for update nowait";
        sqlx::query(all).bind(&coupons).execute(&mut *other).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        other.commit().await.expect("committed");
        doing.await.expect("a task").expect("done");
    }
}

/// A foreign key's check locks the coupon as a reader does: in the middle of a statement that has locked stock.
#[tokio::test]
async fn who_writes_a_coupon_down_waits_for_nobody_who_counts_it() {
    let World { pool, .. } = World::new().await;
    let coupon: Uuid = sqlx::query_scalar(
        "insert into coupons (id, code, kind, value, held_count) values (gen_random_uuid(), 'C', 'PERCENT', 5, 1) returning id",
    )
    .fetch_one(&pool)
    .await
    .expect("a coupon");
    let order = OrderId::generate();
    sqlx::query(
        "insert into coupon_redemption_log (coupon_id, order_id, discount_applied, status, created_at, updated_at)
         values ($1, $2, 1, 'HELD', now(), now())",
    )
    .bind(coupon)
    .bind(Uuid::from(order))
    .execute(&pool)
    .await
    .expect("held");
    let writes_down = async || {
        let mut other = pool.begin().await.expect("a transaction");
        sqlx::query("set local lock_timeout = '2s'").execute(&mut *other).await.expect("set");
        let checked = "select id from coupons where id = $1 for key share";
        sqlx::query(checked).bind(coupon).execute(&mut *other).await.map(drop)
    };
    for what in ["release", "found"] {
        let mut tx = pool.begin().await.expect("a transaction");
        match what {
            "release" => coupons::release(&mut tx, &[order], now()).await.expect("released"),
            _ => {
                let found = coupons::terms::lock(&mut tx, "C").await.expect("a look");
                assert!(found.is_some());
            }
        }
        writes_down().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
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
    // One has a coupon on the cart, two have used some before, and a guest has the address of one of these.
    let before =
        "with carried as (insert into cart_coupons (cart_id, coupon_id) select $2, id from coupons where code = 'FEW')
                  insert into coupon_redemption_log
                         (coupon_id, user_id, redeemer, order_id, discount_applied, status, created_at, updated_at)
                  select c.id, u.id, coupon_redeemer(u.email), gen_random_uuid(), 1, 'SUCCESS', now(), now()
                    from coupons c, users u where c.code <> 'SAVE20' and u.id = any($1)";
    let used: Vec<Uuid> = shoppers[..2].iter().map(|(user, _)| Uuid::from(*user)).collect();
    sqlx::query(before).bind(used).bind(Uuid::from(shoppers[3].1)).execute(&world.pool).await.expect("used");
    let of_another = format!(" {}+shop@EXAMPLE.com", shoppers[0].0);
    let typed = ["few", " Once ", "SAVE20", "NONE"].map(str::to_owned);
    for seed in 0..50 {
        let mut dice = Dice::new(seed);
        let asks: Vec<Ask<'_>> = (0..=dice.roll(6))
            .map(|_| {
                let (user, cart_id) = dice.pick(&shoppers);
                let user_id = (dice.roll(3) > 0).then_some(user);
                let customer = Customer { user_id, email: user_id.is_none().then_some(&of_another) };
                Ask { cart_id, customer, codes: &typed[dice.roll(4)..] }
            })
            .collect();
        let what = format!("seed {seed}: {asks:#?}");
        let (found, _) = same(&world.pool, &what, asks.len(), async |conn, range| {
            let found = coupons::lock_candidates(conn, &asks[range]).await.expect("found");
            found.into_iter().map(|Candidates { candidates, redeemer }| (json(candidates), redeemer)).collect()
        })
        .await;
        let mut conn = world.pool.acquire().await.expect("a connection");
        let mut applied: Vec<Vec<AppliedCoupon>> = Vec::new();
        for (ask, (candidates, _)) in asks.iter().zip(&found) {
            let free = coupons::candidates(&mut conn, ask.cart_id, ask.customer, ask.codes).await.expect("found");
            assert_eq!(*candidates, json(&free), "seed {seed}: {ask:?}");
            let auto = free.iter().find(|found| found.coupon.code == "AUTO").expect("applies by itself");
            let has_used = ask.customer.user_id.is_none_or(|user| shoppers[..2].iter().any(|(used, _)| *used == user));
            assert_eq!(auto.redeemed_by_user, i64::from(has_used), "seed {seed}: {ask:?}");
            let discount = Decimal::from(dice.roll(9) + 1);
            let coupons = free.into_iter().map(|found| (found.coupon.id, found.coupon.code));
            applied.push(coupons.map(|(coupon_id, code)| AppliedCoupon { coupon_id, code, discount }).collect());
        }
        let hold = |index: usize| {
            let (user_id, redeemer) = (asks[index].customer.user_id, found[index].1.as_deref());
            Hold { order_id: OrderId::generate(), user_id, redeemer, coupons: &applied[index] }
        };
        let holds: Vec<Hold<'_>> = (0..asks.len()).map(hold).collect();
        same(&world.pool, &what, holds.len(), async |conn, range| {
            coupons::hold(conn, &holds[range], now()).await.expect("held");
            Vec::<()>::new()
        })
        .await;
    }
}

/// An order, and what becomes of it.
struct Sold<'a> {
    screened: ScreenOrder,
    order: NewOrder<'a>,
    lines: &'a [CartLine],
    demand: Demand,
    intent: NewIntent<'a>,
    captured: Option<Captured>,
}

/// All that checkouts write, from the holds to the message that is not sent.
async fn sell(conn: &mut PgConnection, sold: &[Sold<'_>]) -> Result<(), sqlx::Error> {
    let (mut ids, mut holds, mut demands, mut news, mut items, mut links) = Default::default();
    let (mut intents, mut confirmations, mut converted, mut events, mut skips) = Default::default();
    let screened: Vec<ScreenOrder> = sold.iter().map(|sold| sold.screened.clone()).collect();
    let screenings = screen_all(conn, &screened, now()).await.expect("screened");
    let doubtful = sold.iter().zip(&screenings).filter(|(_, screening)| screening.decision == Decision::Review);
    let review = |(Sold { order, .. }, screening): (&Sold<'_>, &Screening)| NewReview {
        order_id: order.id,
        run_id: order.run_id,
        deadline_s: screening.review_deadline_s,
    };
    let reviews: Vec<NewReview> = doubtful.map(review).collect();
    for Sold { order, lines, demand, intent, captured, .. } in sold {
        let &NewOrder { id: order_id, user_id, quote, estimated_delivery, .. } = order;
        let (coupons, subject) = (quote.coupons.as_slice(), Uuid::from(order_id));
        Vec::push(&mut ids, order_id);
        Vec::push(&mut holds, Hold { order_id, user_id, redeemer: Some(&[1, 2]), coupons });
        Vec::push(&mut demands, demand.clone());
        Vec::push(&mut news, *order);
        Vec::push(&mut items, NewItems { order_id, lines, quote });
        Vec::push(&mut links, (order_id, coupons));
        Vec::push(&mut intents, *intent);
        Vec::push(&mut confirmations, Confirmation { order_id, payment: captured.as_ref(), estimated_delivery });
        Vec::push(&mut converted, (order.cart_id, order.run_id));
        for event_type in ["order.confirmed", "inventory.committed"] {
            Vec::push(&mut events, Event { subject, event_type, data: json(order_id) });
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
    let opened = reviews::open(conn, &reviews, now()).await?;
    let aside: Vec<_> =
        reviews.iter().zip(opened).map(|(review, opened)| (review.order_id, opened.held_until)).collect();
    payments::set_aside(conn, &aside, now()).await?;
    let ended = reviews::end(conn, &ids, ReviewStatus::Expired, now()).await?;
    assert_eq!(ended.iter().flatten().count(), reviews.len());
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

#[tokio::test]
async fn many_orders_are_written_as_one_by_one() {
    let world = World::new().await;
    // All come from one network: two are let through.
    let parameters = json!({ "by": "NETWORK", "limit": 2, "windowS": 3_600 });
    set_rules(&world.pool, vec![rule("fast", Kind::Velocity, 60, parameters)]).await;
    let mut conn = world.pool.acquire().await.expect("a connection");
    let (one, none) = (["SAVE20".to_owned()], []);
    let wishes: [&[(&str, i32)]; 4] =
        [&[("LAP-001", 1), ("MOU-001", 2)], &[("MOU-001", 3)], &[("LAP-001", 2), ("BAG-001", 1)], &[("BAG-001", 5)]];
    let mut sold = Vec::new();
    for (number, lines) in (1..).zip(wishes) {
        let codes: &[String] = if number == 2 { &none } else { &one };
        let ((user, cart_id), run_id, id) = (world.shopper(lines).await, Uuid::now_v7(), OrderId::generate());
        carts::hold_for_checkout(&mut conn, &[(cart_id, run_id)]).await.expect("held");
        let found = coupons::candidates(&mut conn, cart_id, Customer::of(Some(user)), codes).await.expect("found");
        let coupons: Vec<_> = found.into_iter().map(|found| found.coupon).collect();
        let lines = carts::load(&mut conn, cart_id).await.expect("loaded").expect("a cart").lines.leak();
        let inputs: Vec<_> = lines.iter().map(CartLine::input).collect();
        let pricing = Pricing::new(Rules::default().pricing);
        let quote = pricing.quote(&inputs, &coupons, None, ShippingMethod::Standard).expect("a price");
        assert_eq!(quote.coupons.len(), codes.len());
        let quote: &Quote = Box::leak(Box::new(quote));
        let is_paid = lines.len() > 1;
        let payment: &GatewayPayment = Box::leak(Box::new(GatewayPayment {
            gateway_payment_id: format!("pay_{number}"),
            order_id: id,
            status: GatewayPaymentStatus::RequiresAction,
            amount: Money::rounded(quote.total, quote.currency),
            captured: Decimal::ZERO,
            refunded: Decimal::ZERO,
            next_action: is_paid.then(|| NextAction::Redirect { url: "https://pay.example".to_owned() }),
            failure: None,
        }));
        let captured = Captured { gateway_payment_id: payment.gateway_payment_id.clone(), amount: quote.total };
        let (demanded, ordered_with) = (Wanted::of(lines), PaymentMethod::Upi);
        let order = NewOrder {
            id,
            number: Box::leak(Box::new(OrderNumber::from_sequence(number))),
            run_id,
            cart_id,
            user_id: Some(user),
            contact_email: "asha@example.com",
            contact_phone: None,
            shipping_address: (Box::leak(Box::new(mumbai())), Some(Uuid::max())),
            billing_address: (None, None),
            shipping_method: ShippingMethod::Standard,
            payment_method: ordered_with,
            gateway: Some("scripted"),
            quote,
            estimated_delivery: now().date_naive(),
        };
        let intent = NewIntent {
            order_id: id,
            attempt: 1,
            idempotency_key: run_id,
            method: if is_paid { ordered_with } else { PaymentMethod::Wallet },
            ordered_with,
            gateway: "scripted",
            payment,
        };
        let demand = Demand { holder: id.into(), wanted: demanded, expires_at: now() };
        let screened = ScreenOrder {
            order_id: id,
            user_id: Some(user),
            email: None,
            address: None,
            network: Some(Network::of([203, 0, 113, 7].into())),
            token: None,
            billing_country: "India".to_owned(),
            shipping_country: "India".to_owned(),
            amount: quote.total,
            currency: quote.currency,
        };
        sold.push(Sold { screened, order, lines, demand, intent, captured: is_paid.then_some(captured) });
    }
    let (_, books) = same(&world.pool, "all of it", sold.len(), async |conn, range| {
        sell(conn, &sold[range]).await.expect("sold");
        Vec::<()>::new()
    })
    .await;
    assert!(books.iter().all(|rows| !rows.is_empty()), "each table has something to compare");

    let ids: Vec<CartId> = sold.iter().map(|sold| sold.order.cart_id).collect();
    let many = carts::load_many(&mut conn, &ids).await.expect("loaded");
    for id in ids {
        assert_eq!(json(many.get(&id)), json(carts::load(&mut conn, id).await.expect("loaded")));
    }
}
