//! A guest logs in: what was in the guest's cart comes along (seed: Cart Service, guest carts).

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    cart::{self as rules, CartError, CartStatus, Quantity},
    coupon::CouponRejection,
    ids::{CouponId, UserId, VariantId},
};
use sqlx::PgConnection;

use super::{CartRefusal, CartView, HeldCart, Notice, Owner, coupons::alone};
use crate::{
    Shop,
    store::{
        carts::{self, CartChange, CartLine, OpenCart, merging},
        coupons::{Candidate, Customer, candidates},
        users,
    },
};

/// Merges the session's cart into the user's, in the caller's transaction; both are locked. A guest's cart
/// becomes that of a user who has none. Otherwise each line gets min(sum, stock, 999) pieces; lines above
/// the 200th stay in the guest's cart. Nothing of the guest's, or no such session: the user's cart as it is.
///
/// # Errors
/// `InCheckout` for either cart, `Rule` (already owned) when the session's cart has become another user's,
/// `Unpriceable`.
pub async fn merge(
    conn: &mut PgConnection,
    shop: &Shop,
    user_id: UserId,
    session_hash: &[u8],
) -> Result<CartView, CartRefusal> {
    let owner = Owner::User(user_id);
    users::lock(conn, user_id).await?;
    // More than one round only when a cart's time is over, or the user's appears between look and write.
    for _ in 0..4 {
        let merging::Pair { user, guest } = merging::lock_pair(conn, user_id, session_hash).await?;
        if let Some(stale) = [user, guest].into_iter().flatten().find(|open| open.is_stale) {
            carts::expire(conn, stale.id).await?;
            continue;
        }
        let Some(guest) = guest else {
            return match merging::owner_of_session(conn, session_hash).await? {
                Some(other) if other != user_id => Err(CartError::AlreadyOwned.into()),
                Some(_) | None => unchanged(conn, shop, &owner).await,
            };
        };
        for open in [Some(guest), user].into_iter().flatten() {
            if open.status == CartStatus::Checkout {
                return Err(CartRefusal::InCheckout { workflow_id: open.checkout_run_id });
            }
        }
        match user {
            Some(user) => return join(conn, shop, user_id, user, guest).await,
            None if merging::associate(conn, guest.id, user_id, shop.rules.user_cart_ttl_s).await? => {
                return unchanged(conn, shop, &owner).await;
            }
            None => {}
        }
    }
    Err(sqlx::Error::RowNotFound.into())
}

/// The user's cart, every line of it as it was.
async fn unchanged(conn: &mut PgConnection, shop: &Shop, owner: &Owner) -> Result<CartView, CartRefusal> {
    let held = match HeldCart::take_up_made(conn, owner).await? {
        Some(held) => held,
        None => HeldCart::unmade(conn, shop, owner).await?,
    };
    let view = held.view(shop)?;
    Ok(CartView { adjustments: Some(Vec::new()), ..view })
}

