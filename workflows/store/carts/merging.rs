//! Two carts that become one on login: the SQL.

use chrono::{DateTime, Utc};
use domain::ids::{CartId, UserId, VariantId};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    OpenCart, Stamp,
    open::{open_status, seconds},
};

/// The open carts of a user and of a guest's session, both locked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pair {
    /// The user's.
    pub user: Option<OpenCart>,
    /// The guest's.
    pub guest: Option<OpenCart>,
}

/// Locks both carts, in the order of their ids.
///
/// # Errors
/// The database's own.
pub async fn lock_pair(conn: &mut PgConnection, user_id: UserId, session_hash: &[u8]) -> Result<Pair, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select id, user_id, status, version, updated_at, checkout_run_id, engine.now() as "now!",
               (select version from catalogue_version) as "catalogue!",
               (select count(*) from coupon_redemption_log l
                 where (l.user_id = $1 or l.redeemer = (select coupon_redeemer(u.email) from users u where u.id = $1))
                       and l.status in ('HELD', 'SUCCESS')) as "redemptions!",
               coalesce(expires_at <= engine.now() and status <> 'CHECKOUT', false) as "is_stale!"
          from carts
         where (user_id = $1 or (session_hash = $2 and user_id is null))
           and status in ('ACTIVE', 'CHECKOUT', 'ABANDONED')
         order by id
           for update
        "#,
        Uuid::from(user_id),
        session_hash
    )
    .fetch_all(conn)
    .await?;
    let mut pair = Pair::default();
    for row in rows {
        let open = OpenCart {
            id: row.id.into(),
            status: open_status(&row.status)?,
            stamp: Stamp {
                version: row.version,
                updated_at: row.updated_at,
                catalogue: row.catalogue,
                redemptions: row.redemptions,
            },
            checkout_run_id: row.checkout_run_id,
            is_stale: row.is_stale,
            now: row.now,
        };
        let whose = if row.user_id.is_some() { &mut pair.user } else { &mut pair.guest };
        *whose = Some(open);
    }
    Ok(pair)
}

/// Whose the latest cart of this session has become, if anybody's.
///
/// # Errors
/// The database's own.
pub async fn owner_of_session(conn: &mut PgConnection, session_hash: &[u8]) -> Result<Option<UserId>, sqlx::Error> {
    let owner = sqlx::query_scalar!(
        "select user_id from carts where session_hash = $1 order by updated_at desc, id desc limit 1",
        session_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(owner.flatten().map(UserId::from))
}

/// Makes a locked guest's cart the user's, unless the user has got one by now. It ends `ttl_s` seconds from
/// now.
///
/// # Errors
/// The database's own.
pub async fn associate(
    conn: &mut PgConnection,
    cart_id: CartId,
    user_id: UserId,
    ttl_s: u64,
) -> Result<bool, sqlx::Error> {
    // A savepoint: the refusal of the unique index must not end the caller's transaction.
    let mut attempt = conn.begin().await?;
    let associated = sqlx::query!(
        "update carts
            set user_id = $2, status = 'ACTIVE', version = version + 1, updated_at = t.now, last_activity_at = t.now,
                expires_at = t.now + make_interval(secs => $3)
           from (select engine.now() as now) t
          where id = $1",
        Uuid::from(cart_id),
        Uuid::from(user_id),
        seconds(ttl_s)
    )
    .execute(&mut *attempt)
    .await;
    match associated {
        Ok(_) => {
            attempt.commit().await?;
            Ok(true)
        }
        Err(sqlx::Error::Database(error)) if error.constraint() == Some("carts_one_open_per_user") => {
            attempt.rollback().await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Takes these lines out of a locked guest's cart. If nothing is left in it, its coupons go too, and it
/// ends as the user's: the session's next cart is a new one.
///
/// # Errors
/// The database's own.
pub async fn empty_guest(
    conn: &mut PgConnection,
    cart_id: CartId,
    taken: &[VariantId],
    is_all: bool,
    user_id: UserId,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let taken: Vec<Uuid> = taken.iter().map(|&variant_id| variant_id.into()).collect();
    sqlx::query!(
        "with lines as (delete from cart_items where cart_id = $1 and variant_id = any($2)),
              coupons as (delete from cart_coupons where cart_id = $1 and $3)
         update carts
            set status = case when $3 then 'EXPIRED' else 'ACTIVE' end,
                user_id = case when $3 then $4::uuid else user_id end,
                version = version + 1, updated_at = $5, last_activity_at = $5,
                expires_at = expires_at + ($5 - last_activity_at)
          where id = $1",
        Uuid::from(cart_id),
        &taken,
        is_all,
        Uuid::from(user_id),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
