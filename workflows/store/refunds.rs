//! `refunds`: what goes back of a payment is claimed first, under the locks of its order and payment, so
//! that Σ refunds never passes what was captured; then it is sent; then it is settled, or refused by the
//! gateway. What was refused stays claimed: it is owed until a person has paid it, or had it sent again.

pub mod held;
pub mod otherwise;

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    money::{Currency, Money, to_wire},
    order::OrderStatus,
    ports::{GatewayPayment, GatewayRefund, WebhookSubject},
    refund::RefundStatus,
};
use engine::{Failure, StepError};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::orders;

/// Who had money go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Shop,
    /// Somebody on the gateway's own site.
    Gateway,
    /// The shopper's bank, which took it.
    Bank,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Origin::Shop => "SHOP",
            Origin::Gateway => "GATEWAY",
            Origin::Bank => "BANK",
        }
    }

    /// Why, where nobody at the shop can say.
    fn reason(self) -> &'static str {
        match self {
            Origin::Shop => "given back by the shop",
            Origin::Gateway => "made at the gateway",
            Origin::Bank => "taken by the shopper's bank",
        }
    }
}

/// What is claimed.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    /// Of which payment; of cash, for none.
    gateway_payment_id: Option<&'a str>,
    amount: Decimal,
    /// It is besides what pays for the order.
    is_extra: bool,
    origin: Origin,
    /// Somebody has been promised it.
    is_owed: bool,
}

/// A refund that has been claimed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DueRefund {
    /// Our id of it.
    pub refund_id: Uuid,
    /// The gateway's payment it takes back; none for cash, which is paid back by hand.
    pub gateway_payment_id: Option<String>,
    /// How much, in major units of `currency`.
    pub amount: Decimal,
    /// Of what.
    pub currency: Currency,
}

/// Who claims, of which order, and why.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The run that sends it; it claims once.
    pub run_id: Uuid,
    /// The order.
    pub order_id: OrderId,
    /// Why, for people.
    pub reason: &'a str,
    /// What it is for besides the order, e.g. a return.
    pub reference: Option<&'a str>,
}

/// Why nothing was claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// There is no such order.
    #[error("there is no such order")]
    OrderNotFound,
    /// Nothing has been captured for it.
    #[error("nothing has been captured for this order")]
    NothingCaptured,
    /// It is more than what has been captured and is not going back already.
    #[error("only {} {} of this payment is left to refund", .left.amount(), .left.currency())]
    ExceedsCaptured {
        /// What may still be refunded.
        left: Money,
    },
    /// All of it is promised to the order's cancellation.
    #[error("the order is being cancelled: all of its money goes back with that")]
    BeingCancelled,
    /// It is nothing, or less, or has more digits than the order's currency.
    #[error("this is no amount of the order's currency")]
    NotPayable,
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

impl ClaimError {
    /// Stable, kebab-case.
    pub fn code(&self) -> &'static str {
        match self {
            ClaimError::OrderNotFound => "order-not-found",
            ClaimError::NothingCaptured => "nothing-captured",
            ClaimError::ExceedsCaptured { .. } => "refund-exceeds-captured",
            ClaimError::BeingCancelled => "order-being-cancelled",
            ClaimError::NotPayable => "amount-invalid",
            ClaimError::Database(_) => "database",
        }
    }
}

impl From<ClaimError> for StepError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Database(error) => error.into(),
            ClaimError::OrderNotFound
            | ClaimError::NothingCaptured
            | ClaimError::ExceedsCaptured { .. }
            | ClaimError::BeingCancelled
            | ClaimError::NotPayable => Failure::new(error.code(), &error).into(),
        }
    }
}

struct Locked {
    payment_id: i64,
    /// The payment the order stands for; others are extra. None while it stands for nothing.
    paid_by: Option<String>,
    is_live: bool,
    gateway_payment_id: Option<String>,
    /// Paid on delivery. A payment without an id need not be: its checkout may have given up before
    /// it had written the gateway's answer down.
    is_cash: bool,
    captured: Decimal,
    currency: Currency,
}

impl Locked {
    /// It pays for the order, or did.
    fn stands_for(&self, gateway_payment_id: &str) -> bool {
        self.paid_by.as_deref().or(self.gateway_payment_id.as_deref()) == Some(gateway_payment_id)
    }

    fn part<'a>(&self, gateway_payment_id: Option<&'a str>, amount: Decimal, origin: Origin) -> Part<'a> {
        let is_extra = self.is_live && self.paid_by.as_deref() != gateway_payment_id;
        // What went back without us was promised to nobody, unless it takes the place of what was.
        Part { gateway_payment_id, amount, is_extra, origin, is_owed: origin == Origin::Shop }
    }
}

