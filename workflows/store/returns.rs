//! `returns`, `return_items`: goods that come back. Whoever writes here has locked the order.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::{
    ids::{OrderId, VariantId},
    money::Currency,
    returns::ReturnStatus,
};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

/// A line of an order, and how much of it may still be returned.
#[derive(Debug, Clone)]
pub struct Returnable {
    /// The order's line.
    pub order_item_id: Uuid,
    /// What is in it.
    pub variant_id: Uuid,
    /// Its SKU when it was ordered.
    pub sku: String,
    /// Pieces the customer got that are in no return, or in one that was rejected.
    pub left: i32,
}

/// A return.
#[derive(Debug, Clone)]
pub struct ReturnHead {
    /// Its id.
    pub id: Uuid,
    /// The order whose goods come back.
    pub order_id: OrderId,
    /// The run that settles it.
    pub run_id: Uuid,
    /// Where it stands.
    pub status: ReturnStatus,
    /// Why, in the customer's words.
    pub reason: String,
    /// What the staff said.
    pub note: Option<String>,
    /// What goes back, in major units of the order's currency, once the goods are here.
    pub refund_amount: Option<Decimal>,
    /// Of the amount.
    pub currency: Currency,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Lines in it, and how many pieces of each.
    pub items: Vec<(Uuid, i32)>,
}

/// Every line of an order, with the pieces that may still be returned. Of an order with parcels that is what
/// was in those that arrived; one without was handed over whole, but for what was called off.
///
/// # Errors
/// The database's own.
pub async fn returnable(conn: &mut PgConnection, order_id: OrderId) -> Result<Vec<Returnable>, sqlx::Error> {
    sqlx::query_as!(
        Returnable,
        r#"select i.id as order_item_id, i.variant_id, i.sku,
                  (least(i.quantity - i.called_off, d.quantity)
                   - coalesce(sum(p.quantity) filter (where r.status <> 'REJECTED'), 0))::int as "left!"
             from order_items i
            cross join lateral (
                  select case when count(s.id) > 0
                              then coalesce(sum(c.quantity) filter (where s.delivered_at is not null), 0) end as quantity
                    from shipments s
                    left join shipment_items c on c.shipment_id = s.id and c.order_item_id = i.id
                   where s.order_id = i.order_id) d
             left join return_items p on p.order_item_id = i.id
             left join returns r on r.id = p.return_id
            where i.order_id = $1 group by i.id, d.quantity order by i.id"#,
        Uuid::from(order_id)
    )
    .fetch_all(conn)
    .await
}

/// Writes down what is asked for.
///
/// # Errors
/// The database's own.
pub async fn insert(
    conn: &mut PgConnection,
    id: Uuid,
    order_id: OrderId,
    run_id: Uuid,
    reason: &str,
    items: &[(Uuid, i32)],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let lines: Vec<Uuid> = items.iter().map(|(line, _)| *line).collect();
    let quantities: Vec<i32> = items.iter().map(|(_, quantity)| *quantity).collect();
    sqlx::query!(
        "with asked as (
            insert into returns (id, order_id, status, reason, run_id, created_at, updated_at)
            values ($1, $2, 'REQUESTED', $3, $4, $5, $5)
            returning id)
         insert into return_items (return_id, order_item_id, quantity)
         select a.id, i.line, i.quantity from asked a, unnest($6::uuid[], $7::int[]) as i(line, quantity)",
        id,
        Uuid::from(order_id),
        reason,
        run_id,
        now,
        &lines,
        &quantities
    )
    .execute(conn)
    .await?;
    Ok(())
}

macro_rules! heads {
    ($conn:expr, $filter:literal, $argument:expr) => {{
        let rows = sqlx::query!(
            r#"select r.id, r.order_id, r.run_id as "run_id!", r.status, r.reason, r.note, r.refund_amount,
                      o.currency as "currency!", r.created_at, r.updated_at, i.order_item_id, i.quantity
                 from returns r join orders o on o.id = r.order_id join return_items i on i.return_id = r.id
                where "#
                + $filter
                + " order by r.id, i.order_item_id",
            $argument
        )
        .fetch_all($conn)
        .await?;
        let mut heads: BTreeMap<Uuid, ReturnHead> = BTreeMap::new();
        for row in rows {
            let item = (row.order_item_id, row.quantity);
            if let Some(known) = heads.get_mut(&row.id) {
                known.items.push(item);
                continue;
            }
            let head = ReturnHead {
                id: row.id,
                order_id: row.order_id.into(),
                run_id: row.run_id,
                status: row.status.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
                reason: row.reason,
                note: row.note,
                refund_amount: row.refund_amount,
                currency: row.currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
                created_at: row.created_at,
                updated_at: row.updated_at,
                items: vec![item],
            };
            heads.insert(row.id, head);
        }
        Ok(heads.into_values())
    }};
}

/// One return.
///
/// # Errors
/// The database's own.
pub async fn find(conn: &mut PgConnection, id: Uuid) -> Result<Option<ReturnHead>, sqlx::Error> {
    let found: Result<_, sqlx::Error> = heads!(conn, "r.id = $1", id);
    Ok(found?.next())
}

/// The returns of an order, oldest first. An order has few: each takes a piece that no other has.
///
/// # Errors
/// The database's own.
pub async fn of_order(conn: &mut PgConnection, order_id: OrderId) -> Result<Vec<ReturnHead>, sqlx::Error> {
    let found: Result<_, sqlx::Error> = heads!(conn, "r.order_id = $1", Uuid::from(order_id));
    Ok(found?.collect())
}

