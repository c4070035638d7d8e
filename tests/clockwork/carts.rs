//! Carts left behind and carts expired, over the virtual clock.

use domain::ids::{CartId, UserId};
use serde_json::json;
use uuid::Uuid;
use workflows::{
    abandoned_cart::AbandonedCarts, cart, cart::Owner, cart_expiry::CartExpiry, rules::Abandonment, store::preferences,
};

use super::*;

/// A registered shopper with a laptop in the cart, who has just put it there.
async fn shopper(world: &World) -> (UserId, CartId, String) {
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    sqlx::query("update carts set last_activity_at = engine.now(), expires_at = engine.now() + interval '30 days' where id = $1")
        .bind(Uuid::from(cart))
        .execute(&world.pool)
        .await
        .expect("touched");
    (user, cart, format!("{}@example.com", Uuid::from(user)))
}

impl World {
    /// The reminders sent to an address, in order.
    fn reminders(&self, address: &str) -> Vec<String> {
        let mut events: Vec<String> = self.mails.to(address).into_iter().map(|mail| mail.event).collect();
        events.retain(|event| event.starts_with("cart.abandoned"));
        events.sort();
        events
    }

    /// How the runs that remind of a cart have ended, in the order of their starts; `null` while alive.
    async fn endings(&self, cart: CartId) -> Vec<Value> {
        sqlx::query_scalar(
            "select coalesce(f.output, 'null') from engine.run_keys k left join engine.finished_runs f on f.id = k.run_id
              where k.workflow = 'abandoned_cart' and starts_with(k.run_key, $1::text) order by k.run_id",
        )
        .bind(Uuid::from(cart))
        .fetch_all(&self.pool)
        .await
        .expect("runs")
    }

    async fn told_abandoned(&self, cart: CartId) -> i64 {
        let sql = "select count(*) from outbox_events where event_type = 'cart.abandoned' and subject = $1::text";
        self.count(sql, cart.into()).await
    }
}

#[tokio::test]
async fn an_idle_cart_is_left_behind_once_and_reminded_of_three_times() {
    let world = World::with(rules()).await;
    let (_, cart, address) = shopper(&world).await;
    world.later(59 * MINUTE).await;
    assert_eq!(world.tick::<AbandonedCarts>().await, json!(0), "not before an hour has passed");
    assert_eq!(world.cart_status(cart).await, "ACTIVE");

    world.later(MINUTE).await;
    assert_eq!(world.tick::<AbandonedCarts>().await, json!(1));
    assert_eq!(world.tick::<AbandonedCarts>().await, json!(0), "once");
    world.settle().await;
    assert_eq!((world.cart_status(cart).await.as_str(), world.told_abandoned(cart).await), ("ABANDONED", 1));
    assert_eq!(world.reminders(&address), ["cart.abandoned.1"], "the first after an hour");
    world.later(23 * HOUR - 1).await;
    assert_eq!(world.reminders(&address).len(), 1);
    world.later(1).await;
    assert_eq!(world.reminders(&address), ["cart.abandoned.1", "cart.abandoned.2"], "the second after a day");
    world.later(48 * HOUR).await;
    let all = ["cart.abandoned.1", "cart.abandoned.2", "cart.abandoned.3"];
    assert_eq!(world.reminders(&address), all, "the third after three days");
    world.later(10 * DAY).await;
    assert_eq!(world.reminders(&address), all, "and no more");
    assert_eq!(world.endings(cart).await, [json!("IDLE")]);
    let mail = &world.mails.to(&address)[0];
    assert!(mail.text.contains("1 x Laptop (LAP-001): 50000.00"), "{}", mail.text);
    assert!(mail.text.contains("http://127.0.0.1:8080/cart"), "{}", mail.text);
    world.assert_books("after three reminders").await;
}

