//! Payments that the gateway has, looked for on our books: what is for an order of ours is compared with it;
//! what is for none is kept as if its webhook had come, and becomes the staff's if its order never does.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use domain::ports::{GatewayError, ListedPayment, PaymentGateway, PaymentPage, WebhookEvent, WebhookKind, Window};
use engine::{Call, CallContext, Dependency, RetryPolicy, Step, StepError, Tx, legible};
use serde::{Deserialize, Serialize};

use super::Reconciled;
use crate::{
    checkout::webhook,
    desk::dependency_of,
    rules::Reconciliation,
    store::reconciliation::{
        checks::{self, Pass},
        listings::{self, Place, Standing},
    },
};

/// How far back the first walk begins.
const FIRST: TimeDelta = TimeDelta::days(2);
/// Longest stretch of time listed at once.
const LONGEST: TimeDelta = TimeDelta::days(1);
/// Longest id or reference of a listed payment that is looked at, in characters: an index must hold it.
const MAX_TEXT_CHARS: usize = 255;
/// Shortest: time goes on while it is listed, and there would always be a little more.
const SHORTEST: TimeDelta = TimeDelta::minutes(1);

/// Which walk through the gateway's payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// When answers and webhooks have had their time.
    Settled,
    /// Once more a day later: money may come late.
    DayOld,
}

impl Listing {
    pub(super) const ALL: [Listing; 2] = [Listing::Settled, Listing::DayOld];

    /// As stored, and as metrics name it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Listing::Settled => "LISTED",
            Listing::DayOld => "LISTED_DAY_OLD",
        }
    }

    /// How old what is listed must be.
    pub(super) fn patience(self, rules: &Reconciliation) -> TimeDelta {
        match self {
            Listing::Settled => rules.patience(Pass::Settled),
            Listing::DayOld => rules.patience(Pass::DayOld),
        }
    }
}

/// Where to read on. The walk moves when what was listed has been looked for.
#[derive(Debug)]
pub(super) struct OpenListing<'a> {
    pub(super) name: &'a str,
    pub(super) listing: Listing,
    pub(super) rules: &'a Reconciliation,
}

impl Step for OpenListing<'_> {
    const NAME: &'static str = "OpenListing";
    type Output = Place;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Place, StepError> {
        let horizon = tx.now() - self.listing.patience(self.rules);
        let place = listings::place(tx.conn(), self.name, self.listing.as_str()).await?;
        Ok(match place {
            Some(place) if !place.window.is_empty() => place,
            seen => {
                let from = seen.as_ref().map_or(horizon - FIRST, |place| place.window.until);
                let until = if horizon - from < SHORTEST { from } else { horizon.min(from + LONGEST) };
                let place = Place { window: Window { from, until }, page: None };
                if seen.is_none() {
                    // From now on the lag tells, also with a gateway that never lists anything.
                    listings::move_on(tx.conn(), self.name, self.listing.as_str(), &place, &place).await?;
                }
                place
            }
        })
    }
}

/// What the gateway listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Listed {
    /// One page.
    Page(PaymentPage),
    /// It does not know the page it had named: the stretch is begun anew, by another run.
    Forgotten,
    /// Nothing; it is asked again by another run.
    Nothing,
    /// The same, and it is not known whether it is there.
    Silence,
}

/// One page of them.
pub(super) struct ListPayments<'a> {
    pub(super) place: &'a Place,
    pub(super) gateway: Option<&'a Arc<dyn PaymentGateway>>,
}

