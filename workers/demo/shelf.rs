//! What each shopper buys, chosen so that the demo catalogue's stock is enough for everybody but the
//! rush.

use rand::{RngExt as _, rngs::StdRng};

use super::{
    outcome::Outcome,
    storefront::{Line, Product},
};

/// The price example of the documentation: one of it costs 59050.00, and 47250.00 with SAVE20.
const LAPTOP: &str = "LAP-001";

/// Laptops that are not sold without a coupon that is shown on them.
const KEPT_LAPTOPS: u32 = 60;

/// A variant of which there is one piece.
const SINGLE: &str = "LTD-001";

/// A variant of which there are ten pieces.
const TEN: &str = "LTD-010";

/// Of these the shoppers of the rush want two each, so that five of them get some.
const WANTED_OF_TEN: u32 = 2;

/// Most lines in a basket.
const MOST_LINES: usize = 3;

/// What one shopper wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Basket {
    pub(crate) lines: Vec<Line>,
    /// What it must cost, where the documentation says so.
    pub(crate) total: Option<&'static str>,
}

/// Stock that has not been promised to a shopper of the demo.
#[derive(Debug)]
pub(crate) struct Shelf {
    left: Vec<Line>,
    /// Shoppers of the rush so far who are to get something, and who are not.
    rush: (usize, usize),
    /// Buyers so far who could take a laptop.
    buyers: usize,
}

impl Shelf {
    /// A shelf with all that is sold, the limited variants apart.
    pub(crate) fn of(products: &[Product]) -> Self {
        let variants = products.iter().flat_map(|product| &product.variants);
        let left = variants
            .filter(|variant| ![SINGLE, TEN].contains(&variant.sku.as_str()))
            .map(|variant| Line { sku: variant.sku.clone(), quantity: variant.available_quantity })
            .collect();
        Shelf { left, rush: (0, 0), buyers: 0 }
    }

    /// A basket for the next shopper; `None` when the shelf is empty.
    pub(crate) fn basket(&mut self, outcome: Outcome, random: &mut StdRng) -> Option<Basket> {
        match outcome {
            Outcome::LastPieces => {
                self.rush.0 += 1;
                return Some(limited(self.rush.0 == 1));
            }
            Outcome::SoldOut => {
                self.rush.1 += 1;
                // The ten pieces sell out only when there are five buyers for them besides the single one's.
                return Some(limited(self.rush.0 < 2 || self.rush.1 % 2 == 1));
            }
            Outcome::Paid | Outcome::PaidWithCoupon => {
                self.buyers += 1;
                if self.buyers % 3 == 1 && self.has_spare_laptop() && self.take(LAPTOP, 1) {
                    let total = if outcome == Outcome::Paid { "59050.00" } else { "47250.00" };
                    return Some(Basket { lines: vec![line(LAPTOP, 1)], total: Some(total) });
                }
            }
            Outcome::PaidWithFixed if self.take(LAPTOP, 1) => {
                return Some(Basket { lines: vec![line(LAPTOP, 1)], total: Some("58460.00") });
            }
            Outcome::PaidWithFreeShipping if self.take(LAPTOP, 1) => {
                return Some(Basket { lines: vec![line(LAPTOP, 1)], total: Some("59000.00") });
            }
            Outcome::PaidWithOneFree if self.take(LAPTOP, 3) => {
                return Some(Basket { lines: vec![line(LAPTOP, 3)], total: Some("118050.00") });
            }
            Outcome::PaidWithFixed
            | Outcome::PaidWithFreeShipping
            | Outcome::PaidWithOneFree
            | Outcome::MergedCart
            | Outcome::SavedAddress
            | Outcome::CancelledLater
            | Outcome::Delivered
            | Outcome::CashDelivered
            | Outcome::PartlyRefunded
            | Outcome::Reminded
            | Outcome::CashOnDelivery
            | Outcome::Declined
            | Outcome::SecureApproved
            | Outcome::SecureDeclined
            | Outcome::SecureAbandoned
            | Outcome::GatewayTimeout
            | Outcome::SlowCapture
            | Outcome::NoWebhook
            | Outcome::LateCapture
            | Outcome::DuplicateWebhooks
            | Outcome::ReorderedWebhooks
            | Outcome::TakenByShop
            | Outcome::SetAside
            | Outcome::RateLimited
            | Outcome::RefundOnItsWay
            | Outcome::Disputed
            | Outcome::WrongAmount
            | Outcome::TwoTabs
            | Outcome::AbandonedCart
            | Outcome::GivenUp
            | Outcome::RefundFailsOnce => {}
        }
        self.anything(random)
    }