#[tokio::test]
async fn touching_the_cart_stops_the_reminders_and_leaving_it_again_starts_anew() {
    let world = World::with(rules()).await;
    let (user, cart, address) = shopper(&world).await;
    world.later(HOUR).await;
    world.tick::<AbandonedCarts>().await;
    world.settle().await;
    world.later(HOUR).await;
    let mut tx = world.pool.begin().await.expect("a transaction");
    cart::add_item(&mut tx, &world.shop, &Owner::User(user), "MOU-001", None, 1).await.expect("added");
    tx.commit().await.expect("committed");
    assert_eq!(world.cart_status(cart).await, "ACTIVE", "it is in use again");
    world.later(22 * HOUR).await;
    assert_eq!(world.endings(cart).await, [json!("TOUCHED")]);
    assert_eq!(world.reminders(&address), ["cart.abandoned.1"]);

    world.tick::<AbandonedCarts>().await;
    world.settle().await;
    assert_eq!(world.told_abandoned(cart).await, 2, "left a second time");
    assert_eq!(world.reminders(&address), ["cart.abandoned.1", "cart.abandoned.1"], "and reminded of again");
    assert_eq!(world.endings(cart).await, [json!("TOUCHED"), Value::Null]);
    world.assert_books("after the second time").await;
}

#[tokio::test]
async fn buying_what_was_left_stops_the_reminders() {
    let world = World::with(rules()).await;
    let (user, cart, address) = shopper(&world).await;
    world.later(HOUR).await;
    world.tick::<AbandonedCarts>().await;
    world.settle().await;
    world.checkout(user, cart, "tok_ok").await.expect("accepted");
    world.settle().await;
    assert_eq!(world.cart_status(cart).await, "CONVERTED");
    world.later(23 * HOUR).await;
    assert_eq!(world.endings(cart).await, [json!("BOUGHT")]);
    assert_eq!(world.reminders(&address), ["cart.abandoned.1"]);
    world.assert_books("after the purchase").await;
}

#[tokio::test]
async fn expiry_emptiness_and_opting_out_stop_the_reminders() {
    for (ending, what) in [
        ("EXPIRED", "update carts set expires_at = engine.now() where id = $1"),
        ("EMPTIED", "delete from cart_items where cart_id = $1"),
        ("UNREACHABLE", "update users u set is_active = false from carts c where c.user_id = u.id and c.id = $1"),
    ] {
        let world = World::with(rules()).await;
        let (_, cart, address) = shopper(&world).await;
        world.later(HOUR).await;
        world.tick::<AbandonedCarts>().await;
        world.settle().await;
        sqlx::query(what).bind(Uuid::from(cart)).execute(&world.pool).await.expect(ending);
        world.tick::<CartExpiry>().await;
        world.later(23 * HOUR).await;
        assert_eq!(world.endings(cart).await, [json!(ending)]);
        assert_eq!(world.reminders(&address), ["cart.abandoned.1"], "{ending}");
        world.assert_books(ending).await;
    }
}

#[tokio::test]
async fn opting_out_stops_reminders_but_not_what_concerns_an_order() {
    let world = World::with(rules()).await;
    let (user, cart, address) = shopper(&world).await;
    let choose = async |email| {
        let mut tx = world.pool.begin().await.expect("a transaction");
        let channels = preferences::Channels { email, sms: true, push: true };
        assert!(preferences::choose(&mut tx, user, channels).await.expect("chosen"));
        tx.commit().await.expect("committed");
    };
    world.later(HOUR).await;
    world.tick::<AbandonedCarts>().await;
    world.settle().await;
    choose(false).await;
    world.later(23 * HOUR).await;
    assert_eq!(world.endings(cart).await, [json!("OPTED_OUT")]);
    assert_eq!(world.reminders(&address), ["cart.abandoned.1"]);

    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    world.settle().await;
    assert_eq!(world.mails.about(accepted.order_id).len(), 1, "the order is confirmed in writing");
    choose(true).await;
    let wanted = preferences::read(&mut world.pool.acquire().await.expect("a connection"), user).await.expect("read");
    assert!(wanted.email);
    world.assert_books("after opting out").await;
}

/// Decided a moment before the owner came back: the message is recorded, and not sent.
#[tokio::test]
async fn a_reminder_under_way_is_not_sent_to_somebody_who_has_come_back() {
    let world = World::with(rules()).await;
    let (_, cart, address) = shopper(&world).await;
    world.later(HOUR).await;
    world.tick::<AbandonedCarts>().await;
    let reminding: Uuid = sqlx::query_scalar("select id from engine.runs where workflow = 'abandoned_cart'")
        .fetch_one(&world.pool)
        .await
        .expect("the run that reminds");
    world.healthy().await.turn(reminding).await.expect("a turn");
    sqlx::query("update carts set status = 'ACTIVE', last_activity_at = engine.now() where id = $1")
        .bind(Uuid::from(cart))
        .execute(&world.pool)
        .await
        .expect("touched");
    world.settle().await;
    assert_eq!(world.reminders(&address), Vec::<String>::new());
    let skipped =
        "select count(*) from notifications where subject_id = $1 and status = 'SKIPPED' and detail is not null";
    assert_eq!(world.count(skipped, reminding).await, 1);
}