impl Call for ListPayments<'_> {
    const NAME: &'static str = "ListPayments";
    type Output = Listed;

    fn policy(&self) -> RetryPolicy {
        RetryPolicy { timeout: Duration::from_secs(30), ..RetryPolicy::default() }
    }

    fn dependency(&self) -> Option<Dependency> {
        dependency_of(self.gateway)
    }

    fn heard_in(&self, listed: &Listed) -> bool {
        match listed {
            Listed::Page(_) | Listed::Forgotten | Listed::Nothing => true,
            Listed::Silence => false,
        }
    }

    async fn run(&self, _: &CallContext) -> Result<Listed, StepError> {
        let Some(gateway) = self.gateway else { return Ok(Listed::Nothing) };
        match gateway.list(self.place.window, self.place.page.as_deref()).await {
            Ok(mut page) => {
                page.payments.iter_mut().for_each(clean);
                Ok(Listed::Page(page))
            }
            Err(error) => {
                // Seen in the lag, which grows until it lists again.
                tracing::warn!(gateway = gateway.name(), %error, "the gateway does not list its payments");
                Ok(match error {
                    GatewayError::Refused { .. } if self.place.page.is_some() => Listed::Forgotten,
                    GatewayError::Refused { .. }
                    | GatewayError::Busy { .. }
                    | GatewayError::NotNow { .. }
                    | GatewayError::Misconfigured(_) => Listed::Nothing,
                    GatewayError::Unknown(_) => Listed::Silence,
                })
            }
        }
    }
}

/// Anybody's payment at the same gateway is listed, with whatever they have put into it: what Postgres cannot
/// keep must not stop the walk.
fn clean(payment: &mut ListedPayment) {
    for text in [Some(&mut payment.gateway_payment_id), payment.reference.as_mut()].into_iter().flatten() {
        *text = legible(text).chars().take(MAX_TEXT_CHARS).collect();
    }
}

/// Looks for each on our books, and moves the walk, in one commit.
pub(super) struct MatchPayments<'a> {
    pub(super) name: &'a str,
    pub(super) listing: Listing,
    pub(super) place: &'a Place,
    /// None when the stretch is begun anew.
    pub(super) listed: Option<&'a PaymentPage>,
}

impl Step for MatchPayments<'_> {
    const NAME: &'static str = "MatchPayments";
    type Output = Reconciled;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Reconciled, StepError> {
        let mut sum = Reconciled::default();
        let payments = self.listed.map(|page| &*page.payments).unwrap_or_default();
        let standings = listings::standings(tx.conn(), payments).await?;
        for (payment, standing) in payments.iter().zip(standings) {
            match standing {
                Standing::Known => {}
                Standing::Unbooked(order_id) => {
                    checks::check_again(tx.conn(), order_id).await?;
                    sum.unbooked += 1;
                }
                Standing::Foreign if payment.took_nothing() => {}
                Standing::Foreign => {
                    let event = word(payment);
                    let raw = serde_json::to_value(payment).unwrap_or_default();
                    if webhook::keep(tx.conn(), self.name, &event, &raw).await?.is_some() {
                        tracing::warn!(
                            gateway = self.name,
                            payment = payment.gateway_payment_id,
                            "the gateway has taken money for no order of ours"
                        );
                        metrics::counter!("cart_engine_payment_mismatches_total", "kind" => "unknown-to-shop")
                            .increment(1);
                        sum.unbooked += 1;
                    }
                }
            }
        }
        let Window { from, until } = self.place.window;
        let to = match self.listed.map(|page| &page.next) {
            Some(Some(next)) => Place { window: Window { from, until }, page: Some(next.clone()) },
            Some(None) => Place { window: Window { from: until, until }, page: None },
            None => Place { window: Window { from, until }, page: None },
        };
        listings::move_on(tx.conn(), self.name, self.listing.as_str(), self.place, &to).await?;
        Ok(sum)
    }
}

/// As its webhook would have told of it.
fn word(payment: &ListedPayment) -> WebhookEvent {
    WebhookEvent {
        event_id: format!("listed/{}", payment.gateway_payment_id),
        kind: WebhookKind::PaymentCaptured,
        gateway_payment_id: payment.gateway_payment_id.clone(),
        order_id: payment.order_id,
        amount: payment.captured.clone(),
        failure: None,
        about: None,
        at: None,
    }
}
