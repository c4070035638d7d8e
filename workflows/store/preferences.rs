//! `notification_preferences`: what users do not want to be written about.

use domain::ids::UserId;
use sqlx::PgConnection;
use uuid::Uuid;

/// By which channels a user may be reminded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// E-mail.
    pub email: bool,
    /// Text messages.
    pub sms: bool,
    /// Push messages.
    pub push: bool,
}

/// What the user wants: everything they have not opted out of.
///
/// # Errors
/// The database's own.
pub async fn read(conn: &mut PgConnection, user_id: UserId) -> Result<Channels, sqlx::Error> {
    let refused =
        sqlx::query_scalar!("select channel from notification_preferences where user_id = $1", Uuid::from(user_id))
            .fetch_all(conn)
            .await?;
    let wants = |channel: &str| refused.iter().all(|refused| refused != channel);
    Ok(Channels { email: wants("EMAIL"), sms: wants("SMS"), push: wants("PUSH") })
}

/// Sets all of them. An opting out that stands keeps its date. False if there is no such user.
///
/// # Errors
/// The database's own.
pub async fn choose(conn: &mut PgConnection, user_id: UserId, channels: Channels) -> Result<bool, sqlx::Error> {
    let user_id = Uuid::from(user_id);
    let is_known = sqlx::query_scalar!("select id from users where id = $1 for key share", user_id)
        .fetch_optional(&mut *conn)
        .await?
        .is_some();
    if !is_known {
        return Ok(false);
    }
    let refused: Vec<String> = [("EMAIL", channels.email), ("SMS", channels.sms), ("PUSH", channels.push)]
        .into_iter()
        .filter(|(_, wanted)| !wanted)
        .map(|(channel, _)| channel.to_owned())
        .collect();
    sqlx::query!("delete from notification_preferences where user_id = $1 and channel <> all($2)", user_id, &refused)
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "insert into notification_preferences (user_id, channel, opted_out_at)
         select $1, channel, engine.now() from unnest($2::text[]) as channel
         on conflict (user_id, channel) do nothing",
        user_id,
        &refused
    )
    .execute(conn)
    .await?;
    Ok(true)
}