async fn join(
    conn: &mut PgConnection,
    shop: &Shop,
    user_id: UserId,
    user: OpenCart,
    guest: OpenCart,
) -> Result<CartView, CartRefusal> {
    let mut held = HeldCart::load(conn, &Owner::User(user_id), user, &[]).await?;
    let theirs = carts::load(conn, guest.id).await?.ok_or(CartRefusal::CartNotFound)?;
    let brought: Vec<Candidate> = candidates(conn, guest.id, Customer::of(Some(user_id)), &[])
        .await?
        .into_iter()
        .filter(|candidate| !candidate.coupon.auto_apply)
        .collect();
    if theirs.lines.is_empty() && brought.is_empty() {
        let view = held.view(shop)?;
        return Ok(CartView { adjustments: Some(Vec::new()), ..view });
    }

    held.require_currency(shop)?;
    let currency = shop.pricing.policy().currency;
    if let Some(found) = theirs.other_currency(currency).filter(|_| !theirs.lines.is_empty()) {
        let (what, found) = ("the guest's cart".to_owned(), found.to_owned());
        return Err(CartRefusal::CurrencyMismatch { what, found, currency });
    }
    let stock: BTreeMap<VariantId, u32> = theirs.lines.iter().map(|line| (line.variant_id, line.for_sale())).collect();
    let merged = rules::merge(&rule_lines(&theirs.lines)?, &rule_lines(&held.cart.lines)?, |variant_id| {
        stock.get(&variant_id).copied().unwrap_or_default()
    });
    let left: BTreeSet<VariantId> = merged.left.iter().map(|line| line.variant_id).collect();
    let quantities: BTreeMap<VariantId, u32> =
        merged.lines.iter().map(|line| (line.variant_id, line.quantity.get())).collect();
    let mut change = CartChange::default();
    let mut taken = Vec::with_capacity(theirs.lines.len());
    for mut line in theirs.lines {
        let Some(&quantity) = quantities.get(&line.variant_id).filter(|_| !left.contains(&line.variant_id)) else {
            continue;
        };
        taken.push(line.variant_id);
        change.put.push((line.variant_id, quantity, line.price_when_added));
        match held.cart.lines.binary_search_by_key(&line.variant_id, |present| present.variant_id) {
            Ok(index) => held.cart.lines[index].quantity = quantity,
            Err(index) => {
                line.quantity = quantity;
                held.cart.lines.insert(index, line);
            }
        }
    }
    held.bring_coupons(shop, brought, &mut change)?;
    held.save(conn, shop, &change).await?;
    merging::empty_guest(conn, guest.id, &taken, left.is_empty(), user_id, held.now).await?;
    let view = held.view(shop)?;
    Ok(CartView { adjustments: Some(merged.adjustments), ..view })
}

impl HeldCart {
    /// Adds the guest's codes that this user may use. Of codes that cannot be combined the one that saves
    /// more stays; a tie leaves the user's own.
    fn bring_coupons(
        &mut self,
        shop: &Shop,
        brought: Vec<Candidate>,
        change: &mut CartChange,
    ) -> Result<(), CartRefusal> {
        let own: BTreeSet<CouponId> = self.candidates.iter().map(|candidate| candidate.coupon.id).collect();
        for candidate in brought.into_iter().filter(|candidate| !own.contains(&candidate.coupon.id)) {
            match self.check(&candidate) {
                Ok(()) => self.candidates.push(candidate),
                Err(reason) => self.notices.push(Notice::CouponDropped { code: candidate.coupon.code, reason }),
            }
        }
        // As they are read: the order decides between equals.
        self.candidates.sort_by_key(|candidate| candidate.coupon.id);
        let quote = self.quote(shop)?;
        let saves = |id: CouponId| quote.coupons.iter().find(|used| used.coupon_id == id).map(|used| used.discount);
        let loners: Vec<CouponId> = self.candidates.iter().filter(|c| alone(c)).map(|c| c.coupon.id).collect();
        let best = loners
            .iter()
            .copied()
            .find(|&id| saves(id).is_some())
            .or_else(|| loners.iter().copied().find(|id| own.contains(id)))
            .or_else(|| loners.first().copied());
        let (kept, lost): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.candidates).into_iter().partition(|c| !alone(c) || Some(c.coupon.id) == best);
        self.candidates = kept;
        for candidate in &self.candidates {
            let id = candidate.coupon.id;
            if !own.contains(&id) {
                change.add_coupons.push((id, saves(id).unwrap_or_default()));
            }
        }
        for Candidate { coupon, .. } in lost {
            if own.contains(&coupon.id) {
                change.drop_coupons.push(coupon.id);
            }
            self.notices.push(Notice::CouponDropped { code: coupon.code, reason: CouponRejection::NotCombinable });
        }
        Ok(())
    }
}

fn rule_lines(lines: &[CartLine]) -> Result<Vec<rules::CartLine>, CartError> {
    lines
        .iter()
        .map(|line| {
            Ok(rules::CartLine { variant_id: line.variant_id, quantity: Quantity::new(i64::from(line.quantity))? })
        })
        .collect()
}
