//! `outbox_events` of variants that fell to their threshold, read on.

use domain::notification::LowStock;
use sqlx::PgConnection;

/// The next crossings that nobody has read, up to `limit`, in order; whoever commits has read them.
///
/// Only what older transactions than any still open have written: an event that commits late is not
/// skipped.
///
/// # Errors
/// The database's own.
pub async fn read_on(conn: &mut PgConnection, limit: i64) -> Result<Vec<LowStock>, sqlx::Error> {
    // A statement of its own: what the next one sees is not older than what the lock's last holder left.
    sqlx::query!("select name from outbox_readers where name = 'low_stock_alerts' for update")
        .fetch_one(&mut *conn)
        .await?;
    let rows = sqlx::query!(
        r#"
        with news as materialized (
            -- An event that another release wrote may say none of this; it must not stand in the others' way.
            select e.xid, e.id, e.data,
                   case when e.data ->> 'variantId' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                        then (e.data ->> 'variantId')::uuid end as variant_id
              from outbox_events e, outbox_readers r
             where r.name = 'low_stock_alerts' and e.event_type = 'inventory.low_stock'
               and (e.xid, e.id) > (r.after_xid, r.after_id)
               and e.xid < pg_snapshot_xmin(pg_current_snapshot())
             order by e.xid, e.id limit $1),
        moved as (
            update outbox_readers r set after_xid = l.xid, after_id = l.id
              from (select xid, id from news order by xid desc, id desc limit 1) l
             where r.name = 'low_stock_alerts')
        select n.data, v.sku as "sku?", v.variant_name, p.product_name as "product_name?"
          from news n
          left join product_variants v on v.id = n.variant_id
          left join products p on p.id = v.product_id
         order by n.xid, n.id
        "#,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| LowStock {
            name: row.product_name.into_iter().chain(row.variant_name).collect::<Vec<_>>().join(", "),
            sku: row.sku.or_else(|| Some(row.data["variantId"].as_str()?.to_owned())).unwrap_or_default(),
            available: row.data["available"].as_i64().unwrap_or_default(),
            threshold: row.data["threshold"].as_i64().unwrap_or_default(),
        })
        .collect())
}
