//! `addresses`.

use domain::{
    address::Address,
    ids::{AddressId, UserId},
};
use sqlx::PgConnection;
use uuid::Uuid;

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
