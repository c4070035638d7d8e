//! People: users, their refresh tokens, and the keys of other services. Only hashes of secrets pass
//! through here.

pub mod accounts;
pub mod keys;

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use domain::ids::UserId;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Role {
    /// Buys.
    Customer,
    /// Sees and serves everybody's orders.
    Staff,
    /// Also acts on workflows.
    Admin,
}

impl Role {
    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Customer => "CUSTOMER",
            Role::Staff => "STAFF",
            Role::Admin => "ADMIN",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No role has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; there are CUSTOMER, STAFF and ADMIN")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "CUSTOMER" => Ok(Role::Customer),
            "STAFF" => Ok(Role::Staff),
            "ADMIN" => Ok(Role::Admin),
            other => Err(UnknownRole(other.to_owned())),
        }
    }
}

fn role(text: &str) -> Result<Role, sqlx::Error> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// A user, without their password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// In lower case.
    pub email: String,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// As the user wrote it.
    pub phone_number: Option<String>,
    /// What they may do.
    pub role: Role,
    /// When they registered.
    pub created_at: DateTime<Utc>,
}

/// A user who may log in, with what their password is checked against.
#[derive(Debug, Clone)]
pub struct Login {
    /// Who it would be.
    pub user: User,
    /// PHC string.
    pub password_hash: String,
}

/// A user to be.
#[derive(Debug, Clone)]
pub struct NewUser<'a> {
    /// In lower case.
    pub email: &'a str,
    /// PHC string.
    pub password_hash: &'a str,
    /// What they may do.
    pub role: Role,
    /// Given name, at most 100 characters.
    pub first_name: Option<&'a str>,
    /// Family name, at most 100 characters.
    pub last_name: Option<&'a str>,
    /// At most 20 characters.
    pub phone_number: Option<&'a str>,
}

/// Writes a new user; a taken address violates `users_email_key`.
///
/// # Errors
/// The database's own.
pub async fn insert_user(conn: &mut PgConnection, new: &NewUser<'_>) -> Result<User, sqlx::Error> {
    let id = UserId::generate();
    let created_at = sqlx::query_scalar!(
        "insert into users (id, email, password_hash, role, first_name, last_name, phone_number)
         values ($1, $2, $3, $4, $5, $6, $7)
         returning created_at",
        id.0,
        new.email,
        new.password_hash,
        new.role.as_str(),
        new.first_name,
        new.last_name,
        new.phone_number,
    )
    .fetch_one(conn)
    .await?;
    Ok(User {
        id,
        email: new.email.to_owned(),
        first_name: new.first_name.map(str::to_owned),
        last_name: new.last_name.map(str::to_owned),
        phone_number: new.phone_number.map(str::to_owned),
        role: new.role,
        created_at,
    })
}

/// The active user of that address (lower case), to check their password.
///
/// # Errors
/// The database's own.
pub async fn find_login(conn: &mut PgConnection, email: &str) -> Result<Option<Login>, sqlx::Error> {
    let Some(row) = sqlx::query!(
        "select id, email, password_hash, first_name, last_name, phone_number, role, created_at
           from users where email = $1 and is_active",
        email
    )
    .fetch_optional(conn)
    .await?
    else {
        return Ok(None);
    };
    let user = User {
        id: UserId(row.id),
        email: row.email,
        first_name: row.first_name,
        last_name: row.last_name,
        phone_number: row.phone_number,
        role: role(&row.role)?,
        created_at: row.created_at,
    };
    Ok(Some(Login { user, password_hash: row.password_hash }))
}

/// An active user.
///
/// # Errors
/// The database's own.
pub async fn find_user(conn: &mut PgConnection, id: UserId) -> Result<Option<User>, sqlx::Error> {
    let Some(row) = sqlx::query!(
        "select id, email, first_name, last_name, phone_number, role, created_at
           from users where id = $1 and is_active",
        id.0
    )
    .fetch_optional(conn)
    .await?
    else {
        return Ok(None);
    };
    Ok(Some(User {
        id: UserId(row.id),
        email: row.email,
        first_name: row.first_name,
        last_name: row.last_name,
        phone_number: row.phone_number,
        role: role(&row.role)?,
        created_at: row.created_at,
    }))
}

/// Notes that a user has just logged in.
///
/// # Errors
/// The database's own.
pub async fn record_login(conn: &mut PgConnection, id: UserId) -> Result<(), sqlx::Error> {
    sqlx::query!("update users set last_login_at = now() where id = $1", id.0).execute(conn).await?;
    Ok(())
}