/// The order before its payment, as everybody takes them. In statements of their own: what the order
/// lock's last holder wrote is visible to no earlier one.
async fn lock(conn: &mut PgConnection, order_id: OrderId) -> Result<Option<Locked>, sqlx::Error> {
    let order_id = Uuid::from(order_id);
    let Some(order) =
        sqlx::query!("select order_status, payment_id from orders where id = $1 for no key update", order_id)
            .fetch_optional(&mut *conn)
            .await?
    else {
        return Ok(None);
    };
    let payment = sqlx::query!(
        r#"select id, gateway_payment_id, payment_method = 'COD' as "is_cash!", captured_amount, currency
             from payments where order_id = $1 for no key update"#,
        order_id
    )
    .fetch_one(conn)
    .await?;
    Ok(Some(Locked {
        payment_id: payment.id,
        // A PENDING order that is refunded belongs to a run that unwinds: it is CANCELLED in a moment.
        is_live: order.order_status != "CANCELLED" && order.order_status != "PENDING",
        paid_by: order.payment_id,
        gateway_payment_id: payment.gateway_payment_id,
        is_cash: payment.is_cash,
        captured: payment.captured_amount,
        currency: payment.currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
    }))
}

/// What is going back, or has gone, of one of an order's payments; of its cash, for `None`.
async fn claimed(
    conn: &mut PgConnection,
    payment_id: i64,
    gateway_payment_id: Option<&str>,
) -> Result<Decimal, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select coalesce(sum(amount), 0) as "sum!" from refunds
            where payment_id = $1 and gateway_payment_id is not distinct from $2"#,
        payment_id,
        gateway_payment_id
    )
    .fetch_one(conn)
    .await
}

/// What nobody has claimed of what was captured, whichever payment it goes back to: one that its checkout never noted
/// has no id here.
async fn left(conn: &mut PgConnection, order: &Locked) -> Result<Decimal, sqlx::Error> {
    let claimed = sqlx::query_scalar!(
        r#"select coalesce(sum(amount), 0) as "sum!" from refunds
            where payment_id = $1 and not is_extra"#,
        order.payment_id
    )
    .fetch_one(conn)
    .await?;
    Ok(order.captured - claimed)
}

/// How much of a refund of the gateway's is booked.
async fn booked_as(conn: &mut PgConnection, order: &Locked, gateway_refund_id: &str) -> Result<Decimal, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select coalesce(sum(amount), 0) as "sum!" from refunds where payment_id = $1 and gateway_refund_id = $2"#,
        order.payment_id,
        gateway_refund_id
    )
    .fetch_one(conn)
    .await
}

async fn insert(
    conn: &mut PgConnection,
    claim: Claim<'_>,
    order: &Locked,
    Part { gateway_payment_id, amount, is_extra, origin, is_owed }: Part<'_>,
    now: DateTime<Utc>,
) -> Result<DueRefund, sqlx::Error> {
    let refund_id = Uuid::now_v7();
    sqlx::query!(
        "insert into refunds (id, payment_id, run_id, gateway_payment_id, amount, currency, reason, reference, by_hand,
                              is_extra, origin, is_owed, status, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $10, $6, $7, $4::text is null, $8, $11, $12, 'PENDING', $9, $9)",
        refund_id,
        order.payment_id,
        claim.run_id,
        gateway_payment_id,
        amount,
        claim.reason,
        claim.reference,
        is_extra,
        now,
        order.currency.as_str(),
        origin.as_str(),
        is_owed
    )
    .execute(conn)
    .await?;
    Ok(DueRefund {
        refund_id,
        gateway_payment_id: gateway_payment_id.map(str::to_owned),
        amount,
        currency: order.currency,
    })
}

