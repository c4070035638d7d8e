//! Whose cart a request means, and whether a run has it already.

use domain::{cart::CartStatus, ids::CartId, payment::PaymentMethod};
use engine::{Failure, codes};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Accepted, Order, Refusal};
use crate::{
    Shop,
    checkout::{Request, status::Shown},
    store::{
        carts::{self, Lock, Locked, Owner, StoredCart},
        orders,
    },
};

/// What a request comes to.
#[derive(Debug)]
pub enum Sought {
    /// An equal one has started this run before.
    Started(Accepted),
    /// It may start a run.
    New(Box<NewCheckout>),
    /// Its cart is in somebody else's hands just now: it must be sought by itself, and wait.
    Busy,
}

/// A request that has its cart, locked until the transaction ends.
#[derive(Debug)]
pub struct NewCheckout {
    pub(super) order: Order,
    pub(super) gateway: String,
    pub(super) cart: StoredCart,
    pub(super) locked: Locked,
}

/// Finds the runs that equal requests have started, or locks their carts for new ones. Nothing is written.
/// Returns what each request comes to, in their order.
///
/// # Errors
/// The database's own, which ends the transaction for all of them.
pub async fn seek(
    conn: &mut PgConnection,
    shop: &Shop,
    orders: Vec<Order>,
    lock: Lock,
) -> Result<Vec<Result<Sought, Refusal>>, Refusal> {
    let ids = carts_of(conn, &orders).await?;
    let wanted: Vec<CartId> = ids.iter().flatten().copied().collect();
    // Whoever else wants these carts waits here, and then finds what became of them.
    let mut locked = carts::lock(conn, &wanted, lock).await?;
    let held: Vec<CartId> = locked.keys().copied().collect();
    let mut stored = carts::load_many(conn, &held).await?;
    let mut sought = Vec::with_capacity(orders.len());
    for (order, id) in orders.into_iter().zip(ids) {
        // Of two that want the same cart the second finds it taken.
        let cart = id.map(|id| locked.remove(&id).zip(stored.remove(&id)));
        let found = match (gateway_of(shop, &order), cart) {
            (Err(refusal), _) => Err(refusal),
            (Ok(_), None) => already_bought(conn, &order).await.map(Sought::Started),
            (Ok(_), Some(None)) if lock == Lock::Skip => Ok(Sought::Busy),
            (Ok(_), Some(None)) => Err(Refusal::CartNotFound),
            (Ok(gateway), Some(Some((locked, cart)))) => look(conn, NewCheckout { order, gateway, cart, locked }).await,
        };
        sought.push(match found {
            Err(refusal @ Refusal::Database(_)) => return Err(refusal),
            found => found,
        });
    }
    Ok(sought)
}

/// Which cart each of them means: the one it names, or its shopper's open one.
async fn carts_of(conn: &mut PgConnection, orders: &[Order]) -> Result<Vec<Option<CartId>>, sqlx::Error> {
    let unnamed: Vec<Owner> =
        orders.iter().filter(|order| order.cart_id.is_none()).map(|order| order.shopper.owner()).collect();
    let mut open = carts::open_of(conn, &unnamed).await?.into_iter();
    Ok(orders.iter().map(|order| order.cart_id.or_else(|| open.next().flatten())).collect())
}

fn gateway_of(shop: &Shop, order: &Order) -> Result<String, Refusal> {
    let name = order.payment_gateway.as_ref().unwrap_or(&shop.rules.default_gateway).clone();
    if order.payment_method == PaymentMethod::Cod || shop.gateway(&name).is_some() {
        Ok(name)
    } else {
        Err(Refusal::GatewayUnknown { name })
    }
}

/// What becomes of a request by how its cart stands.
async fn look(conn: &mut PgConnection, found: NewCheckout) -> Result<Sought, Refusal> {
    let NewCheckout { order, cart, locked, .. } = &found;
    if !order.shopper.owner().owns(cart) {
        return Err(Refusal::CartNotFound);
    }
    match (cart.status, cart.checkout_run_id) {
        (CartStatus::Active | CartStatus::Abandoned, _) if locked.is_stale => {
            Err(Refusal::CartNotActive(CartStatus::Expired))
        }
        (CartStatus::Active | CartStatus::Abandoned, _) if cart.lines.is_empty() && order.cart_id.is_none() => {
            already_bought(conn, order).await.map(Sought::Started)
        }
        (CartStatus::Active | CartStatus::Abandoned, _) => Ok(Sought::New(Box::new(found))),
        (CartStatus::Checkout | CartStatus::Converted, Some(run_id)) => {
            let accepted = match same_run(conn, run_id, &order.fingerprint).await? {
                Some(accepted) => accepted,
                None => long_ago(conn, cart, run_id).await?,
            };
            Ok(Sought::Started(accepted))
        }
        (status @ (CartStatus::Checkout | CartStatus::Converted | CartStatus::Expired), _) => {
            Err(Refusal::CartNotActive(status))
        }
    }
}

/// A second click that comes after the first has been confirmed names no cart, and finds none or a
/// fresh one: it means the one that was bought.
async fn already_bought(conn: &mut PgConnection, order: &Order) -> Result<Accepted, Refusal> {
    match orders::from_carts::just_converted(conn, &order.shopper.owner(), &order.fingerprint).await? {
        Some(run_id) => same_run(conn, run_id, &order.fingerprint).await?.ok_or(Refusal::CartEmpty),
        None => Err(Refusal::CartEmpty),
    }
}

/// A run is forgotten after a while; the order it made is not.
async fn long_ago(conn: &mut PgConnection, cart: &StoredCart, run_id: Uuid) -> Result<Accepted, Refusal> {
    let (order_id, number) =
        orders::from_carts::made_of(conn, cart.id).await?.ok_or(Refusal::CartNotActive(cart.status))?;
    let order_number = number.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Accepted { workflow_id: run_id, order_id, order_number, status: Shown::Completed })
}

/// An equal request gets the run that has the cart; a different one is told which run that is. None if the
/// run has been forgotten.
async fn same_run(conn: &mut PgConnection, run_id: Uuid, fingerprint: &str) -> Result<Option<Accepted>, Refusal> {
    let Some(run) = engine::run::glance(conn, run_id).await? else { return Ok(None) };
    let request: Request =
        serde_json::from_value(run.input).map_err(|error| Failure::new(codes::INPUT_UNREADABLE, error.to_string()))?;
    let status = Shown::of(run.status, run.waiting_for.as_deref());
    if request.fingerprint != fingerprint && status != Shown::Completed {
        return Err(Refusal::CartInCheckout { workflow_id: run_id });
    }
    Ok(Some(Accepted { workflow_id: run_id, order_id: request.order_id, order_number: request.order_number, status }))
}