/// Writes a refresh token of a family; a login starts a family of its own.
///
/// # Errors
/// The database's own.
pub async fn insert_refresh_token(
    conn: &mut PgConnection,
    user: UserId,
    family: Uuid,
    token_hash: &[u8],
    expires_at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into refresh_tokens (id, user_id, family_id, token_hash, expires_at) values ($1, $2, $3, $4, $5)",
        Uuid::now_v7(),
        user.0,
        family,
        token_hash,
        expires_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How long a used refresh token is still answered with its successor: two tabs, or a client that lost the
/// answer, and not yet a thief (RFC 9700 §4.14.2).
const GRACE: Duration = Duration::from_secs(10);

/// What became of a refresh token that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// It was good, and is now used up; the next token joins its family.
    Fresh {
        /// Whose it is.
        user: UserId,
        /// Its family.
        family: Uuid,
    },
    /// It was used a moment ago, and what it was traded for has not been used: two tabs came at once. They
    /// share the next token.
    Again {
        /// Whose it is.
        user: UserId,
        /// Which of the successors it was traded for, by position.
        successor: usize,
    },
    /// It had been used before. Whoever shows it now or showed it then is a thief, so the whole family
    /// is revoked.
    Reused {
        /// Whose it was.
        user: UserId,
    },
    /// Unknown, expired or revoked.
    Refused,
}

/// Uses a refresh token up, once, under its row's lock. The next one shall have one of the hashes in
/// `successors`, one for each secret in force. The caller commits in every case: revoking the family of a
/// reused token must last although the request is refused.
///
/// # Errors
/// The database's own.
pub async fn redeem_refresh_token(
    conn: &mut PgConnection,
    token_hash: &[u8],
    successors: &[[u8; 32]],
) -> Result<Redeemed, sqlx::Error> {
    let Some(token) = sqlx::query!(
        r#"select t.id, t.user_id, t.family_id, t.used_at is not null as "is_used!",
                  coalesce(t.used_at > now() - make_interval(secs => $2), false) as "is_fresh!",
                  (t.revoked_at is not null or t.expires_at <= now() or not u.is_active) as "is_dead!"
             from refresh_tokens t join users u on u.id = t.user_id
            where t.token_hash = $1
              for update of t"#,
        token_hash,
        GRACE.as_secs_f64()
    )
    .fetch_optional(&mut *conn)
    .await?
    else {
        return Ok(Redeemed::Refused);
    };
    if token.is_fresh && !token.is_dead {
        for (successor, hash) in successors.iter().enumerate() {
            if is_unused(conn, hash, token.family_id).await? {
                return Ok(Redeemed::Again { user: UserId(token.user_id), successor });
            }
        }
    }
    if token.is_used {
        revoke_family(conn, token.family_id).await?;
        return Ok(Redeemed::Reused { user: UserId(token.user_id) });
    }
    if token.is_dead {
        return Ok(Redeemed::Refused);
    }
    sqlx::query!("update refresh_tokens set used_at = now() where id = $1", token.id).execute(conn).await?;
    Ok(Redeemed::Fresh { user: UserId(token.user_id), family: token.family_id })
}

async fn is_unused(conn: &mut PgConnection, token_hash: &[u8], family: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from refresh_tokens
                   where token_hash = $1 and family_id = $2 and used_at is null and revoked_at is null) as "is_unused!""#,
        token_hash,
        family
    )
    .fetch_one(conn)
    .await
}

async fn revoke_family(conn: &mut PgConnection, family: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("update refresh_tokens set revoked_at = now() where family_id = $1 and revoked_at is null", family)
        .execute(conn)
        .await?;
    Ok(())
}

/// Revokes the whole family of a refresh token, whatever became of the token itself.
///
/// # Errors
/// The database's own.
pub async fn revoke_login(conn: &mut PgConnection, token_hash: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update refresh_tokens set revoked_at = now()
          where revoked_at is null
            and family_id = (select family_id from refresh_tokens where token_hash = $1)",
        token_hash
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Revokes every refresh token of a user.
///
/// # Errors
/// The database's own.
pub async fn revoke_logins(conn: &mut PgConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query!("update refresh_tokens set revoked_at = now() where user_id = $1 and revoked_at is null", user.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Locks a user's row until the transaction ends, so that what is counted or made once a user is counted
/// and made by one after the other. Whoever only refers to the row does not wait.
///
/// # Errors
/// The database's own.
pub async fn lock(conn: &mut PgConnection, user_id: UserId) -> Result<(), sqlx::Error> {
    sqlx::query!("select id from users where id = $1 for no key update", Uuid::from(user_id))
        .fetch_optional(conn)
        .await?;
    Ok(())
}
