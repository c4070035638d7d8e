//! Accepting a checkout: the transaction that answers `POST /api/checkout`. It locks the cart, refuses
//! what cannot be sold, and starts the run; cart, run and the client's idempotency key commit together.

use domain::{
    address::Address,
    cart::CartStatus,
    ids::{AddressId, CartId, OrderId, OrderNumber, UserId},
    money::{Currency, to_wire},
    payment::PaymentMethod,
    pricing::{PricingError, Quote, ShippingMethod},
};
use engine::{Failure, Start, codes};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Checkout, Request, status::Shown, validate};
use crate::{
    Shop,
    rules::Terms,
    store::{
        addresses,
        carts::{self, Locked, Owner, PriceChange, Shortage, StoredCart},
        coupons::{self, Customer},
        orders_of,
    },
};

/// Who checks out.
#[derive(Debug, Clone)]
pub enum Shopper {
    /// Logged in.
    User(UserId),
    /// A guest, where the shop allows it.
    Guest {
        /// Hash of the cart session's secret.
        session_hash: Vec<u8>,
        /// Where the shop writes to.
        email: String,
        /// Where the courier calls.
        phone: Option<String>,
    },
}

impl Shopper {
    /// Whose carts are theirs.
    fn owner(&self) -> Owner {
        match self {
            Shopper::User(user_id) => Owner::User(*user_id),
            Shopper::Guest { session_hash, .. } => Owner::Guest { session_hash: session_hash.clone() },
        }
    }
}

/// An address as the shopper gives it.
#[derive(Debug, Clone)]
pub enum AddressChoice {
    /// Written out.
    Inline(Address),
    /// One of the shopper's saved ones.
    Saved(AddressId),
}

/// What the shopper asks for.
#[derive(Debug, Clone)]
pub struct Order {
    /// Who.
    pub shopper: Shopper,
    /// Which cart; none means the open one.
    pub cart_id: Option<CartId>,
    /// The total they saw.
    pub expected_total: Option<Decimal>,
    /// Where it goes.
    pub shipping: AddressChoice,
    /// Who pays, if it is another address.
    pub billing: Option<AddressChoice>,
    /// How it goes.
    pub shipping_method: ShippingMethod,
    /// How it is paid.
    pub payment_method: PaymentMethod,
    /// Through whom, if not the shop's default.
    pub payment_gateway: Option<String>,
    /// The gateway's token.
    pub payment_token: Option<String>,
    /// Coupons typed at checkout.
    pub coupon_codes: Vec<String>,
    /// Equal requests have equal fingerprints.
    pub fingerprint: String,
}

/// The run that has the cart: a new one, or the one an equal request started before.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The run.
    pub workflow_id: Uuid,
    /// The order it will make, or has made.
    pub order_id: OrderId,
    /// Its number.
    pub order_number: OrderNumber,
    /// RUNNING, or what has become of it since.
    pub status: Shown,
}

