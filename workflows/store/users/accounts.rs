//! Accounts as staff see them, and how one ends.

use chrono::{DateTime, Utc};
use domain::ids::UserId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Role, role};

/// A user, active or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub id: UserId,
    /// In lower case; of an anonymised user it leads nowhere.
    pub email: String,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// As the user wrote it.
    pub phone_number: Option<String>,
    /// What they may do.
    pub role: Role,
    /// Whether they may log in.
    pub is_active: bool,
    /// When they registered.
    pub created_at: DateTime<Utc>,
    /// When they logged in last.
    pub last_login_at: Option<DateTime<Utc>>,
    /// When they were forgotten.
    pub anonymised_at: Option<DateTime<Utc>>,
}

macro_rules! read {
    ($conn:expr, $sql:literal, $($argument:expr),*) => {
        sqlx::query!(
            "select id, email, first_name, last_name, phone_number, role, is_active, created_at, last_login_at,
                    anonymised_at
               from users " + $sql,
            $($argument),*
        )
        .fetch_all($conn)
        .await?
        .into_iter()
        .map(|row| {
            Ok(Account {
                id: UserId(row.id),
                email: row.email,
                first_name: row.first_name,
                last_name: row.last_name,
                phone_number: row.phone_number,
                role: role(&row.role)?,
                is_active: row.is_active,
                created_at: row.created_at,
                last_login_at: row.last_login_at,
                anonymised_at: row.anonymised_at,
            })
        })
        .collect::<Result<Vec<Account>, sqlx::Error>>()
    };
}

/// Accounts in order of their ids, after the given one; with `email` those whose address begins so
/// (lower case).
///
/// # Errors
/// The database's own.
pub async fn list(
    conn: &mut PgConnection,
    email: Option<&str>,
    after: Option<UserId>,
    limit: i64,
) -> Result<Vec<Account>, sqlx::Error> {
    read!(
        conn,
        "where ($1::text is null or email ^@ $1) and ($2::uuid is null or id > $2) order by id limit $3",
        email,
        after.map(|id| id.0),
        limit
    )
}

/// These accounts, locked in order of their ids until the transaction ends.
///
/// # Errors
/// The database's own.
pub async fn lock(conn: &mut PgConnection, ids: &[UserId]) -> Result<Vec<Account>, sqlx::Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    read!(conn, "where id = any($1) order by id for update", &ids)
}

/// Writes names, phone number, role and whether a locked account may log in. Who may not is logged out:
/// their refresh tokens are revoked; what is left of their access token is good for a customer's reading only.
///
/// # Errors
/// The database's own.
pub async fn save(conn: &mut PgConnection, account: &Account) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update users
            set first_name = $2, last_name = $3, phone_number = $4, role = $5, is_active = $6, updated_at = now()
          where id = $1",
        account.id.0,
        account.first_name,
        account.last_name,
        account.phone_number,
        account.role.as_str(),
        account.is_active
    )
    .execute(&mut *conn)
    .await?;
    if !account.is_active {
        super::revoke_logins(conn, account.id).await?;
    }
    Ok(())
}

/// Why an account was not ended.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// A checkout has the user's cart.
    #[error("a checkout is under way")]
    InCheckout {
        /// The run.
        workflow_id: Option<Uuid>,
    },
    /// Postgres failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Forgets the person behind a locked account: the row stays, because orders point at it, and says
/// nothing any more. Orders keep their own copies of names and addresses, as invoices must; open carts
/// expire; logins, saved addresses and preferences are deleted.
///
/// The account's row is locked before its cart, as every checkout does by its foreign keys.
///
/// # Errors
/// See [`ForgetError`].
pub async fn forget(conn: &mut PgConnection, user: UserId) -> Result<(), ForgetError> {
    let carts = sqlx::query!(
        "select status, checkout_run_id from carts
          where user_id = $1 and status in ('ACTIVE', 'CHECKOUT', 'ABANDONED') order by id for update",
        user.0
    )
    .fetch_all(&mut *conn)
    .await?;
    if let Some(held) = carts.into_iter().find(|cart| cart.status == "CHECKOUT") {
        return Err(ForgetError::InCheckout { workflow_id: held.checkout_run_id });
    }
    sqlx::query!(
        "update carts set status = 'EXPIRED', version = version + 1, updated_at = engine.now()
          where user_id = $1 and status in ('ACTIVE', 'ABANDONED')",
        user.0
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("delete from refresh_tokens where user_id = $1", user.0).execute(&mut *conn).await?;
    sqlx::query!("delete from addresses where user_id = $1", user.0).execute(&mut *conn).await?;
    sqlx::query!("delete from notification_preferences where user_id = $1", user.0).execute(&mut *conn).await?;
    // No e-mail can reach it (RFC 2606), and no password has this hash.
    sqlx::query!(
        "update users
            set email = 'deleted-' || id || '@invalid', password_hash = '!', first_name = null, last_name = null,
                phone_number = null, role = 'CUSTOMER', is_active = false, last_login_at = null, updated_at = now(),
                anonymised_at = coalesce(anonymised_at, now())
          where id = $1",
        user.0
    )
    .execute(conn)
    .await?;
    Ok(())
}