    fn anything(&mut self, random: &mut StdRng) -> Option<Basket> {
        let mut lines: Vec<Line> = Vec::new();
        for _ in 0..random.random_range(1..=MOST_LINES) {
            let offered: Vec<&Line> = self
                .left
                .iter()
                .filter(|left| left.sku != LAPTOP && left.quantity > 0 && lines.iter().all(|line| line.sku != left.sku))
                .collect();
            if offered.is_empty() {
                break;
            }
            let chosen = offered[random.random_range(0..offered.len())];
            let wanted = line(&chosen.sku, random.random_range(1..=chosen.quantity.min(2)));
            self.take(&wanted.sku, wanted.quantity);
            lines.push(wanted);
        }
        (!lines.is_empty()).then_some(Basket { lines, total: None })
    }

    /// Besides those kept for the shoppers whose coupons are shown on laptops.
    fn has_spare_laptop(&self) -> bool {
        self.left.iter().any(|left| left.sku == LAPTOP && left.quantity > KEPT_LAPTOPS)
    }

    fn take(&mut self, sku: &str, quantity: u32) -> bool {
        match self.left.iter_mut().find(|left| left.sku == sku && left.quantity >= quantity) {
            Some(left) => {
                left.quantity -= quantity;
                true
            }
            None => false,
        }
    }
}

fn line(sku: &str, quantity: u32) -> Line {
    Line { sku: sku.to_owned(), quantity }
}

fn limited(single: bool) -> Basket {
    let wanted = if single { line(SINGLE, 1) } else { line(TEN, WANTED_OF_TEN) };
    Basket { lines: vec![wanted], total: None }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng as _;

    use super::{super::outcome::cast, super::storefront::Variant, *};

    fn variant(sku: &str, available_quantity: u32) -> Variant {
        Variant { sku: sku.to_owned(), available_quantity }
    }

    fn shop() -> Vec<Product> {
        vec![
            Product { variants: vec![variant("LAP-001", 100), variant("LAP-002", 40)] },
            Product { variants: vec![variant("LTD-001", 1)] },
            Product { variants: vec![variant("LTD-010", 10)] },
            Product { variants: vec![variant("TEA-100", 2000)] },
        ]
    }

    /// What all together want, by variant and by whether they shall get it.
    fn wanted(shoppers: usize) -> (BTreeMap<String, u32>, BTreeMap<String, u32>) {
        let mut random = StdRng::seed_from_u64(1);
        let mut shelf = Shelf::of(&shop());
        let mut wanted = (BTreeMap::new(), BTreeMap::new());
        for outcome in cast(shoppers, &mut random) {
            let basket = shelf.basket(outcome, &mut random).expect("stock");
            let side = if outcome == Outcome::SoldOut { &mut wanted.1 } else { &mut wanted.0 };
            for line in basket.lines {
                *side.entry(line.sku).or_default() += line.quantity;
            }
        }
        wanted
    }

    #[test]
    fn whoever_shall_get_something_finds_it() {
        for shoppers in [10, 50, 300, 600] {
            let (sold, _) = wanted(shoppers);
            for variant in shop().iter().flat_map(|product| &product.variants) {
                let sold = sold.get(&variant.sku).copied().unwrap_or_default();
                assert!(sold <= variant.available_quantity, "{shoppers} shoppers, {}: {sold}", variant.sku);
            }
        }
    }

    #[test]
    fn whoever_comes_too_late_wants_what_others_take_whole() {
        for shoppers in [36, 60, 300, 600] {
            let (sold, missed) = wanted(shoppers);
            assert!(!missed.is_empty());
            for sku in missed.keys() {
                let stock = if sku == SINGLE { 1 } else { 10 };
                assert_eq!(sold.get(sku), Some(&stock), "{shoppers} shoppers, {sku}");
            }
        }
    }

    #[test]
    fn an_empty_shelf_has_no_basket() {
        let mut shelf = Shelf::of(&[]);
        assert_eq!(shelf.basket(Outcome::Declined, &mut StdRng::seed_from_u64(1)), None);
    }
}