/// Why a checkout does not start, or why its run gives up: the same rule, the same code.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such cart of this shopper.
    #[error("there is no such cart")]
    CartNotFound,
    /// Nothing to buy.
    #[error("the cart is empty")]
    CartEmpty,
    /// The cart is neither open nor converted.
    #[error("the cart is {0}")]
    CartNotActive(CartStatus),
    /// Less in stock than asked for.
    #[error("Out of stock")]
    OutOfStock {
        /// The lines that cannot be had.
        lines: Vec<Shortage>,
    },
    /// Dearer than what the shopper saw.
    #[error("the total is now {} {}, {} was expected", to_wire(quote.total, quote.currency), quote.currency, to_wire(*expected, quote.currency))]
    PriceChanged {
        /// What the shopper saw.
        expected: Decimal,
        /// Lines whose price moved since they were added.
        lines: Vec<PriceChange>,
        /// Today's prices.
        quote: Box<Quote>,
    },
    /// A typed coupon does not apply.
    #[error("coupon {code} does not apply: {reason}")]
    CouponInvalid {
        /// The code.
        code: String,
        /// Stable reason.
        reason: String,
    },
    /// Below the shop's minimum.
    #[error("orders start at {} {currency}; this cart comes to {}", to_wire(*minimum, *currency), to_wire(*subtotal, *currency))]
    MinimumOrderValue {
        /// The shop's minimum.
        minimum: Decimal,
        /// Merchandise subtotal.
        subtotal: Decimal,
        /// Of both.
        currency: Currency,
    },
    /// The cart, or a line of it, is in another currency than the shop sells in now.
    #[error("the cart is in {found}, the shop sells in {currency}: empty the cart to begin anew")]
    CurrencyMismatch {
        /// Of the cart.
        found: String,
        /// Of the shop.
        currency: Currency,
    },
    /// Another, different checkout has the cart.
    #[error("the cart is being checked out")]
    CartInCheckout {
        /// By this run.
        workflow_id: Uuid,
    },
    /// The pricing rules cannot price it.
    #[error("the cart cannot be priced: {0}")]
    Unpriceable(#[from] PricingError),
    /// The saved address is not the shopper's.
    #[error("there is no such address")]
    AddressNotFound,
    /// The gateway is not configured.
    #[error("payment gateway {name} is not available")]
    GatewayUnknown {
        /// The name that was given.
        name: String,
    },
    /// Too much to pay on delivery.
    #[error("cash on delivery is possible up to {} {currency}", to_wire(*limit, *currency))]
    CodLimit {
        /// The shop's limit.
        limit: Decimal,
        /// Of what.
        currency: Currency,
    },
    /// The user's account has gone.
    #[error("an e-mail address is needed")]
    ContactMissing,
    /// The request cannot be made a run.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

impl Refusal {
    /// Stable, kebab-case.
    pub fn code(&self) -> &str {
        match self {
            Refusal::CartNotFound => "cart-not-found",
            Refusal::CartEmpty => "cart-empty",
            Refusal::CartNotActive(_) => "cart-not-active",
            Refusal::OutOfStock { .. } => "out-of-stock",
            Refusal::PriceChanged { .. } => "price-changed",
            Refusal::CouponInvalid { .. } => "coupon-invalid",
            Refusal::MinimumOrderValue { .. } => "minimum-order-value",
            Refusal::CurrencyMismatch { .. } => "currency-mismatch",
            Refusal::CartInCheckout { .. } => "cart-in-checkout",
            Refusal::Unpriceable(error) => error.code(),
            Refusal::AddressNotFound => "address-not-found",
            Refusal::GatewayUnknown { .. } => "gateway-unknown",
            Refusal::CodLimit { .. } => "cod-limit-exceeded",
            Refusal::ContactMissing => "contact-missing",
            Refusal::Failure(failure) => &failure.code,
            Refusal::Database(_) => "internal",
        }
    }

    /// A sentence for people.
    pub fn detail(&self) -> String {
        self.to_string()
    }

    /// What a client needs to act on it.
    pub fn data(&self) -> Option<Value> {
        match self {
            Refusal::OutOfStock { lines } => {
                let available = lines.first().map_or(0, |line| line.available);
                Some(json!({ "lines": lines, "available": available }))
            }
            Refusal::PriceChanged { expected, lines, quote } => {
                let wire = |amount| to_wire(amount, quote.currency);
                Some(json!({
                    "expectedTotal": wire(*expected),
                    "lines": lines,
                    "currency": quote.currency,
                    "priceBreakdown": {
                        "subtotal": wire(quote.subtotal), "discount": wire(quote.discount), "tax": wire(quote.tax),
                        "shipping": wire(quote.shipping), "total": wire(quote.total),
                    },
                }))
            }
            Refusal::CouponInvalid { code, reason } => Some(json!({ "couponCode": code, "reason": reason })),
            Refusal::MinimumOrderValue { minimum, subtotal, currency } => {
                let wire = |amount| to_wire(amount, *currency);
                Some(json!({ "minimum": wire(*minimum), "subtotal": wire(*subtotal), "currency": currency }))
            }
            Refusal::CurrencyMismatch { found, currency } => {
                Some(json!({ "currency": found, "shopCurrency": currency }))
            }
            Refusal::CartInCheckout { workflow_id } => Some(json!({ "workflowId": workflow_id })),
            Refusal::CodLimit { limit, currency } => {
                Some(json!({ "limit": to_wire(*limit, *currency), "currency": currency }))
            }
            Refusal::Failure(failure) => failure.data.clone(),
            Refusal::CartNotFound
            | Refusal::CartEmpty
            | Refusal::CartNotActive(_)
            | Refusal::Unpriceable(_)
            | Refusal::AddressNotFound
            | Refusal::GatewayUnknown { .. }
            | Refusal::ContactMissing
            | Refusal::Database(_) => None,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let failure = Failure::new(refusal.code(), refusal.detail());
        match refusal.data() {
            Some(data) => failure.with(data),
            None => failure,
        }
    }
}

/// What a request comes to.
#[derive(Debug)]
pub enum Sought {
    /// An equal one has started this run before.
    Started(Accepted),
    /// It may start a run.
    New(Box<NewCheckout>),
}

/// A request that has its cart, locked until the transaction ends.
#[derive(Debug)]
pub struct NewCheckout {
    order: Order,
    gateway: String,
    cart: StoredCart,
    locked: Locked,
}

/// Accepts a checkout, or says why not. Everything happens in the caller's transaction.
pub async fn accept(conn: &mut PgConnection, shop: &Shop, order: Order) -> Result<Accepted, Refusal> {
    match seek(conn, shop, order).await? {
        Sought::Started(accepted) => Ok(accepted),
        Sought::New(checkout) => start(conn, shop, *checkout).await,
    }
}

/// Finds the run that an equal request has started, or locks the cart for a new one. Nothing is written.
pub async fn seek(conn: &mut PgConnection, shop: &Shop, order: Order) -> Result<Sought, Refusal> {
    let gateway = order.payment_gateway.clone().unwrap_or_else(|| shop.rules.default_gateway.clone());
    if order.payment_method != PaymentMethod::Cod && shop.gateway(&gateway).is_none() {
        return Err(Refusal::GatewayUnknown { name: gateway });
    }
    let Some(cart_id) = cart_of(conn, &order).await? else {
        return already_bought(conn, &order).await.map(Sought::Started);
    };
    // Whoever else wants this cart waits here, and then finds what became of it.
    let locked = carts::lock(conn, cart_id).await?.ok_or(Refusal::CartNotFound)?;
    let cart = carts::load(conn, cart_id)
        .await?
        .filter(|cart| order.shopper.owner().owns(cart))
        .ok_or(Refusal::CartNotFound)?;
    match (cart.status, cart.checkout_run_id) {
        (CartStatus::Active | CartStatus::Abandoned, _) if locked.is_stale => {
            return Err(Refusal::CartNotActive(CartStatus::Expired));
        }
        (CartStatus::Active | CartStatus::Abandoned, _) if cart.lines.is_empty() && order.cart_id.is_none() => {
            return already_bought(conn, &order).await.map(Sought::Started);
        }
        (CartStatus::Active | CartStatus::Abandoned, _) => {}
        (CartStatus::Checkout | CartStatus::Converted, Some(run_id)) => {
            let accepted = match same_run(conn, run_id, &order.fingerprint).await? {
                Some(accepted) => accepted,
                None => long_ago(conn, &cart, run_id).await?,
            };
            return Ok(Sought::Started(accepted));
        }
        (status @ (CartStatus::Checkout | CartStatus::Converted | CartStatus::Expired), _) => {
            return Err(Refusal::CartNotActive(status));
        }
    }
    Ok(Sought::New(Box::new(NewCheckout { order, gateway, cart, locked })))
}

/// Starts the run of a request that has its cart, in the transaction that sought it.
pub async fn start(conn: &mut PgConnection, shop: &Shop, checkout: NewCheckout) -> Result<Accepted, Refusal> {
    let NewCheckout { order, gateway, cart, locked } = checkout;
    let now = locked.now;
    let terms = Terms::of(&shop.rules, order.shipping_method);
    validate::check_cart(&cart, &terms)?;
    let (user_id, contact_email, contact_phone) = contact(&order.shopper, locked)?;
    let (shipping_address, shipping_address_id) = resolve(conn, user_id, order.shipping).await?;
    let (billing_address, billing_address_id) = match order.billing {
        Some(choice) => {
            let (address, id) = resolve(conn, user_id, choice).await?;
            (Some(address), id)
        }
        None => (None, shipping_address_id),
    };
    let run_id = Uuid::now_v7();
    let mut request = Request {
        cart_id: cart.id,
        order_id: OrderId::generate(),
        order_number: OrderNumber::from_sequence(0),
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
        payment_attempts: shop.rules.payment_max_attempts,
        terms,
        fingerprint: order.fingerprint,
    };
    let customer = Customer { user_id, email: Some(&request.contact_email) };
    let candidates = coupons::candidates(conn, cart.id, customer, &request.coupon_codes).await?;
    let quote = validate::quote(&cart.lines, &candidates, &request, now)?;
    if let (PaymentMethod::Cod, Some(limit)) = (request.payment_method, shop.rules.cod_limit)
        && quote.total > limit
    {
        return Err(Refusal::CodLimit { limit, currency: quote.currency });
    }
    let number = carts::hold_for_checkout(conn, cart.id, run_id).await?;
    request.order_number = OrderNumber::from_sequence(number.unsigned_abs());
    let key = format!("{}/{}", cart.id, cart.generation);
    let run = Start::<Checkout>::new(key, &request)?.with_id(run_id);
    let started = engine::start_at(conn, &run, now).await?;
    if !started.is_new {
        // The cart's row is locked, so its generation cannot have been used: a defect, not a race.
        return Err(Failure::new("internal", "the cart's generation was used before").into());
    }
    Ok(Accepted {
        workflow_id: run_id,
        order_id: request.order_id,
        order_number: request.order_number,
        status: Shown::Running,
    })
}

/// A second click that comes after the first has been confirmed names no cart, and finds none or a
/// fresh one: it means the one that was bought.
async fn already_bought(conn: &mut PgConnection, order: &Order) -> Result<Accepted, Refusal> {
    match orders_of::just_converted(conn, &order.shopper.owner(), &order.fingerprint).await? {
        Some(run_id) => same_run(conn, run_id, &order.fingerprint).await?.ok_or(Refusal::CartEmpty),
        None => Err(Refusal::CartEmpty),
    }
}

async fn cart_of(conn: &mut PgConnection, order: &Order) -> Result<Option<CartId>, sqlx::Error> {
    match (order.cart_id, &order.shopper) {
        (Some(cart_id), _) => Ok(Some(cart_id)),
        (None, Shopper::User(user_id)) => carts::open_cart_of_user(conn, *user_id).await,
        (None, Shopper::Guest { session_hash, .. }) => carts::open_cart_of_session(conn, session_hash).await,
    }
}

/// A run is forgotten after a while; the order it made is not.
async fn long_ago(conn: &mut PgConnection, cart: &StoredCart, run_id: Uuid) -> Result<Accepted, Refusal> {
    let (order_id, number) = orders_of::made_of(conn, cart.id).await?.ok_or(Refusal::CartNotActive(cart.status))?;
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

fn contact(shopper: &Shopper, owner: Locked) -> Result<(Option<UserId>, String, Option<String>), Refusal> {
    match shopper {
        Shopper::User(user_id) => Ok((Some(*user_id), owner.email.ok_or(Refusal::ContactMissing)?, owner.phone_number)),
        Shopper::Guest { email, phone, .. } => Ok((None, email.clone(), phone.clone())),
    }
}

async fn resolve(
    conn: &mut PgConnection,
    user_id: Option<UserId>,
    choice: AddressChoice,
) -> Result<(Address, Option<Uuid>), Refusal> {
    match choice {
        AddressChoice::Inline(address) => Ok((address, None)),
        AddressChoice::Saved(id) => {
            let user_id = user_id.ok_or(Refusal::AddressNotFound)?;
            let saved = addresses::saved(conn, user_id, id).await?.ok_or(Refusal::AddressNotFound)?;
            Ok((saved.address, Some(id.into())))
        }
    }
}
