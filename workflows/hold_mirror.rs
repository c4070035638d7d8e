//! Mirrors the holds on stock outside Postgres (seed: Inventory Service, reservation id with a TTL of 600 s).
//!
//! An effect after the commit, and no step of a checkout: it follows the feed of events, which skips none
//! that commits late. An event only says of which order to look: what is mirrored is what Postgres says of
//! its hold by then, so hearing of it twice, or late, does no harm. The next event puts right what was
//! overtaken, and each entry ends with its hold anyway.

use std::collections::BTreeSet;

use domain::ports::{HoldMirror, MirrorAway, MirroredHold};
use sqlx::PgPool;
use uuid::Uuid;

use crate::store::{
    events::{self, Position, Wanted},
    inventory::mirrored,
};

/// What a hold's life is made of.
const MOVES: [&str; 3] = ["inventory.reserved", "inventory.committed", "inventory.released"];
/// Events looked at in one go.
const BATCH: i64 = 500;
/// Goes of one call; what is left then is for the next.
const GOES: usize = 20;

/// Why the mirror was not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum NotMirrored {
    /// It cannot be reached.
    #[error(transparent)]
    Away(#[from] MirrorAway),
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Brings the mirror up to date; returns how many orders' holds were looked at. No connection is held while
/// the mirror answers.
///
/// # Errors
/// [`NotMirrored`]: come again.
pub async fn follow(pool: &PgPool, mirror: &dyn HoldMirror) -> Result<usize, NotMirrored> {
    let mut looked_at = 0;
    for _ in 0..GOES {
        let known = mirror.position().await?;
        let mut conn = pool.acquire().await?;
        let from = match known.as_deref().and_then(read) {
            Some(position) => position,
            None => mirrored::oldest_hold(&mut conn).await?,
        };
        let wanted = Wanted { after: from, event_type: None, subject: None, limit: BATCH, source: "" };
        let feed = events::read(&mut conn, wanted).await?;
        if feed.position == from && known.is_some() {
            break;
        }
        let orders: BTreeSet<Uuid> = feed
            .events
            .iter()
            .filter(|event| MOVES.contains(&&*event.r#type))
            .filter_map(|event| event.subject.parse().ok())
            .collect();
        let orders: Vec<Uuid> = orders.into_iter().collect();
        let holds: Vec<MirroredHold> = mirrored::holds_of(&mut conn, &orders).await?;
        drop(conn);
        mirror.follow(known.as_deref(), &write(feed.position), &holds).await?;
        looked_at += holds.len();
    }
    Ok(looked_at)
}

fn write(position: Position) -> String {
    format!("{}.{}", position.xid, position.id)
}

/// One that cannot be read counts as forgotten.
fn read(text: &str) -> Option<Position> {
    let (xid, id) = text.split_once('.')?;
    Some(Position { xid: xid.parse().ok()?, id: id.parse().ok()? })
}