/// Takes note of everything the gateway has captured for an order, and claims what the order does not
/// stand for: all of it when the order is not to be had; when it is, whatever was captured besides the
/// payment that confirmed it.
///
/// # Errors
/// The database's own. An order that does not exist has nothing to claim.
pub async fn claim_everything(
    conn: &mut PgConnection,
    claim: Claim<'_>,
    payments: &[GatewayPayment],
    now: DateTime<Utc>,
) -> Result<Vec<DueRefund>, sqlx::Error> {
    let Some(order) = lock(conn, claim.order_id).await? else { return Ok(Vec::new()) };
    let mut due = Vec::new();
    let stands_for =
        |found: &GatewayPayment| order.is_live && order.paid_by.as_ref() == Some(&found.gateway_payment_id);
    for found in payments.iter().filter(|found| !stands_for(found)) {
        let amount = found.captured - claimed(conn, order.payment_id, Some(&found.gateway_payment_id)).await?;
        if amount > Decimal::ZERO {
            let part = order.part(Some(&found.gateway_payment_id), amount, Origin::Shop);
            due.push(insert(conn, claim, &order, part, now).await?);
        }
    }
    if order.is_live {
        return Ok(due);
    }
    if order.is_cash && order.captured > Decimal::ZERO {
        let amount = order.captured - claimed(conn, order.payment_id, None).await?;
        if amount > Decimal::ZERO {
            due.push(insert(conn, claim, &order, order.part(None, amount, Origin::Shop), now).await?);
        }
    }
    sqlx::query!(
        "with extra as (
            select coalesce(sum(amount), 0) as amount from refunds
             where payment_id = $1 and is_extra),
         payment as (
            update payments p
               set captured_amount = $2 - e.amount, updated_at = $3,
                   payment_status = case when refund_amount > 0 then payment_status else 'CAPTURED' end
              from extra e
             where p.id = $1 and $2 - e.amount > p.captured_amount
            returning order_id, payment_status)
         update orders o set payment_status = p.payment_status, updated_at = $3 from payment p where o.id = p.order_id",
        order.payment_id,
        payments.iter().map(|payment| payment.captured).sum::<Decimal>(),
        now
    )
    .execute(conn)
    .await?;
    Ok(due)
}

/// Claims a part of the payment that pays for an order, or of the cash that did.
///
/// # Errors
/// [`ClaimError::ExceedsCaptured`] when less is left than `amount` (in major units of the order's
/// currency), [`ClaimError::NothingCaptured`], [`ClaimError::NotPayable`], [`ClaimError::OrderNotFound`];
/// nothing is written then.
pub async fn claim_amount(
    conn: &mut PgConnection,
    claim: Claim<'_>,
    amount: Decimal,
    now: DateTime<Utc>,
) -> Result<DueRefund, ClaimError> {
    // A PENDING order's checkout takes the payment before the order: it is not to be met half-way.
    match orders::lock(conn, claim.order_id).await? {
        None => return Err(ClaimError::OrderNotFound),
        Some(order) if order.status == OrderStatus::Pending => return Err(ClaimError::NothingCaptured),
        Some(_) => {}
    }
    let order = lock(conn, claim.order_id).await?.ok_or(ClaimError::OrderNotFound)?;
    if order.captured <= Decimal::ZERO {
        return Err(ClaimError::NothingCaptured);
    }
    if amount <= Decimal::ZERO || Money::rounded(amount, order.currency).amount() != amount {
        return Err(ClaimError::NotPayable);
    }
    let paid_by = order.paid_by.as_deref().or(order.gateway_payment_id.as_deref());
    let left = left(&mut *conn, &order).await?;
    if amount > left {
        return Err(ClaimError::ExceedsCaptured { left: Money::rounded(left, order.currency) });
    }
    Ok(insert(conn, claim, &order, order.part(paid_by, amount, Origin::Shop), now).await?)
}

/// What a run has claimed and not settled, in the order it claimed.
///
/// # Errors
/// The database's own.
pub async fn claims_of(conn: &mut PgConnection, run_id: Uuid) -> Result<Vec<DueRefund>, sqlx::Error> {
    let rows = sqlx::query!(
        "select r.id, r.gateway_payment_id, r.amount, p.currency
           from refunds r join payments p on p.id = r.payment_id
          where r.run_id = $1 and r.status = 'PENDING' order by r.id",
        run_id
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(DueRefund {
                refund_id: row.id,
                gateway_payment_id: row.gateway_payment_id,
                amount: row.amount,
                currency: row.currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            })
        })
        .collect()
}