/// Moves a return that still stands where it is expected to; false if it does not.
///
/// # Errors
/// The database's own.
pub async fn move_to(
    conn: &mut PgConnection,
    id: Uuid,
    from: ReturnStatus,
    to: ReturnStatus,
    note: Option<&str>,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query!(
        "update returns set status = $3, note = coalesce($4, note), updated_at = $5 where id = $1 and status = $2",
        id,
        from.as_str(),
        to.as_str(),
        note,
        now
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(moved == 1)
}

/// Some pieces of one line that came back, and what the line was sold for.
#[derive(Debug, Clone)]
pub struct ReturnedLine {
    /// The order's line.
    pub order_item_id: Uuid,
    /// What is in it.
    pub variant_id: VariantId,
    /// Pieces that came back now.
    pub returned: i32,
    /// Pieces whose worth was settled before: called off, or returned.
    pub before: i32,
    /// Pieces that were sold.
    pub quantity: i32,
    /// What they cost together, in major units.
    pub total_price: Decimal,
}

/// The lines of a return, in variant order.
///
/// # Errors
/// The database's own.
pub async fn lines(conn: &mut PgConnection, return_id: Uuid) -> Result<Vec<ReturnedLine>, sqlx::Error> {
    sqlx::query_as!(
        ReturnedLine,
        r#"select i.id as order_item_id, i.variant_id, p.quantity as returned, i.quantity, i.total_price,
                  i.called_off + (select coalesce(sum(e.quantity), 0)::int from return_items e
                    where e.order_item_id = i.id and e.refund_amount is not null and e.return_id <> $1) as "before!"
             from return_items p join order_items i on i.id = p.order_item_id
            where p.return_id = $1 order by i.variant_id"#,
        return_id
    )
    .fetch_all(conn)
    .await
}

/// A line of an order, what it was sold for, and how many of its pieces are settled: called off, or returned.
#[derive(Debug, Clone)]
pub struct Priced {
    /// The order's line.
    pub order_item_id: Uuid,
    /// What is in it.
    pub variant_id: VariantId,
    /// Pieces that were sold.
    pub quantity: i32,
    /// What they cost together, in major units.
    pub total_price: Decimal,
    /// Pieces whose worth was settled before.
    pub settled: i32,
}

/// Every line of an order with its price.
///
/// # Errors
/// The database's own.
pub async fn priced(conn: &mut PgConnection, order_id: OrderId) -> Result<Vec<Priced>, sqlx::Error> {
    sqlx::query_as!(
        Priced,
        r#"select i.id as order_item_id, i.variant_id, i.quantity, i.total_price,
                  i.called_off + (select coalesce(sum(e.quantity), 0)::int from return_items e
                    where e.order_item_id = i.id and e.refund_amount is not null) as "settled!"
             from order_items i where i.order_id = $1 order by i.variant_id"#,
        Uuid::from(order_id)
    )
    .fetch_all(conn)
    .await
}

/// How an order is paid, and whether all of it has come back.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Through whom it was paid; none for cash.
    pub gateway: Option<String>,
    /// What its delivery cost, in major units.
    pub shipping: Decimal,
    /// Every piece that was not called off is in a return that has been assessed.
    pub is_all_back: bool,
}

/// Notes what each line of a return is worth, in major units, and returns what that makes of the order.
///
/// # Errors
/// The database's own.
pub async fn assess(
    conn: &mut PgConnection,
    return_id: Uuid,
    order_id: OrderId,
    worth: &[(Uuid, Decimal)],
) -> Result<Settlement, sqlx::Error> {
    let lines: Vec<Uuid> = worth.iter().map(|(line, _)| *line).collect();
    let amounts: Vec<Decimal> = worth.iter().map(|(_, amount)| *amount).collect();
    sqlx::query!(
        "update return_items i set refund_amount = w.amount
           from unnest($2::uuid[], $3::numeric[]) as w(line, amount)
          where i.return_id = $1 and i.order_item_id = w.line",
        return_id,
        &lines,
        &amounts,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_as!(
        Settlement,
        r#"select p.payment_gateway as "gateway?", o.shipping_amount as shipping,
                  not exists (
                    select from order_items i
                     where i.order_id = o.id
                       and i.quantity - i.called_off > (select coalesce(sum(b.quantity), 0) from return_items b
                                          where b.order_item_id = i.id and b.refund_amount is not null)) as "is_all_back!"
             from orders o left join payments p on p.order_id = o.id where o.id = $1"#,
        Uuid::from(order_id)
    )
    .fetch_one(conn)
    .await
}

/// Notes what goes back for a return altogether, in major units: what was claimed for it.
///
/// # Errors
/// The database's own.
pub async fn set_refund(
    conn: &mut PgConnection,
    return_id: Uuid,
    amount: Decimal,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!("update returns set refund_amount = $2, updated_at = $3 where id = $1", return_id, amount, now)
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether every piece of an order that was not called off is in a return that is settled.
///
/// # Errors
/// The database's own.
pub async fn is_all_refunded(conn: &mut PgConnection, order_id: OrderId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select not exists (
            select from order_items i
             where i.order_id = $1
               and i.quantity - i.called_off > (select coalesce(sum(b.quantity), 0) from return_items b
                                   join returns r on r.id = b.return_id
                                  where b.order_item_id = i.id and r.status = 'REFUNDED')) as "yes!""#,
        Uuid::from(order_id)
    )
    .fetch_one(conn)
    .await
}
