//! A refund of ours over the payments that an order was paid by. Nearly always that is one. Where a customer has
//! paid one order twice, what goes back may be more than either payment took, and is sent in parts.

use domain::ports::{GatewayError, GatewayRefund, GatewayRefundStatus, ListedRefund};
use serde::Deserialize;

use super::money;
use super::objects::Payment;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Refund {
    pub(super) id: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) receipt: Option<String>,
    status: RefundStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RefundStatus {
    Pending,
    Processed,
    Failed,
}

impl RefundStatus {
    fn read(self) -> GatewayRefundStatus {
        match self {
            RefundStatus::Pending => GatewayRefundStatus::Pending,
            RefundStatus::Processed => GatewayRefundStatus::Succeeded,
            RefundStatus::Failed => GatewayRefundStatus::Failed,
        }
    }
}

impl Refund {
    /// As the port lists it; none in a currency that nobody knows.
    pub(super) fn listed(self) -> Option<ListedRefund> {
        let refund_id = self.receipt.as_deref().and_then(|receipt| receipt.parse().ok());
        let (amount, status) = (money::from_minor_units(self.amount, &self.currency).ok()?, self.status.read());
        let failure = (status == GatewayRefundStatus::Failed).then(|| "the refund failed".to_owned());
        Some(ListedRefund { refund_id, refund: GatewayRefund { gateway_refund_id: self.id, amount, status, failure } })
    }
}

/// What was made for one refund of ours, at every payment of its order.
pub(super) struct Parts(pub(super) Vec<Refund>);

impl Parts {
    /// What is still to be sent for all of `asked` to go back. What has failed did not go.
    pub(super) fn due(&self, asked: i64) -> i64 {
        let sent = self.0.iter().filter(|part| part.status != RefundStatus::Failed).map(|part| part.amount);
        asked - sent.sum::<i64>()
    }

    /// As the port has it: none while not all of `asked` was sent, unless a part has failed. Parts that were
    /// replaced by others are of no interest.
    pub(super) fn read(&self, asked: i64) -> Result<Option<GatewayRefund>, GatewayError> {
        let is_failed = self.due(asked) > 0;
        let mut parts = self.0.iter().filter(|part| (part.status == RefundStatus::Failed) == is_failed);
        let Some(first) = parts.next() else { return Ok(None) };
        let is_pending = std::iter::once(first).chain(parts).any(|part| part.status == RefundStatus::Pending);
        Ok(Some(GatewayRefund {
            gateway_refund_id: first.id.clone(),
            amount: money::from_minor_units(asked, &first.currency)?,
            status: if is_pending { GatewayRefundStatus::Pending } else { first.status.read() },
            failure: is_failed.then(|| "the refund failed".to_owned()),
        }))
    }
}

/// How `due` is spread over `payments`: all of it over the first that has so much left, else over as many as it
/// takes. None when they have not so much together.
pub(super) fn shares(payments: &[Payment], due: i64) -> Option<Vec<(&Payment, i64)>> {
    if let Some(payment) = payments.iter().find(|payment| payment.left() >= due) {
        return Some(vec![(payment, due)]);
    }
    let mut rest = due;
    let mut shares = Vec::new();
    for payment in payments.iter().filter(|payment| payment.left() > 0) {
        let share = payment.left().min(rest);
        rest -= share;
        shares.push((payment, share));
        if rest == 0 {
            return Some(shares);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parts(parts: &[(i64, &str)]) -> Parts {
        let part = |(at, (amount, status)): (usize, &(i64, &str))| {
            serde_json::from_value(json!({
                "id": format!("rfnd_{at}"), "entity": "refund", "amount": amount, "currency": "INR", "payment_id": "pay_1",
                "receipt": null, "status": status, "created_at": 1, "notes": [], "batch_id": null,
            }))
            .unwrap()
        };
        Parts(parts.iter().enumerate().map(part).collect())
    }

    #[test]
    fn the_parts_together_say_where_a_refund_stands() {
        use GatewayRefundStatus::{Failed, Pending, Succeeded};
        for (made, expected) in [
            (&[][..], None),
            (&[(100, "pending")], Some(("rfnd_0", Pending))),
            (&[(100, "processed")], Some(("rfnd_0", Succeeded))),
            (&[(100, "failed")], Some(("rfnd_0", Failed))),
            // Sent once more after it had failed.
            (&[(100, "failed"), (100, "pending")], Some(("rfnd_1", Pending))),
            (&[(60, "processed"), (40, "processed")], Some(("rfnd_0", Succeeded))),
            (&[(60, "processed"), (40, "pending")], Some(("rfnd_0", Pending))),
            (&[(60, "processed"), (40, "failed")], Some(("rfnd_1", Failed))),
            // The answer to the second part was lost on its way there.
            (&[(60, "processed")], None),
        ] {
            let read = parts(made).read(100).unwrap();
            let seen = read.as_ref().map(|read| (read.gateway_refund_id.as_str(), read.status));
            assert_eq!(seen, expected, "{made:?}");
            assert_eq!(
                read.is_some_and(|read| read.failure.is_some()),
                matches!(expected, Some((_, Failed))),
                "{made:?}"
            );
        }
        let strange = json!({ "id": "rfnd_1", "amount": 1, "currency": "INR", "status": "reversed" });
        assert!(serde_json::from_value::<Refund>(strange).is_err());
    }

    #[test]
    fn a_refund_is_spread_only_where_it_must_be() {
        let payments = [("pay_1", 100, 70), ("pay_2", 100, 0), ("pay_3", 50, 0)].map(|(id, amount, refunded)| {
            serde_json::from_value::<Payment>(json!({
                "id": id, "amount": amount, "currency": "INR", "status": "captured", "captured": true,
                "amount_refunded": refunded, "created_at": 1,
            }))
            .unwrap()
        });
        let spread = |due| {
            shares(&payments, due)
                .map(|shares| shares.iter().map(|(of, share)| (of.id.as_str(), *share)).collect::<Vec<_>>())
        };
        assert_eq!(spread(30), Some(vec![("pay_1", 30)]));
        assert_eq!(spread(31), Some(vec![("pay_2", 31)]));
        assert_eq!(spread(101), Some(vec![("pay_1", 30), ("pay_2", 71)]));
        assert_eq!(spread(180), Some(vec![("pay_1", 30), ("pay_2", 100), ("pay_3", 50)]));
        assert_eq!(spread(181), None);
    }
}
