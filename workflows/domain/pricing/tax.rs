//! Tax on a line.

use rust_decimal::{Decimal, RoundingStrategy};

use super::place::{Destination, same_country, same_state};
use crate::money::{Currency, round_half_away};

/// The tax of one line and the parts it is shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineTax {
    /// The whole tax.
    pub tax: Decimal,
    /// The central part, inside the seller's state.
    pub cgst: Decimal,
    /// The state's part, inside the seller's state.
    pub sgst: Decimal,
    /// The whole as one part, everywhere else.
    pub igst: Decimal,
}

/// How a shop's country taxes a line.
pub trait TaxStrategy: Send + Sync {
    /// The tax on `taxable`, what is left of a line after discounts, at the line's own `rate` in
    /// percent. Where it ships may change the parts, never the whole.
    fn tax(&self, taxable: Decimal, rate: Decimal, destination: Option<&Destination>) -> LineTax;
}

fn percentage(taxable: Decimal, rate: Decimal, currency: Currency) -> Decimal {
    round_half_away(taxable * rate / Decimal::ONE_HUNDRED, currency)
}

/// India's goods and services tax: round(taxable × rate) wherever the parcel goes; for a buyer in the
/// seller's state shown as CGST (the half, rounded down) and SGST (the rest), for everyone else, and
/// while the address is unknown, as IGST (IGST Act 2017, sections 7 and 8).
#[derive(Debug, Clone, PartialEq)]
pub struct GstTax {
    /// The currency to round to.
    pub currency: Currency,
    /// Where the seller is registered.
    pub seller: Destination,
}

impl TaxStrategy for GstTax {
    fn tax(&self, taxable: Decimal, rate: Decimal, destination: Option<&Destination>) -> LineTax {
        let zero = round_half_away(Decimal::ZERO, self.currency);
        let tax = percentage(taxable, rate, self.currency);
        let at_home = destination.is_some_and(|buyer| {
            same_country(&buyer.country, &self.seller.country) && same_state(&buyer.state, &self.seller.state)
        });
        if at_home {
            let half = tax / Decimal::TWO;
            let mut cgst = half.round_dp_with_strategy(self.currency.exponent(), RoundingStrategy::ToZero);
            cgst.rescale(self.currency.exponent());
            LineTax { tax, cgst, sgst: tax - cgst, igst: zero }
        } else {
            LineTax { tax, cgst: zero, sgst: zero, igst: tax }
        }
    }
}

/// One rate for everything, as sellers in other countries may need. It has no parts; the whole stands
/// where a single tax does.
#[derive(Debug, Clone, PartialEq)]
pub struct FlatRateTax {
    /// The currency to round to.
    pub currency: Currency,
    /// The rate in percent; a line's own rate is not looked at.
    pub rate: Decimal,
}

impl TaxStrategy for FlatRateTax {
    fn tax(&self, taxable: Decimal, _rate: Decimal, _destination: Option<&Destination>) -> LineTax {
        let zero = round_half_away(Decimal::ZERO, self.currency);
        let tax = percentage(taxable, self.rate.clamp(Decimal::ZERO, Decimal::ONE_HUNDRED), self.currency);
        LineTax { tax, cgst: zero, sgst: zero, igst: tax }
    }
}
