//! Phase 1: is there anything to sell, at what price, to where.

use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate, Utc};
use domain::{
    cart::CartStatus,
    coupon::{Coupon, CouponRejection},
    ids::{CartId, CouponId, OrderId, UserId},
    pricing::{AppliedCoupon, Destination, Quote},
};
use engine::{Failure, SetResult, SetStep, SetTx, StepError, Undo, Undoing};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Request, accept::Refusal};
use crate::{
    rules::Terms,
    store::{
        carts::{self, CartLine, StoredCart},
        coupons::{self, Ask, Candidate, Candidates, Customer, Hold},
    },
};

/// The cart as this checkout sells it: journalled, so that every later step means the same lines.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValidCart {
    /// Lines in variant order.
    pub lines: Vec<CartLine>,
}

/// Box 1: the cart is ours, not empty, and everything in it is for sale in that quantity.
#[derive(Debug)]
pub struct ValidateCart {
    pub(super) run_id: Uuid,
    pub(super) request: Arc<Request>,
}

impl SetStep for ValidateCart {
    const NAME: &'static str = "ValidateCart";
    type Output = ValidCart;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<ValidCart> {
        let ids: Vec<CartId> = rows.iter().map(|row| row.request.cart_id).collect();
        let mut carts = carts::load_many(tx.conn(), &ids).await?;
        Ok(rows.iter().map(|row| row.check(carts.remove(&row.request.cart_id))).collect())
    }
}

impl ValidateCart {
    fn check(&self, cart: Option<StoredCart>) -> Result<ValidCart, Failure> {
        let cart = cart.ok_or_else(|| Failure::new("cart-not-found", "the cart no longer exists"))?;
        if cart.status != CartStatus::Checkout || cart.checkout_run_id != Some(self.run_id) {
            return Err(Failure::new("cart-not-active", "the cart is not held by this checkout"));
        }
        check_cart(&cart, &self.request.terms)?;
        Ok(ValidCart { lines: cart.lines })
    }
}

/// Not empty, all of it in the currency that will be charged, every line active and in stock, and together
/// worth an order. The same rule answers the POST.
pub(super) fn check_cart(cart: &StoredCart, terms: &Terms) -> Result<(), Refusal> {
    if cart.lines.is_empty() {
        return Err(Refusal::CartEmpty);
    }
    let currency = terms.pricing.currency;
    if let Some(other) = cart.other_currency(currency) {
        return Err(Refusal::CurrencyMismatch { found: other.to_owned(), currency });
    }
    let short: Vec<_> =
        cart.lines.iter().filter(|line| line.for_sale() < line.quantity).map(CartLine::shortage).collect();
    if !short.is_empty() {
        return Err(Refusal::OutOfStock { lines: short });
    }
    let subtotal = cart.lines.iter().map(CartLine::total).sum();
    match terms.pricing.minimum_order_value {
        Some(minimum) if subtotal < minimum => Err(Refusal::MinimumOrderValue { minimum, subtotal, currency }),
        Some(_) | None => Ok(()),
    }
}

/// Box 2: prices the cart with its coupons, holds those coupons, and compares with what the shopper saw.
#[derive(Debug)]
pub struct ApplyCoupons {
    pub(super) request: Arc<Request>,
    pub(super) cart: Arc<ValidCart>,
}

/// Which coupons a request asks for.
pub(super) fn ask_of(request: &Request) -> Ask<'_> {
    let Request { cart_id, user_id, contact_email, coupon_codes, .. } = request;
    Ask { cart_id: *cart_id, customer: Customer { user_id: *user_id, email: Some(contact_email) }, codes: coupon_codes }
}

impl SetStep for ApplyCoupons {
    const NAME: &'static str = "ApplyCoupons";
    type Output = Quote;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<Quote> {
        let now = tx.now();
        let asks: Vec<Ask<'_>> = rows.iter().map(|row| ask_of(&row.request)).collect();
        let mut found = coupons::lock_candidates(tx.conn(), &asks).await?;
        let mut taken = Taken::default();
        let mut quotes = Vec::with_capacity(rows.len());
        for (row, found) in rows.iter().zip(&mut found) {
            taken.count_in(row.request.user_id, found);
            let quote = quote(&row.cart.lines, &found.candidates, &row.request, now);
            if let Ok(quote) = &quote {
                taken.add(row.request.user_id, found.redeemer.as_deref(), &quote.coupons);
            }
            quotes.push(quote);
        }
        let holds: Vec<Hold<'_>> = rows
            .iter()
            .zip(&found)
            .zip(&quotes)
            .filter_map(|((row, found), quote)| {
                let Request { order_id, user_id, .. } = *row.request;
                let coupons = quote.as_ref().ok()?.coupons.as_slice();
                Some(Hold { order_id, user_id, redeemer: found.redeemer.as_deref(), coupons })
            })
            .collect();
        coupons::hold(tx.conn(), &holds, now).await?;
        Ok(quotes.into_iter().map(|quote| quote.map_err(Failure::from)).collect())
    }
}

/// What the rows before have taken of coupons that are limited: whoever comes first is served first.
#[derive(Default)]
struct Taken {
    holds: Vec<(CouponId, Option<UserId>, Option<Vec<u8>>)>,
}