/// The gateway has a refund in hand, and says later how it ends.
///
/// # Errors
/// The database's own.
pub async fn note_sent(
    conn: &mut PgConnection,
    sent: &[(Uuid, &GatewayRefund)],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let (ids, theirs): (Vec<Uuid>, Vec<&str>) =
        sent.iter().map(|(refund_id, sent)| (*refund_id, sent.gateway_refund_id.as_str())).unzip();
    sqlx::query!(
        "update refunds r set gateway_refund_id = s.theirs, updated_at = $3
           from unnest($1::uuid[], $2::text[]) as s(id, theirs) where r.id = s.id and r.status = 'PENDING'",
        &ids,
        &theirs as &[&str],
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Which of these orders have any.
///
/// # Errors
/// The database's own.
pub async fn orders_with(conn: &mut PgConnection, orders: &[OrderId]) -> Result<HashSet<OrderId>, sqlx::Error> {
    let orders: Vec<Uuid> = orders.iter().copied().map(Uuid::from).collect();
    let found = sqlx::query_scalar!(
        "select distinct p.order_id from refunds r join payments p on p.id = r.payment_id where p.order_id = any($1)",
        &orders
    )
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(OrderId::from).collect())
}

/// A refund of ours that a gateway speaks of.
#[derive(Debug, Clone, Copy)]
pub struct OwnRefund {
    /// Our id of it.
    pub refund_id: Uuid,
    /// The run that sends it.
    pub run_id: Uuid,
    /// Where it stands.
    pub status: RefundStatus,
    /// Its run knows that the gateway has it in hand.
    pub is_noted: bool,
    /// Somebody has made it at the gateway.
    pub is_elsewhere: bool,
    /// The gateway speaks of the refund by which it is settled, or to be: not of one before it.
    pub is_latest: bool,
}

/// Which of an order's refunds a gateway speaks of: by our id of it, or by its own.
///
/// # Errors
/// The database's own.
pub async fn of_gateway(
    conn: &mut PgConnection,
    order_id: OrderId,
    about: &WebhookSubject,
) -> Result<Option<OwnRefund>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select r.id, r.run_id, r.status, r.gateway_refund_id is not null as "is_noted!",
                  r.origin = 'GATEWAY' as "is_elsewhere!",
                  r.gateway_refund_id is not distinct from $3 as "is_latest!"
             from refunds r join payments p on p.id = r.payment_id
            where p.order_id = $1 and (r.id = $2 or r.gateway_refund_id = $3)
            order by r.id limit 1"#,
        Uuid::from(order_id),
        about.refund_id,
        about.gateway_id
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let status = row.status.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let (is_noted, is_elsewhere, is_latest) = (row.is_noted, row.is_elsewhere, row.is_latest);
        Ok(OwnRefund { refund_id: row.id, run_id: row.run_id, status, is_noted, is_elsewhere, is_latest })
    })
    .transpose()
}

/// A refund that somebody has made at the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere<'a> {
    /// The order.
    pub order_id: OrderId,
    /// The gateway's id of the payment.
    pub gateway_payment_id: &'a str,
    /// The gateway's id of the refund.
    pub gateway_refund_id: &'a str,
    /// How much has gone back.
    pub amount: &'a Money,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Booking {
    /// It is booked as this.
    Booked(DueRefund),
    /// It was booked before.
    Known,
    /// It is more than is left, in another currency, or of a payment that the order does not stand for.
    DoesNotFit,
}

/// Books a refund that was not sent by us: claimed and settled at once.
///
/// # Errors
/// The database's own.
pub async fn book_elsewhere(
    conn: &mut PgConnection,
    elsewhere: Elsewhere<'_>,
    now: DateTime<Utc>,
) -> Result<Booking, sqlx::Error> {
    let Elsewhere { order_id, gateway_payment_id, gateway_refund_id, amount } = elsewhere;
    let Some(order) = lock(&mut *conn, order_id).await? else { return Ok(Booking::DoesNotFit) };
    // Whoever had the lock may have booked it, or a part of it in place of a refund of ours.
    let rest = amount.amount() - booked_as(&mut *conn, &order, gateway_refund_id).await?;
    if rest <= Decimal::ZERO {
        return Ok(Booking::Known);
    }
    let is_own = order.gateway_payment_id.as_deref() == Some(gateway_payment_id);
    if !is_own || amount.currency() != order.currency || rest > left(&mut *conn, &order).await? {
        return Ok(Booking::DoesNotFit);
    }
    // No run sends it.
    let part = order.part(Some(gateway_payment_id), rest, Origin::Gateway);
    let claim = Claim { run_id: Uuid::now_v7(), order_id, reason: part.origin.reason(), reference: None };
    let due = insert(&mut *conn, claim, &order, part, now).await?;
    settle(conn, order_id, &due, PaidBack::ByGateway(gateway_refund_id), now).await?;
    Ok(Booking::Booked(due))
}

/// How the money of a refund went back.
#[derive(Debug, Clone, Copy)]
pub enum PaidBack<'a> {
    /// By the gateway, which has this id for it.
    ByGateway(&'a str),
    /// By the shopper's bank, which has taken it.
    ByBank,
    /// By hand, as cash always is.
    InCash,
    /// By hand, because the gateway had refused to.
    Instead,
}

