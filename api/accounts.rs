//! Creating users and checking their passwords, for the API and for the command line.

use argon2::{
    Argon2,
    password_hash::{self, PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use domain::{phone::phone_problem, text::line_problem};
use garde::rules::email::parse_email;
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use tokio::{sync::Semaphore, task::JoinError};
use workflows::store::users::{self, NewUser, Role, User};

use crate::error::FieldError;

/// Fewest and most characters of a password (NIST SP 800-63B asks for at least 8 and for long ones to
/// be allowed).
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=128;

/// Hashing takes 19 MiB and tens of milliseconds of a core, on purpose: two at a time.
static HASHING: Semaphore = Semaphore::const_new(2);

/// A hash of no password, under the parameters of every other: who tries an unknown address waits as
/// long as who tries a wrong password.
const NOBODYS_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmU$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A password could not be hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The library refused.
    #[error("the password hash failed: {0}")]
    Hash(#[from] password_hash::Error),
    /// The hashing thread died, or the process is going down.
    #[error("the password hash was interrupted: {0}")]
    Interrupted(#[from] JoinError),
}

/// A user to be, as he gave himself.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// In any case; stored in lower case.
    pub email: String,
    /// 8 to 128 characters.
    pub password: SecretString,
    /// What he may do.
    pub role: Role,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// Phone number.
    pub phone_number: Option<String>,
}

/// Why there is no new user.
#[derive(Debug, thiserror::Error)]
pub enum CreateUserError {
    /// Fields that are wrong, each with its place.
    #[error("{}", .0.iter().map(|e| format!("{} {}", e.pointer, e.detail)).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
    /// Somebody has that address.
    #[error("there is a user with this e-mail address")]
    EmailTaken,
    /// The password could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Validates, hashes and stores a new user.
///
/// # Errors
/// See [`CreateUserError`].
pub async fn create_user(pool: &PgPool, account: NewAccount) -> Result<User, CreateUserError> {
    let email = account.email.trim().to_lowercase();
    let errors = complaints(&email, &account);
    if !errors.is_empty() {
        return Err(CreateUserError::Invalid(errors));
    }
    // No connection is held while the hash takes its time.
    let password_hash = hash_password(account.password).await?;
    let new = NewUser {
        email: &email,
        password_hash: &password_hash,
        role: account.role,
        first_name: account.first_name.as_deref(),
        last_name: account.last_name.as_deref(),
        phone_number: account.phone_number.as_deref(),
    };
    let mut conn = pool.acquire().await?;
    users::insert_user(&mut conn, &new).await.map_err(|error| match error.as_database_error() {
        Some(db) if db.constraint() == Some("users_email_key") => CreateUserError::EmailTaken,
        Some(_) | None => CreateUserError::Database(error),
    })
}

fn complaints(email: &str, account: &NewAccount) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if line_problem(email, 255).is_some() || parse_email(email).is_err() {
        errors.push(FieldError::new("/email", "is not an e-mail address"));
    }
    if !PASSWORD_CHARS.contains(&account.password.expose_secret().chars().count()) {
        errors.push(FieldError::new("/password", "must have 8 to 128 characters"));
    }
    for (pointer, value, most) in [("/firstName", &account.first_name, 100), ("/lastName", &account.last_name, 100)] {
        let problem = value.as_deref().filter(|value| !value.is_empty()).and_then(|value| line_problem(value, most));
        errors.extend(problem.map(|detail| FieldError::new(pointer, detail)));
    }
    let phone = account.phone_number.as_deref().and_then(phone_problem);
    errors.extend(phone.map(|detail| FieldError::new("/phoneNumber", detail)));
    errors
}

/// The PHC string of a password: Argon2id, 19 MiB, 2 passes, 1 lane (the OWASP password storage minimum),
/// under a random salt.
///
/// # Errors
/// See [`HashError`].
pub async fn hash_password(password: SecretString) -> Result<String, HashError> {
    on_hashing_thread(move || {
        let hash: PasswordHash = Argon2::default().hash_password(password.expose_secret().as_bytes())?;
        Ok(hash.to_string())
    })
    .await
}

/// Whether the password has that hash. Without a hash it takes as long, and is false.
///
/// # Errors
/// See [`HashError`].
pub(crate) async fn verify_password(password: SecretString, hash: Option<String>) -> Result<bool, HashError> {
    on_hashing_thread(move || {
        let is_known = hash.is_some();
        let parsed = PasswordHash::new(hash.as_deref().unwrap_or(NOBODYS_HASH))
            .map_err(|_| password_hash::Error::EncodingInvalid)?;
        match Argon2::default().verify_password(password.expose_secret().as_bytes(), &parsed) {
            Ok(()) => Ok(is_known),
            Err(password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// The place among the two is kept until the hash is done, even when the request has gone away.
async fn on_hashing_thread<T: Send + 'static>(
    hash: impl FnOnce() -> Result<T, HashError> + Send + 'static,
) -> Result<T, HashError> {
    // Never closed, so this only waits.
    let place = HASHING.acquire().await.ok();
    tokio::task::spawn_blocking(move || {
        let _place = place;
        hash()
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let hash = hash_password(SecretString::from("correct horse")).await.expect("hashed");
        assert!(verify_password(SecretString::from("correct horse"), Some(hash.clone())).await.expect("checked"));
        assert!(!verify_password(SecretString::from("battery staple"), Some(hash)).await.expect("checked"));
    }

    #[tokio::test]
    async fn an_unknown_user_is_checked_against_a_hash_of_equal_cost() {
        assert!(!verify_password(SecretString::from("anything"), None).await.expect("checked"));
        let real = hash_password(SecretString::from("anything")).await.expect("hashed");
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(&real), cost(NOBODYS_HASH));
    }

    #[test]
    fn each_wrong_field_is_named() {
        let account = NewAccount {
            email: String::new(),
            password: SecretString::from("short"),
            role: Role::Customer,
            first_name: Some("x".repeat(101)),
            last_name: None,
            phone_number: Some("0".repeat(21)),
        };
        let pointers: Vec<_> = complaints("not-an-address", &account).into_iter().map(|e| e.pointer).collect();
        assert_eq!(pointers, ["/email", "/password", "/firstName", "/phoneNumber"]);
    }
}