impl Taken {
    /// Tells the coupons of what was taken since they were read.
    fn count_in(&self, user_id: Option<UserId>, found: &mut Candidates) {
        let Candidates { candidates, redeemer } = found;
        for Candidate { coupon, redeemed_by_user } in candidates {
            for (_, user, other) in self.holds.iter().filter(|(id, ..)| *id == coupon.id) {
                coupon.held_count += 1;
                let is_same = user.is_some() && *user == user_id || other.is_some() && other == redeemer;
                *redeemed_by_user += i64::from(is_same);
            }
        }
    }

    fn add(&mut self, user_id: Option<UserId>, redeemer: Option<&[u8]>, coupons: &[AppliedCoupon]) {
        self.holds.extend(coupons.iter().map(|coupon| (coupon.coupon_id, user_id, redeemer.map(<[u8]>::to_vec))));
    }
}

/// Prices `lines` for this request, and refuses what the shopper did not agree to.
pub(super) fn quote(
    lines: &[CartLine],
    candidates: &[Candidate],
    request: &Request,
    now: DateTime<Utc>,
) -> Result<Quote, Refusal> {
    let destination = destination(request);
    let coupons = eligible(candidates, &request.coupon_codes, lines, now)?;
    let inputs: Vec<_> = lines.iter().map(CartLine::input).collect();
    let quote = request
        .terms
        .pricing()
        .quote(&inputs, &coupons, Some(&destination), request.shipping_method)
        .and_then(Quote::within_an_order)?;
    if let Some((code, rejection)) = quote
        .rejected
        .iter()
        .find(|(code, _)| request.coupon_codes.iter().any(|typed| typed.eq_ignore_ascii_case(code)))
    {
        return Err(Refusal::CouponInvalid { code: code.clone(), reason: rejection.reason().to_owned() });
    }
    match request.expected_total {
        Some(expected) if quote.total > expected => Err(Refusal::PriceChanged {
            expected,
            lines: lines.iter().filter_map(CartLine::price_change).collect(),
            quote: Box::new(quote),
        }),
        Some(_) | None => Ok(quote),
    }
}

/// Those that apply now. A typed code that does not is refused with its reason; one that came along
/// with the cart, or by itself, is left out.
fn eligible(
    candidates: &[Candidate],
    typed: &[String],
    lines: &[CartLine],
    now: DateTime<Utc>,
) -> Result<Vec<Coupon>, Refusal> {
    for code in typed {
        if !candidates.iter().any(|candidate| candidate.coupon.code.eq_ignore_ascii_case(code.trim())) {
            let reason = CouponRejection::UnknownCode.reason().to_owned();
            return Err(Refusal::CouponInvalid { code: code.clone(), reason });
        }
    }
    let subtotal = lines.iter().map(CartLine::total).sum();
    let mut eligible = Vec::with_capacity(candidates.len());
    for Candidate { coupon, redeemed_by_user } in candidates {
        match coupon.check(now, subtotal, *redeemed_by_user) {
            Ok(()) => eligible.push(coupon.clone()),
            Err(rejection) if typed.iter().any(|code| code.trim().eq_ignore_ascii_case(&coupon.code)) => {
                return Err(Refusal::CouponInvalid {
                    code: coupon.code.clone(),
                    reason: rejection.reason().to_owned(),
                });
            }
            Err(_) => {}
        }
    }
    Ok(eligible)
}

fn destination(request: &Request) -> Destination {
    Destination { country: request.shipping_address.country.clone(), state: request.shipping_address.state.clone() }
}

/// Gives the held coupons back.
#[derive(Debug)]
pub struct ReleaseCoupons {
    pub(super) order_id: OrderId,
}

impl Undo<Quote> for ReleaseCoupons {
    const NAME: Option<&'static str> = Some("ReleaseCoupons");

    async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, Quote>]) -> Result<(), StepError> {
        let held = rows.iter().filter(|row| !row.output.coupons.is_empty());
        let (orders, now): (Vec<OrderId>, _) = (held.map(|row| row.undo.order_id).collect(), tx.now());
        coupons::release(tx.conn(), &orders, now).await?;
        Ok(())
    }
}

/// What delivery has been promised.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// When it should arrive.
    pub estimated_delivery: NaiveDate,
}

/// Box 3: addresses and methods came with the request; what follows from them is settled here.
#[derive(Debug)]
pub struct CollectDetails {
    pub(super) request: Arc<Request>,
}

impl SetStep for CollectDetails {
    const NAME: &'static str = "CollectDetails";
    type Output = Details;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<Details> {
        let today = tx.now().date_naive();
        let after = |days: u16| today.checked_add_days(Days::new(days.into())).unwrap_or(today);
        Ok(rows.iter().map(|row| Ok(Details { estimated_delivery: after(row.request.terms.delivery_days) })).collect())
    }
}

/// The last undo: the cart is the shopper's again, one generation older, so that it may check out anew.
#[derive(Debug)]
pub struct UnlockCart {
    pub(super) cart_id: CartId,
}

impl Undo<()> for UnlockCart {
    const NAME: Option<&'static str> = Some("UnlockCart");

    async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, ()>]) -> Result<(), StepError> {
        let (carts, now): (Vec<_>, _) = (rows.iter().map(|row| (row.undo.cart_id, row.run_id)).collect(), tx.now());
        carts::unlock(tx.conn(), &carts, now).await?;
        Ok(())
    }
}