impl PaidBack<'_> {
    /// Where the refund stood.
    fn from(self) -> RefundStatus {
        match self {
            PaidBack::ByGateway(_) | PaidBack::ByBank | PaidBack::InCash => RefundStatus::Pending,
            PaidBack::Instead => RefundStatus::Failed,
        }
    }
}

/// A refund has gone through: → SUCCEEDED, once, and the payment, the order and an event follow. False when
/// it did not stand where it would have to.
///
/// # Errors
/// The database's own.
pub async fn settle(
    conn: &mut PgConnection,
    order_id: OrderId,
    refund: &DueRefund,
    paid: PaidBack<'_>,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let sent = match paid {
        PaidBack::ByGateway(theirs) => Some(theirs),
        PaidBack::ByBank | PaidBack::InCash | PaidBack::Instead => None,
    };
    let settled = sqlx::query!(
        "with locked as materialized (
            -- The order before its payment, as everybody takes them.
            select id from orders where id = $1 for no key update),
         settled as (
            update refunds set status = 'SUCCEEDED', gateway_refund_id = $3, by_hand = $3::text is null, updated_at = $4
             where id = $2 and status = $6 and exists (select from locked)
            returning payment_id, amount, is_extra, by_hand),
         payment as (
            update payments p
               set refund_amount = p.refund_amount + s.amount, refunded_at = $4, updated_at = $4,
                   payment_status = case when p.refund_amount + s.amount >= p.captured_amount
                                         then 'REFUNDED' else 'PARTIALLY_REFUNDED' end
              from settled s where p.id = s.payment_id and not s.is_extra
            returning p.order_id, p.payment_status),
         followed as (
            update orders o set payment_status = p.payment_status, updated_at = $4 from payment p where o.id = p.order_id)
         insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         select gen_random_uuid(), 'payment.refunded', p.order_id::text,
                jsonb_build_object('orderId', p.order_id, 'refundId', $2::uuid, 'amount', $5::text,
                                   'currency', p.currency, 'byHand', s.by_hand), $4
           from settled s join payments p on p.id = s.payment_id",
        Uuid::from(order_id),
        refund.refund_id,
        sent,
        now,
        to_wire(refund.amount, refund.currency),
        paid.from().as_str()
    )
    .execute(conn)
    .await?;
    Ok(settled.rows_affected() == 1)
}

/// Refunds of a payment that have not arrived, with the runs that send them: PENDING or FAILED.
///
/// # Errors
/// The database's own.
pub async fn unsettled(
    conn: &mut PgConnection,
    order_id: OrderId,
    gateway_payment_id: &str,
) -> Result<Vec<(Uuid, Uuid, RefundStatus)>, sqlx::Error> {
    let rows = sqlx::query!(
        "select r.id, r.run_id, r.status
           from refunds r join payments p on p.id = r.payment_id
          where p.order_id = $1 and r.gateway_payment_id = $2 and r.status <> 'SUCCEEDED' order by r.id",
        Uuid::from(order_id),
        gateway_payment_id
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| Ok((row.id, row.run_id, row.status.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?)))
        .collect()
}

/// The gateway has refused a refund: PENDING → FAILED, and an event. Its amount stays claimed.
///
/// # Errors
/// The database's own.
pub async fn fail(
    conn: &mut PgConnection,
    order_id: OrderId,
    refund: &DueRefund,
    why: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with failed as (
            update refunds set status = 'FAILED', failure = $3, updated_at = $4
             where id = $2 and status = 'PENDING'
            returning id)
         insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         select gen_random_uuid(), 'refund.failed', $1::uuid::text,
                jsonb_build_object('orderId', $1::uuid, 'refundId', id, 'amount', $5::text, 'currency', $6::text,
                                   'reason', $3::text), $4
           from failed",
        Uuid::from(order_id),
        refund.refund_id,
        why,
        now,
        to_wire(refund.amount, refund.currency),
        refund.currency.as_str()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What was refused is to be sent again: FAILED → PENDING. False when it had
/// not been refused. The caller holds the order.
///
/// # Errors
/// The database's own.
pub async fn reopen(conn: &mut PgConnection, refund_id: Uuid, now: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    let reopened = sqlx::query!(
        "update refunds set status = 'PENDING', gateway_refund_id = null, updated_at = $2
          where id = $1 and status = 'FAILED'",
        refund_id,
        now
    )
    .execute(conn)
    .await?;
    Ok(reopened.rows_affected() == 1)
}
