//! Phase 1: is there anything to sell, at what price, to where.

use chrono::{DateTime, Days, NaiveDate, Utc};
use domain::{
    cart::CartStatus,
    coupon::{Coupon, CouponRejection},
    ids::{CartId, OrderId},
    pricing::{Destination, Quote},
};
use engine::{Failure, Step, StepError, Tx, Undo};
use serde::{Deserialize, Serialize};

use super::{Request, accept::Refusal};
use crate::{
    rules::Terms,
    store::{
        carts::{self, CartLine, StoredCart},
        coupons::{self, Ask, Candidate, Customer, Hold},
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
pub struct ValidateCart<'a> {
    pub(super) request: &'a Request,
}

impl Step for ValidateCart<'_> {
    const NAME: &'static str = "ValidateCart";
    type Output = ValidCart;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<ValidCart, StepError> {
        let run_id = tx.run_id();
        let Some(cart) = carts::load(tx.conn(), self.request.cart_id).await? else {
            return Err(Failure::new("cart-not-found", "the cart no longer exists").into());
        };
        if cart.status != CartStatus::Checkout || cart.checkout_run_id != Some(run_id) {
            return Err(Failure::new("cart-not-active", "the cart is not held by this checkout").into());
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
pub struct ApplyCoupons<'a> {
    pub(super) request: &'a Request,
    pub(super) cart: &'a ValidCart,
}

impl Step for ApplyCoupons<'_> {
    const NAME: &'static str = "ApplyCoupons";
    type Output = Quote;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Quote, StepError> {
        let (request, now) = (self.request, tx.now());
        let customer = Customer { user_id: request.user_id, email: Some(&request.contact_email) };
        let ask = Ask { cart_id: request.cart_id, customer, codes: &request.coupon_codes };
        let found = coupons::lock_candidates(tx.conn(), &[ask]).await?.pop().unwrap_or_default();
        let quote = quote(&self.cart.lines, &found.candidates, request, now)?;
        let hold = Hold {
            order_id: request.order_id,
            user_id: request.user_id,
            redeemer: found.redeemer.as_deref(),
            coupons: &quote.coupons,
        };
        coupons::hold(tx.conn(), &[hold], now).await?;
        Ok(quote)
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

    async fn undo(&self, tx: &mut Tx<'_>, quote: &Quote) -> Result<(), StepError> {
        if !quote.coupons.is_empty() {
            let now = tx.now();
            coupons::release(tx.conn(), self.order_id, now).await?;
        }
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
pub struct CollectDetails<'a> {
    pub(super) request: &'a Request,
}

impl Step for CollectDetails<'_> {
    const NAME: &'static str = "CollectDetails";
    type Output = Details;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Details, StepError> {
        let days = self.request.terms.delivery_days;
        let today = tx.now().date_naive();
        Ok(Details { estimated_delivery: today.checked_add_days(Days::new(days.into())).unwrap_or(today) })
    }
}

/// The last undo: the cart is the shopper's again, one generation older, so that it may check out anew.
#[derive(Debug)]
pub struct UnlockCart {
    pub(super) cart_id: CartId,
}

impl Undo<()> for UnlockCart {
    const NAME: Option<&'static str> = Some("UnlockCart");

    async fn undo(&self, tx: &mut Tx<'_>, (): &()) -> Result<(), StepError> {
        let (run_id, now) = (tx.run_id(), tx.now());
        carts::unlock(tx.conn(), self.cart_id, run_id, now).await?;
        Ok(())
    }
}