#[tokio::test]
async fn guests_and_the_empty_handed_are_not_reminded() {
    let world = World::with(rules()).await;
    let (_, empty) = world.shopper(&[]).await;
    let (_, guests) = world.shopper(&[("MOU-001", 1)]).await;
    sqlx::query("update carts set user_id = null, session_hash = 'x' where id = $1")
        .bind(Uuid::from(guests))
        .execute(&world.pool)
        .await
        .expect("a guest's");
    world.later(2 * HOUR).await;
    assert_eq!(world.tick::<AbandonedCarts>().await, json!(1));
    assert_eq!(world.cart_status(empty).await, "ACTIVE", "nothing was left behind");
    assert_eq!((world.cart_status(guests).await.as_str(), world.told_abandoned(guests).await), ("ABANDONED", 1));
    assert_eq!(world.endings(guests).await, Vec::<Value>::new(), "there is nobody to remind");
    world.assert_books("after guests left").await;
}

#[tokio::test]
async fn the_rules_decide_when_a_cart_is_left_and_how_often_its_owner_hears_of_it() {
    let abandonment = Abandonment { after_s: 60, reminders_s: vec![120] };
    let world = World::with(Rules { abandonment, ..rules() }).await;
    let (_, cart, address) = shopper(&world).await;
    world.later(60).await;
    assert_eq!(world.tick::<AbandonedCarts>().await, json!(1));
    world.settle().await;
    assert_eq!(world.reminders(&address), Vec::<String>::new());
    world.later(60).await;
    assert_eq!(world.reminders(&address), ["cart.abandoned.1"]);
    assert_eq!(world.endings(cart).await, [json!("IDLE")]);
}

#[tokio::test]
async fn carts_end_when_their_time_is_over_but_never_in_a_checkout() {
    let world = World::with(rules()).await;
    let mut carts = Vec::new();
    // Whose, the end if it has one, days of idleness, and what becomes of it.
    for (is_guest, end, days, becomes) in [
        (true, Some("1 minute"), 1, "EXPIRED"),
        (true, Some("-1 minute"), 0, "ACTIVE"),
        (false, Some("1 minute"), 30, "EXPIRED"),
        (false, None, 31, "EXPIRED"),
        (false, None, 29, "ACTIVE"),
    ] {
        let (_, cart) = world.shopper(&[("MOU-001", 1)]).await;
        sqlx::query(
            "update carts set last_activity_at = engine.now() - make_interval(days => $2),
                    user_id = case when $3 then null else user_id end, session_hash = case when $3 then id::text::bytea end,
                    expires_at = engine.now() - $4::interval
              where id = $1",
        )
        .bind(Uuid::from(cart))
        .bind(days)
        .bind(is_guest)
        .bind(end.map(|end| sqlx::postgres::types::PgInterval {
            months: 0,
            days: 0,
            microseconds: if end.starts_with('-') { -60_000_000 } else { 60_000_000 },
        }))
        .execute(&world.pool)
        .await
        .expect("a cart's past");
        carts.push((cart, becomes));
    }
    let (user, in_checkout) = world.shopper(&[("LAP-001", 1)]).await;
    world.checkout(user, in_checkout, "tok_ok").await.expect("accepted");
    sqlx::query("update carts set last_activity_at = engine.now() - interval '90 days', expires_at = engine.now() - interval '60 days' where id = $1")
        .bind(Uuid::from(in_checkout))
        .execute(&world.pool)
        .await
        .expect("long ago");

    assert_eq!(world.tick::<CartExpiry>().await, json!(3));
    for (cart, becomes) in carts {
        assert_eq!(world.cart_status(cart).await, becomes);
    }
    assert_eq!(world.cart_status(in_checkout).await, "CHECKOUT");
    assert_eq!(world.tick::<CartExpiry>().await, json!(0));
    world.settle().await;
    assert_eq!(world.cart_status(in_checkout).await, "CONVERTED");
    world.assert_books("after the expiry").await;
}
