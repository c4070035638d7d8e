//! Reading `outbox_events`: a feed that never skips an event that commits late.
//!
//! Numbers are drawn before commits are made, so "everything after the last number I saw" would skip an
//! event whose transaction was still open. The feed is in the order of (transaction, number) instead,
//! and stops below the oldest transaction that is still open: nothing can appear before its end any more.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// Most rows one reading looks at while it searches for a type.
const SCAN: i64 = 5_000;

/// An event in its envelope (CloudEvents 1.0, JSON format).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CloudEvent {
    /// Version of the envelope: `1.0`.
    pub specversion: &'static str,
    /// Unique; an event that is delivered twice has the same one.
    pub id: Uuid,
    /// Which shop: its public URL.
    pub source: String,
    /// What happened, e.g. `order.confirmed`.
    pub r#type: String,
    /// The order, cart, variant or reservation it is about.
    pub subject: String,
    /// When.
    pub time: DateTime<Utc>,
    /// Of `data`: `application/json`.
    pub datacontenttype: &'static str,
    /// Events of one subject happened in the order of their sequences: twenty digits, compared as text
    /// (CloudEvents extension "sequence").
    pub sequence: String,
    /// What happened, in full.
    pub data: Value,
}

/// A place in the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The transaction that wrote the event.
    pub xid: u64,
    /// The event's number.
    pub id: i64,
}

/// What a reader asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Behind this place; the default is before the first.
    pub after: Position,
    /// Of this type only.
    pub event_type: Option<&'a str>,
    /// About this subject only.
    pub subject: Option<&'a str>,
    /// Events wanted at most.
    pub limit: i64,
    /// Their `source`.
    pub source: &'a str,
}

/// A stretch of the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    /// In the order of the feed.
    pub events: Vec<CloudEvent>,
    /// Where to go on: everything before has been looked at. It is past the last event when a search for
    /// a type went through events of others.
    pub position: Position,
}

struct Row {
    xid: String,
    id: i64,
    event_id: Uuid,
    event_type: String,
    subject: String,
    data: Value,
    occurred_at: DateTime<Utc>,
    matches: bool,
}

impl Row {
    fn position(&self) -> Result<Position, sqlx::Error> {
        let xid = self.xid.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok(Position { xid, id: self.id })
    }

    fn envelope(self, source: &str) -> CloudEvent {
        CloudEvent {
            specversion: "1.0",
            id: self.event_id,
            source: source.to_owned(),
            r#type: self.event_type,
            subject: self.subject,
            time: self.occurred_at,
            datacontenttype: "application/json",
            sequence: format!("{:020}", self.id),
            data: self.data,
        }
    }
}

/// Reads on from a place. Events whose transaction is younger than the oldest open one of the server are
/// left for the next reading.
///
/// # Errors
/// The database's own.
pub async fn read(conn: &mut PgConnection, wanted: Wanted<'_>) -> Result<Feed, sqlx::Error> {
    let rows = match wanted.subject {
        Some(subject) => about(conn, subject, wanted).await?,
        None => onward(conn, wanted).await?,
    };
    let mut feed = Feed { events: Vec::with_capacity(rows.len()), position: wanted.after };
    for row in rows {
        feed.position = row.position()?;
        if row.matches {
            feed.events.push(row.envelope(wanted.source));
        }
    }
    Ok(feed)
}

/// A subject has few events, found by its index.
async fn about(conn: &mut PgConnection, subject: &str, wanted: Wanted<'_>) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"select xid::text as "xid!", id, event_id, event_type, subject, data, occurred_at, true as "matches!"
             from outbox_events
            where subject = $1 and ($2::text is null or event_type = $2)
              and (xid, id) > ($3::text::xid8, $4)
              and xid < pg_snapshot_xmin(pg_current_snapshot())
            order by outbox_events.xid, id limit $5"#,
        subject,
        wanted.event_type,
        wanted.after.xid.to_string(),
        wanted.after.id,
        wanted.limit
    )
    .fetch_all(conn)
    .await
}

/// The feed itself. In search of a type it looks at [`SCAN`] rows and tells the last one of them too, so
/// that the next reading goes on behind it.
async fn onward(conn: &mut PgConnection, wanted: Wanted<'_>) -> Result<Vec<Row>, sqlx::Error> {
    let scan = if wanted.event_type.is_some() { SCAN } else { wanted.limit };
    sqlx::query_as!(
        Row,
        r#"with scanned as materialized (
               select xid, id, event_id, event_type, subject, data, occurred_at
                 from outbox_events
                where (xid, id) > ($2::text::xid8, $3) and xid < pg_snapshot_xmin(pg_current_snapshot())
                order by xid, id limit $4),
           judged as (
               select xid, id, event_id, event_type, subject, data, occurred_at,
                      $1::text is null or event_type = $1 as matches,
                      lead(id) over (order by xid, id) is null as is_last
                 from scanned)
           select xid::text as "xid!", id as "id!", event_id as "event_id!", event_type as "event_type!",
                  subject as "subject!", data as "data!", occurred_at as "occurred_at!", matches as "matches!"
             from judged
            where matches or is_last
            order by judged.xid, id limit $5"#,
        wanted.event_type,
        wanted.after.xid.to_string(),
        wanted.after.id,
        scan,
        wanted.limit
    )
    .fetch_all(conn)
    .await
}
