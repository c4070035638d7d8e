//! Coupons on a cart. One code counts beside automatic and stackable ones; the best for the customer wins.

use domain::{
    coupon::CouponRejection,
    ids::CartId,
    money::{Currency, round_half_away},
};
use rust_decimal::Decimal;
use sqlx::PgConnection;

use super::{CartRefusal, CartView, HeldCart, Notice, Owner, empty};
use crate::{
    Shop,
    store::{
        carts::{self, CartChange},
        coupons::{Candidate, Customer, candidates},
    },
};

/// What a code would do for a cart.
#[derive(Debug, Clone, PartialEq)]
pub struct CouponVerdict {
    /// What it would save, in major units; zero if it is not valid.
    pub discount: Decimal,
    /// Of the discount.
    pub currency: Currency,
    /// Why it is not valid; none if it is.
    pub rejection: Option<CouponRejection>,
}

/// Notes a code on the cart. Of codes that cannot be combined the one that saves more stays; a cart
/// without items takes any code that is valid as such.
///
/// # Errors
/// `CouponInvalid`, `InCheckout`, `Unpriceable`.
pub async fn apply_coupon(
    conn: &mut PgConnection,
    shop: &Shop,
    owner: &Owner,
    code: &str,
) -> Result<CartView, CartRefusal> {
    let mut held = HeldCart::take_up(conn, shop, owner, &[code.to_owned()]).await?;
    held.require_currency(shop)?;
    let refuse = |reason| CartRefusal::CouponInvalid { code: code.to_owned(), reason };
    let typed = find(&held.candidates, code).ok_or_else(|| refuse(CouponRejection::UnknownCode))?;
    held.check(typed).map_err(refuse)?;
    let quote = held.quote(shop)?;
    let used = quote.coupons.iter().find(|used| used.coupon_id == typed.coupon.id);
    if used.is_none() && !held.cart.lines.is_empty() {
        return Err(refuse(held.rejection(typed, &quote)));
    }

    let (typed_id, typed_alone) = (typed.coupon.id, alone(typed));
    let change = CartChange {
        add_coupons: (!typed.coupon.auto_apply)
            .then_some((typed_id, used.map_or(Decimal::ZERO, |used| used.discount)))
            .into_iter()
            .collect(),
        drop_coupons: held
            .candidates
            .iter()
            .filter(|other| typed_alone && alone(other) && other.coupon.id != typed_id)
            .map(|other| other.coupon.id)
            .collect(),
        ..CartChange::default()
    };
    held.save(conn, shop, &change).await?;
    let (lost, kept): (Vec<_>, Vec<_>) =
        held.candidates.into_iter().partition(|candidate| change.drop_coupons.contains(&candidate.coupon.id));
    held.candidates = kept;
    held.notices.extend(
        lost.into_iter()
            .map(|lost| Notice::CouponDropped { code: lost.coupon.code, reason: CouponRejection::NotCombinable }),
    );
    held.view(shop)
}

/// Forgets a code; one that is not on the cart is forgotten already. Automatic coupons need no code and
/// stay.
///
/// # Errors
/// `InCheckout`, `Unpriceable`.
pub async fn remove_coupon(
    conn: &mut PgConnection,
    shop: &Shop,
    owner: &Owner,
    code: &str,
) -> Result<CartView, CartRefusal> {
    let Some(mut held) = HeldCart::take_up_made(conn, owner).await? else {
        return HeldCart::unmade(conn, shop, owner).await?.view(shop);
    };
    if let Some(named) = find(&held.candidates, code) {
        let (id, auto_apply) = (named.coupon.id, named.coupon.auto_apply);
        held.save(conn, shop, &CartChange { drop_coupons: vec![id], ..CartChange::default() }).await?;
        held.candidates.retain(|candidate| candidate.coupon.id != id || auto_apply);
    }
    held.view(shop)
}

/// What a code would do, for the cart named or the owner's open one. Changes nothing and makes no cart;
/// without items in a cart the code is judged by itself, and saves nothing yet.
///
/// # Errors
/// `CartNotFound` for a cart of somebody else's, `Unpriceable`.
pub async fn validate_coupon(
    conn: &mut PgConnection,
    shop: &Shop,
    owner: &Owner,
    code: &str,
    cart_id: Option<CartId>,
) -> Result<CouponVerdict, CartRefusal> {
    let now = engine::now(&mut *conn).await?;
    let cart = match cart_id {
        Some(cart_id) => {
            let cart = carts::load(conn, cart_id).await?.filter(|cart| owner.owns(cart) && cart.status.is_open());
            Some(cart.ok_or(CartRefusal::CartNotFound)?)
        }
        None => match carts::find_open(conn, owner).await?.filter(|open| !open.is_stale) {
            Some(open) => carts::load(conn, open.id).await?,
            None => None,
        },
    };
    let cart = cart.unwrap_or_else(|| empty(owner, shop, CartId::generate(), 0));
    let candidates = candidates(conn, cart.id, Customer::of(owner.user_id()), &[code.to_owned()]).await?;
    HeldCart::new(cart, candidates, carts::Stamp::default(), now).judge(shop, code)
}

impl HeldCart {
    fn judge(&self, shop: &Shop, code: &str) -> Result<CouponVerdict, CartRefusal> {
        let currency = self.currency(shop);
        let verdict =
            |discount, rejection| CouponVerdict { discount: round_half_away(discount, currency), currency, rejection };
        let Some(typed) = find(&self.candidates, code) else {
            return Ok(verdict(Decimal::ZERO, Some(CouponRejection::UnknownCode)));
        };
        if self.cart.lines.is_empty() {
            // There is no merchandise yet that could fall short of the minimum.
            let minimum = typed.coupon.min_order_value.unwrap_or_default();
            let rejection = typed.coupon.check(self.now, minimum, typed.redeemed_by_user).err();
            return Ok(verdict(Decimal::ZERO, rejection));
        }
        let quote = self.quote(shop)?;
        Ok(match quote.coupons.iter().find(|used| used.coupon_id == typed.coupon.id) {
            Some(used) => verdict(used.discount, None),
            None => verdict(Decimal::ZERO, Some(self.rejection(typed, &quote))),
        })
    }
}

/// Whether a code on a cart tolerates no other of its kind.
pub(super) fn alone(candidate: &Candidate) -> bool {
    !candidate.coupon.stackable && !candidate.coupon.auto_apply
}

/// Codes are case-insensitive.
fn find<'a>(candidates: &'a [Candidate], code: &str) -> Option<&'a Candidate> {
    let code = code.trim().to_uppercase();
    candidates.iter().find(|candidate| candidate.coupon.code.to_uppercase() == code)
}
