//! `addresses`: what a user has saved. At most one is their default; an order keeps a copy of its own.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::{
    address::Address,
    ids::{AddressId, UserId},
};
use sqlx::PgConnection;
use uuid::Uuid;

/// Most addresses a user may have saved.
pub const MAX_ADDRESSES: i64 = 50;

/// A saved address.
#[derive(Debug, Clone)]
pub struct SavedAddress {
    /// Its id.
    pub id: AddressId,
    /// What orders copy.
    pub address: Address,
    /// Taken when the user names none.
    pub is_default: bool,
    /// SHIPPING, BILLING or BOTH.
    pub address_type: String,
    /// When it was saved.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

struct Row {
    id: Uuid,
    user_id: Uuid,
    recipient_name: String,
    address_line1: String,
    address_line2: Option<String>,
    city: String,
    state: String,
    postal_code: String,
    country: String,
    phone_number: String,
    is_default: bool,
    address_type: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for SavedAddress {
    fn from(row: Row) -> Self {
        SavedAddress {
            id: row.id.into(),
            address: Address {
                recipient_name: row.recipient_name,
                address_line1: row.address_line1,
                address_line2: row.address_line2,
                city: row.city,
                state: row.state,
                postal_code: row.postal_code,
                country: row.country,
                phone_number: row.phone_number,
            },
            is_default: row.is_default,
            address_type: row.address_type,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// One of a user's saved addresses; nobody else's.
///
/// # Errors
/// The database's own.
pub async fn saved(
    conn: &mut PgConnection,
    user_id: UserId,
    id: AddressId,
) -> Result<Option<SavedAddress>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "select id, user_id, recipient_name, address_line1, address_line2, city, state, postal_code, country, phone_number,
                is_default, address_type, created_at, updated_at
           from addresses where id = $1 and user_id = $2",
        Uuid::from(id),
        Uuid::from(user_id)
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(SavedAddress::from))
}

/// Those of these addresses that are saved, each by its user's and its own id.
///
/// # Errors
/// The database's own.
pub async fn saved_many(
    conn: &mut PgConnection,
    wanted: &[(UserId, AddressId)],
) -> Result<HashMap<(UserId, AddressId), Address>, sqlx::Error> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let (users, ids): (Vec<Uuid>, Vec<Uuid>) =
        wanted.iter().map(|&(user_id, id)| (Uuid::from(user_id), Uuid::from(id))).unzip();
    let rows = sqlx::query_as!(
        Row,
        "select a.id, a.user_id, a.recipient_name, a.address_line1, a.address_line2, a.city, a.state, a.postal_code,
                a.country, a.phone_number, a.is_default, a.address_type, a.created_at, a.updated_at
           from unnest($1::uuid[], $2::uuid[]) as w(user_id, id) join addresses a on a.id = w.id and a.user_id = w.user_id",
        &users,
        &ids
    )
    .fetch_all(conn)
    .await?;
    let saved = rows.into_iter().map(|row| {
        let user_id = UserId::from(row.user_id);
        let SavedAddress { id, address, .. } = row.into();
        ((user_id, id), address)
    });
    Ok(saved.collect())
}

/// A user's saved addresses, the latest first, after the one named.
///
/// # Errors
/// The database's own.
pub async fn list(
    conn: &mut PgConnection,
    user_id: UserId,
    after: Option<AddressId>,
    limit: i64,
) -> Result<Vec<SavedAddress>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "select id, user_id, recipient_name, address_line1, address_line2, city, state, postal_code, country, phone_number,
                is_default, address_type, created_at, updated_at
           from addresses where user_id = $1 and ($2::uuid is null or id < $2)
          order by id desc limit $3",
        Uuid::from(user_id),
        after.map(Uuid::from),
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(SavedAddress::from).collect())
}

/// How many addresses a user has saved, whose row is locked from here until the transaction ends: the
/// limit and the one default hold against two tabs.
///
/// # Errors
/// The database's own.
pub async fn count_locked(conn: &mut PgConnection, user_id: UserId) -> Result<i64, sqlx::Error> {
    super::users::lock(conn, user_id).await?;
    sqlx::query_scalar!(r#"select count(*) as "count!" from addresses where user_id = $1"#, Uuid::from(user_id))
        .fetch_one(conn)
        .await
}

/// Saves an address, or what has changed in it. A default replaces the one before.
///
/// # Errors
/// The database's own.
pub async fn save(conn: &mut PgConnection, user_id: UserId, saved: &SavedAddress) -> Result<(), sqlx::Error> {
    let SavedAddress { id, address, is_default, address_type, .. } = saved;
    if *is_default {
        // A statement before: the index allows no two defaults at any moment.
        sqlx::query!(
            "update addresses set is_default = false, updated_at = $3
              where user_id = $1 and is_default and id <> $2",
            Uuid::from(user_id),
            Uuid::from(*id),
            saved.updated_at
        )
        .execute(&mut *conn)
        .await?;
    }
    sqlx::query!(
        "insert into addresses (id, user_id, recipient_name, address_line1, address_line2, city, state, postal_code,
                                country, phone_number, is_default, address_type, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         on conflict (id) do update
            set recipient_name = excluded.recipient_name, address_line1 = excluded.address_line1,
                address_line2 = excluded.address_line2, city = excluded.city, state = excluded.state,
                postal_code = excluded.postal_code, country = excluded.country,
                phone_number = excluded.phone_number, is_default = excluded.is_default,
                address_type = excluded.address_type, updated_at = excluded.updated_at
          where addresses.user_id = excluded.user_id",
        Uuid::from(*id),
        Uuid::from(user_id),
        address.recipient_name,
        address.address_line1,
        address.address_line2,
        address.city,
        address.state,
        address.postal_code,
        address.country,
        address.phone_number,
        is_default,
        address_type,
        saved.created_at,
        saved.updated_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets one of a user's addresses; false if there was none. Orders keep their copies.
///
/// # Errors
/// The database's own.
pub async fn delete(conn: &mut PgConnection, user_id: UserId, id: AddressId) -> Result<bool, sqlx::Error> {
    let deleted =
        sqlx::query!("delete from addresses where id = $1 and user_id = $2", Uuid::from(id), Uuid::from(user_id))
            .execute(conn)
            .await?;
    Ok(deleted.rows_affected() == 1)
}
