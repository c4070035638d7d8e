//! `outbox_events`, `notifications`: what the shop tells others.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// To what: an order, a cart, a variant.
    pub subject: Uuid,
    /// Its name.
    pub event_type: &'static str,
    /// What there is to say about it.
    pub data: Value,
}

/// Writes events about one subject, in order, in the transaction that makes them true.
pub async fn publish(
    conn: &mut PgConnection,
    subject: Uuid,
    events: &[(&'static str, Value)],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let events: Vec<Event> =
        events.iter().map(|(event_type, data)| Event { subject, event_type, data: data.clone() }).collect();
    publish_many(conn, &events, now).await
}

/// The same about any subjects, in order.
pub async fn publish_many(conn: &mut PgConnection, events: &[Event], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let subjects: Vec<String> = events.iter().map(|event| event.subject.to_string()).collect();
    let types: Vec<&str> = events.iter().map(|event| event.event_type).collect();
    let data: Vec<&Value> = events.iter().map(|event| &event.data).collect();
    sqlx::query!(
        "insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         select gen_random_uuid(), e.event_type, e.subject, e.data, $1
           from unnest($2::text[], $3::text[], $4::jsonb[]) with ordinality as e(subject, event_type, data, position)
          order by e.position",
        now,
        &subjects,
        &types as &[&str],
        &data as &[&Value]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A message about to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The row's id; the Message-ID is made of it.
    pub id: Uuid,
    /// What it is about: an order, an abandonment, a report.
    pub subject_id: Uuid,
    /// What happened.
    pub event: &'a str,
    /// To whom.
    pub recipient: &'a str,
    /// Stable across retries.
    pub message_id: &'a str,
    /// The user who may not want messages of this kind.
    pub unless_opted_out: Option<Uuid>,
}

/// Records messages as SENDING. Returns the ids of those that are to be sent: not those that were recorded
/// before, nor those whose `unless_opted_out` is a user who does not want messages of their kind.
pub async fn record_sending(
    conn: &mut PgConnection,
    messages: &[Outgoing<'_>],
    now: DateTime<Utc>,
) -> Result<HashSet<Uuid>, sqlx::Error> {
    if messages.is_empty() {
        return Ok(HashSet::new());
    }
    let ids: Vec<Uuid> = messages.iter().map(|message| message.id).collect();
    let events: Vec<&str> = messages.iter().map(|message| message.event).collect();
    let subjects: Vec<Uuid> = messages.iter().map(|message| message.subject_id).collect();
    let recipients: Vec<&str> = messages.iter().map(|message| message.recipient).collect();
    let message_ids: Vec<&str> = messages.iter().map(|message| message.message_id).collect();
    let users: Vec<Option<Uuid>> = messages.iter().map(|message| message.unless_opted_out).collect();
    let recorded = sqlx::query!(
        "insert into notifications (id, event, subject_id, channel, recipient, message_id, status, created_at)
         select m.id, m.event, m.subject_id, 'EMAIL', m.recipient, m.message_id,
                case when exists (select from notification_preferences p where p.user_id = m.user_id and p.channel = 'EMAIL')
                     then 'SKIPPED' else 'SENDING' end, $7
           from unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::uuid[])
                as m(id, event, subject_id, recipient, message_id, user_id)
         on conflict on constraint notifications_once do nothing
         returning id, status",
        &ids,
        &events as &[&str],
        &subjects,
        &recipients as &[&str],
        &message_ids as &[&str],
        &users as &[Option<Uuid>],
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(recorded.into_iter().filter(|row| row.status == "SENDING").map(|row| row.id).collect())
}

/// A message that has no way out.
#[derive(Debug, Clone, Copy)]
pub struct Skip<'a> {
    /// What it is about.
    pub subject_id: Uuid,
    /// What happened.
    pub event: &'a str,
    /// On which channel: EMAIL, SMS or PUSH.
    pub channel: &'a str,
    /// To whom.
    pub recipient: &'a str,
    /// Why not.
    pub why: &'a str,
}

/// Records that these messages had no way out, those that were not recorded before.
pub async fn skip(conn: &mut PgConnection, skips: &[Skip<'_>], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    if skips.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = skips.iter().map(|_| Uuid::now_v7()).collect();
    let subjects: Vec<Uuid> = skips.iter().map(|skip| skip.subject_id).collect();
    let events: Vec<&str> = skips.iter().map(|skip| skip.event).collect();
    let channels: Vec<&str> = skips.iter().map(|skip| skip.channel).collect();
    let recipients: Vec<&str> = skips.iter().map(|skip| skip.recipient).collect();
    let reasons: Vec<&str> = skips.iter().map(|skip| skip.why).collect();
    sqlx::query!(
        "insert into notifications (id, event, subject_id, channel, recipient, message_id, status, detail, created_at)
         select s.id, s.event, s.subject_id, s.channel, s.recipient, s.id::text, 'SKIPPED', s.why, $1
           from unnest($2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[])
                as s(id, event, subject_id, channel, recipient, why)
         on conflict on constraint notifications_once do nothing",
        now,
        &ids,
        &events as &[&str],
        &subjects,
        &channels as &[&str],
        &recipients as &[&str],
        &reasons as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// SENDING → IN_DOUBT: it may have been handed over, and nobody knows. Returns how often by now.
pub async fn doubt(conn: &mut PgConnection, id: Uuid) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(
        "update notifications set status = 'IN_DOUBT', sends = sends + 1
          where id = $1 and status in ('SENDING', 'IN_DOUBT') returning sends",
        id
    )
    .fetch_one(conn)
    .await
}

/// How often a message that is not settled may have been handed over.
pub async fn doubts(conn: &mut PgConnection, id: Uuid) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!("select sends from notifications where id = $1", id).fetch_one(conn).await
}

/// → SENT, or FAILED with the reason, if there is one.
pub async fn settle(
    conn: &mut PgConnection,
    settled: &[(Uuid, Option<&str>)],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if settled.is_empty() {
        return Ok(());
    }
    let (ids, refused): (Vec<Uuid>, Vec<Option<&str>>) = settled.iter().copied().unzip();
    sqlx::query!(
        "update notifications n
            set status = case when s.refused is null then 'SENT' else 'FAILED' end, detail = s.refused, sends = n.sends + 1,
                sent_at = case when s.refused is null then $3::timestamptz end
           from unnest($1::uuid[], $2::text[]) as s(id, refused)
          where n.id = s.id and n.status in ('SENDING', 'IN_DOUBT')",
        &ids,
        &refused as &[Option<&str>],
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
