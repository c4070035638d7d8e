//! `addresses`, and how to reach a user.

use domain::{
    address::Address,
    ids::{AddressId, UserId},
};
use sqlx::PgConnection;
use uuid::Uuid;

/// An active user's e-mail address and phone number.
pub async fn contact(conn: &mut PgConnection, user_id: UserId) -> Result<Option<(String, Option<String>)>, sqlx::Error> {
    let row = sqlx::query!("select email, phone_number from users where id = $1 and is_active", Uuid::from(user_id))
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| (row.email, row.phone_number)))
}

/// One of a user's saved addresses; nobody else's.
pub async fn saved(conn: &mut PgConnection, user_id: UserId, id: AddressId) -> Result<Option<Address>, sqlx::Error> {
    sqlx::query_as!(
        Address,
        "select recipient_name, address_line1, address_line2, city, state, postal_code, country, phone_number
           from addresses where id = $1 and user_id = $2",
        Uuid::from(id),
        Uuid::from(user_id)
    )
    .fetch_optional(conn)
    .await
}
