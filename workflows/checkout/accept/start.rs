//! Runs for requests that have their carts.

use std::collections::HashMap;

use domain::{
    address::Address,
    ids::{AddressId, CartId, OrderId, OrderNumber, UserId},
    money::Money,
    payment::PaymentMethod,
    pricing::Quote,
};
use engine::{Failure, Start};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Accepted, AddressChoice, NewCheckout, Refusal, Shopper};
use crate::{
    Shop,
    checkout::{
        Checkout, Request,
        status::Shown,
        validate::{self, ask_of},
    },
    rules::Terms,
    store::{
        addresses,
        carts::{self, StoredCart},
        coupons::{self, Candidates},
        orders,
    },
};

/// Starts the runs of requests that have their carts, in the transaction that sought them. Returns what came
/// of each, in their order; for one that is refused nothing is written.
///
/// # Errors
/// What ends the transaction for all of them.
pub async fn start(
    conn: &mut PgConnection,
    shop: &Shop,
    checkouts: Vec<NewCheckout>,
) -> Result<Vec<Result<Accepted, Refusal>>, Refusal> {
    let Some(now) = checkouts.iter().map(|checkout| checkout.locked.now).max() else { return Ok(Vec::new()) };
    let wanted: Vec<_> = checkouts.iter().flat_map(NewCheckout::wanted_addresses).collect();
    let saved = addresses::saved_many(conn, &wanted).await?;
    let numbers = orders::next_numbers(conn, checkouts.len()).await?;
    let mut prepared: Vec<Result<(StoredCart, Request), Refusal>> =
        checkouts.into_iter().zip(numbers).map(|(checkout, number)| checkout.prepare(shop, number, &saved)).collect();

    let asks: Vec<_> = prepared.iter().flatten().map(|(_, request)| ask_of(request)).collect();
    let mut candidates = coupons::candidates_many(conn, &asks).await?.into_iter();
    for row in &mut prepared {
        let Ok((cart, request)) = row else { continue };
        let Candidates { candidates, .. } = candidates.next().unwrap_or_default();
        match validate::quote(&cart.lines, &candidates, request, now) {
            Err(refusal) => *row = Err(refusal),
            Ok(quote) => {
                if let Err(refusal) = payable(shop, request, &quote) {
                    *row = Err(refusal);
                }
            }
        }
    }

    let mut runs = Vec::with_capacity(prepared.len());
    for row in &mut prepared {
        let Ok((cart, request)) = row else { continue };
        match Start::<Checkout>::new(format!("{}/{}", cart.id, cart.generation), request) {
            Ok(run) => runs.push((cart.id, run)),
            Err(failure) => *row = Err(failure.into()),
        }
    }
    let holds: Vec<(CartId, Uuid)> = runs.iter().map(|(cart_id, run)| (*cart_id, run.run_id())).collect();
    carts::hold_for_checkout(conn, &holds).await?;
    let starts: Vec<Start<Checkout>> = runs.into_iter().map(|(_, run)| run).collect();
    if engine::start_all(conn, &starts, now).await? < starts.len() as u64 {
        // The carts' rows are locked, so that no generation can have been used: a defect, not a race.
        return Err(Failure::new("internal", "a cart's generation was used before").into());
    }
    let mut started = starts.iter();
    Ok(prepared
        .into_iter()
        .map(|row| {
            let (_, Request { order_id, order_number, .. }) = row?;
            let workflow_id = started.next().map(Start::run_id).unwrap_or_default();
            Ok(Accepted { workflow_id, order_id, order_number, status: Shown::Running })
        })
        .collect())
}

/// Refuses what cannot be paid the way it is to be, before anything is reserved.
fn payable(shop: &Shop, request: &Request, quote: &Quote) -> Result<(), Refusal> {
    let (total, currency) = (quote.total, quote.currency);
    if request.payment_method == PaymentMethod::Cod {
        return match shop.rules.cod_limit {
            Some(limit) if total > limit => Err(Refusal::CodLimit { limit, currency }),
            Some(_) | None => Ok(()),
        };
    }
    match shop.gateway(&request.gateway) {
        Some(gateway) if !total.is_zero() => {
            Ok(gateway.accepts(request.payment_method, &Money::rounded(total, currency))?)
        }
        Some(_) | None => Ok(()),
    }
}

type SavedAddresses = HashMap<(UserId, AddressId), Address>;

impl NewCheckout {
    /// The saved addresses it names.
    fn wanted_addresses(&self) -> impl Iterator<Item = (UserId, AddressId)> {
        let user_id = self.order.shopper.user_id();
        [Some(&self.order.shipping), self.order.billing.as_ref()].into_iter().flatten().filter_map(move |choice| {
            match choice {
                AddressChoice::Saved(id) => Some((user_id?, *id)),
                AddressChoice::Inline(_) => None,
            }
        })
    }

    /// What its run is started with, if its cart can be sold to its shopper.
    fn prepare(
        self,
        shop: &Shop,
        order_number: OrderNumber,
        saved: &SavedAddresses,
    ) -> Result<(StoredCart, Request), Refusal> {
        let NewCheckout { order, gateway, cart, locked } = self;
        let terms = Terms::of(&shop.rules, order.shipping_method);
        validate::check_cart(&cart, &terms)?;
        let (user_id, contact_email, contact_phone) = match order.shopper {
            Shopper::User(user_id) => {
                (Some(user_id), locked.email.ok_or(Refusal::ContactMissing)?, locked.phone_number)
            }
            Shopper::Guest { email, phone, .. } => (None, email, phone),
        };
        let (shipping_address, shipping_address_id) = resolve(saved, user_id, order.shipping)?;
        let (billing_address, billing_address_id) = match order.billing {
            Some(choice) => {
                let (address, id) = resolve(saved, user_id, choice)?;
                (Some(address), id)
            }
            None => (None, shipping_address_id),
        };
        let request = Request {
            cart_id: cart.id,
            order_id: OrderId::generate(),
            order_number,
            user_id,
            contact_email,
            contact_phone,
            expected_total: order.expected_total,
            coupon_codes: order.coupon_codes,
            shipping_address,
            shipping_address_id,
            billing_address,
            billing_address_id,
            shipping_method: order.shipping_method,
            payment_method: order.payment_method,
            gateway,
            payment_token: order.payment_token,
            client_network: order.client_network,
            payment_attempts: shop.rules.payment_max_attempts,
            terms,
            fingerprint: order.fingerprint,
        };
        Ok((cart, request))
    }
}

/// The address that was chosen, and which saved one it is.
fn resolve(
    saved: &SavedAddresses,
    user_id: Option<UserId>,
    choice: AddressChoice,
) -> Result<(Address, Option<Uuid>), Refusal> {
    match choice {
        AddressChoice::Inline(address) => Ok((address, None)),
        AddressChoice::Saved(id) => {
            let address = user_id.and_then(|user_id| saved.get(&(user_id, id))).ok_or(Refusal::AddressNotFound)?;
            Ok((address.clone(), Some(id.into())))
        }
    }
}
