//! A mailer for development that keeps every e-mail where a developer can read it.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ports::{Email, MailError, Mailer};
use lettre::message::Mailbox;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use super::ConfigError;
use super::message::message;

/// Rows one listing gives at most.
const MAX_LISTED: i64 = 200;

/// Keeps e-mails in the table `dev.mailbox` instead of sending them.
#[derive(Clone)]
pub struct DevMailbox {
    pool: PgPool,
    from: Mailbox,
}

/// An e-mail as the development mailbox shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// Of the row, not the Message-ID.
    pub id: Uuid,
    /// The recipient's address.
    pub to: String,
    /// The subject, decoded.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The event the e-mail tells of, such as `order.confirmed`.
    pub event: String,
    /// The order it is about, if it is about one.
    pub order_id: Option<Uuid>,
    /// When it would have left, by the real clock.
    pub sent_at: DateTime<Utc>,
}

impl DevMailbox {
    /// A mailbox in the database behind `pool`, which [`DevMailbox::setup`] has prepared. `from` is
    /// the sender that a real mailer would name.
    ///
    /// # Errors
    /// [`ConfigError::Sender`] when `from` is no e-mail address.
    pub fn new(pool: PgPool, from: &str) -> Result<DevMailbox, ConfigError> {
        Ok(DevMailbox { pool, from: from.parse()? })
    }

    /// Makes the table `dev.mailbox` if it is not there; any number of processes may do so at once.
    ///
    /// # Errors
    /// The database's own.
    pub async fn setup(pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut tx = pool.begin().await?;
        // "if not exists" alone still collides when two processes start together.
        sqlx::raw_sql("set local client_min_messages = warning; select pg_advisory_xact_lock(hashtext('dev.mailbox'))")
            .execute(&mut *tx)
            .await?;
        sqlx::raw_sql(include_str!("mailbox.sql")).execute(&mut *tx).await?;
        tx.commit().await
    }

    /// The newest e-mails first, `limit` of them (at most 200), of one recipient or of all.
    ///
    /// # Errors
    /// The database's own.
    pub async fn list(&self, to: Option<&str>, limit: i64) -> Result<Vec<Stored>, sqlx::Error> {
        sqlx::query_as(
            r#"select id, recipient as "to", subject, body as "text", event, order_id, sent_at
               from dev.mailbox where $1::text is null or lower(recipient) = lower($1)
               order by sent_at desc, id desc limit $2"#,
        )
        .bind(to)
        .bind(limit.clamp(0, MAX_LISTED))
        .fetch_all(&self.pool)
        .await
    }
}

#[async_trait]
impl Mailer for DevMailbox {
    fn name(&self) -> &'static str {
        "mailbox"
    }

    async fn send(&self, email: &Email) -> Result<(), MailError> {
        // The real message is built too: what is kept is what SMTP would have carried.
        let raw = message(&self.from, email)?.formatted();
        sqlx::query(
            "insert into dev.mailbox (id, message_id, recipient, subject, body, event, order_id, raw)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (message_id) do nothing",
        )
        .bind(Uuid::now_v7())
        .bind(&email.message_id)
        .bind(&email.to)
        .bind(&email.subject)
        .bind(&email.text)
        .bind(&email.event)
        .bind(email.order_id.map(Uuid::from))
        .bind(String::from_utf8_lossy(&raw))
        .execute(&self.pool)
        .await
        .map_err(|error| MailError::Unreachable(error.to_string()))?;
        Ok(())
    }
}
