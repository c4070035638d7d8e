//! Amounts in a provider's own minor units.

use rust_decimal::Decimal;

/// An amount: so many of the provider's minor units, of which `10^exponent` make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    pub(crate) minor: i64,
    pub(crate) exponent: u32,
}

impl Amount {
    /// In major units.
    pub(crate) fn decimal(self) -> Decimal {
        Decimal::new(self.minor, self.exponent)
    }

    /// From major units; none if they are no whole number of minor ones.
    pub(crate) fn of(major: Decimal, exponent: u32) -> Option<Amount> {
        let mut minor = major.normalize();
        if minor.scale() > exponent {
            return None;
        }
        minor.rescale(exponent);
        Some(Amount { minor: i64::try_from(minor.mantissa()).ok()?, exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_read_in_minor_units_or_not_at_all() {
        let table = [("590.50", 2, Some(59_050)), ("590.5", 2, Some(59_050)), ("7", 0, Some(7)), ("7.5", 0, None)];
        for (text, exponent, minor) in table {
            let read = Amount::of(text.parse().expect("a number"), exponent);
            assert_eq!(read.map(|amount| amount.minor), minor, "{text}");
        }
        assert_eq!(Amount { minor: 59_050, exponent: 2 }.decimal().to_string(), "590.50");
    }
}
