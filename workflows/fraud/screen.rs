//! The step that scores checkouts, for many at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use domain::{
    fraud::{Count, Counted, Counter, Decision, Digest, Facts, Network, RuleSet, Score, evaluate},
    ids::{OrderId, UserId},
    money::Currency,
};
use engine::{Flow, Nothing, SetResult, SetStep, SetTx, StepError};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{book, refusal};
use crate::store::fraud::{
    rules::Kept,
    screenings::{self, Asked, Found, Need, NewScreening, Screened},
};

/// What is known of a checkout.
#[derive(Debug, Clone)]
pub struct ScreenOrder {
    /// The order it is to become.
    pub order_id: OrderId,
    /// Who buys; none for a guest.
    pub user_id: Option<UserId>,
    /// Of the address that the shop writes to.
    pub email: Option<Digest>,
    /// Of where the parcel goes.
    pub address: Option<Digest>,
    /// Where the request came from.
    pub network: Option<Network>,
    /// Of the payment token; none for cash.
    pub token: Option<Digest>,
    /// Who pays is there.
    pub billing_country: String,
    /// The parcel goes there.
    pub shipping_country: String,
    /// What is bought comes to this, in major units.
    pub amount: Decimal,
    /// Of the amount.
    pub currency: Currency,
}

/// What a checkout got. Neither score nor reasons: a run's journal is read by more people than they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Screening {
    /// What becomes of it.
    pub decision: Decision,
    /// How long the staff may take to look at it, in seconds.
    pub review_deadline_s: i32,
}

/// How often the rules may change while they are being read.
const READS: usize = 3;

/// Between the cart's check and the coupons: whoever shares a key that is counted waits here, before any row is locked.
///
/// It refuses nobody, since who is refused has written nothing, and a denied checkout is to be on record.
impl SetStep for ScreenOrder {
    const NAME: &'static str = "ScreenOrder";
    type Output = Screening;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<Screening> {
        let now = tx.now();
        Ok(screen_all(tx.conn(), rows, now).await?.into_iter().map(Ok).collect())
    }
}

/// Screens these checkouts by the present rules, each once: one that was screened before gets what it got then. Returns
/// what each gets, in their order. Until the transaction ends, nobody else is counted who shares with them what is
/// counted exactly; a checkout that shares nothing waits for nobody.
///
/// # Errors
/// The database's own.
pub async fn screen_all(
    conn: &mut PgConnection,
    checkouts: &[ScreenOrder],
    now: DateTime<Utc>,
) -> Result<Vec<Screening>, StepError> {
    let mut kept = book::latest(conn).await?;
    for _ in 0..READS {
        if let Some(screened) = screen_by(conn, &kept, checkouts, now).await? {
            return Ok(screened);
        }
        kept = book::read(conn).await?;
    }
    Err(StepError::Retry("the fraud rules changed all the time".into()))
}

/// None if these are not the present rules.
async fn screen_by(
    conn: &mut PgConnection,
    kept: &Kept,
    rows: &[ScreenOrder],
    now: DateTime<Utc>,
) -> Result<Option<Vec<Screening>>, sqlx::Error> {
    let counters = kept.rules.counters();
    let facts: Vec<Facts> = rows.iter().map(|row| row.facts(now)).collect();
    let asked = asked(rows, &facts, &counters);
    let Some(found) = screenings::look(conn, kept.id, &asked, now).await? else { return Ok(None) };
    let stored = found.screened.iter().map(|screened| (screened.order_id, Screening::from(*screened)));
    let mut known: HashMap<OrderId, Screening> = stored.collect();
    let since: HashMap<UserId, DateTime<Utc>> =
        found.accounts.iter().map(|account| (account.user_id, account.since)).collect();
    let mut ahead = Ahead::new(&asked, &found);
    let mut scored: Vec<Scored> = Vec::with_capacity(rows.len());
    for (row, mut facts) in rows.iter().zip(facts) {
        // Once is enough, however often it comes.
        if known.contains_key(&row.order_id) {
            continue;
        }
        facts.account_since = facts.user_id.and_then(|user_id| since.get(&user_id).copied());
        facts.counts = ahead.count_in(&facts, &counters);
        let (score, keys) = (evaluate(&kept.rules, &facts), keys(&facts, &counters));
        let review_deadline_s = kept.rules.review_deadline_s;
        known.insert(row.order_id, Screening { decision: score.decision, review_deadline_s });
        scored.push(Scored { order_id: row.order_id, facts, score, keys });
    }
    let new: Vec<NewScreening<'_>> = scored.iter().map(|scored| scored.as_new(&kept.rules)).collect();
    screenings::record(conn, &new).await?;
    let screening = |row: &ScreenOrder| known.get(&row.order_id).copied().ok_or(sqlx::Error::RowNotFound);
    rows.iter().map(screening).collect::<Result<_, _>>().map(Some)
}

impl ScreenOrder {
    /// What there is before anything was looked up.
    fn facts(&self, now: DateTime<Utc>) -> Facts {
        Facts {
            user_id: self.user_id,
            account_since: None,
            email: self.email,
            address: self.address,
            network: self.network,
            token: self.token,
            billing_country: self.billing_country.clone(),
            shipping_country: self.shipping_country.clone(),
            amount: self.amount,
            currency: self.currency,
            at: now,
            counts: Vec::new(),
        }
    }
}

impl From<Screened> for Screening {
    fn from(Screened { decision, review_deadline_s, .. }: Screened) -> Self {
        Screening { decision, review_deadline_s }
    }
}

/// What must be looked up for these checkouts: each thing once, whoever shares it.
fn asked(rows: &[ScreenOrder], facts: &[Facts], counters: &BTreeMap<Counter, u32>) -> Asked {
    let (mut exact, mut needs) = (BTreeSet::new(), BTreeSet::new());
    for facts in facts {
        for (&Counter { counted, by, window_s }, &most) in counters {
            let Some(key) = facts.key(by) else { continue };
            needs.insert(Need { key, counted, window_s, most });
            match counted {
                Counted::Checkouts => exact.insert(key),
                // Those before are no longer changed by who comes now.
                Counted::FailedAttempts => false,
            };
        }
    }
    Asked {
        orders: rows.iter().map(|row| row.order_id).collect(),
        users: rows.iter().filter_map(|row| row.user_id).collect::<BTreeSet<_>>().into_iter().collect(),
        exact: exact.into_iter().collect(),
        needs: needs.into_iter().collect(),
    }
}

/// What a checkout will be counted by.
fn keys(facts: &Facts, counters: &BTreeMap<Counter, u32>) -> Vec<Digest> {
    let keys: BTreeSet<Digest> = counters.keys().filter_map(|counter| facts.key(counter.by)).collect();
    keys.into_iter().collect()
}

/// How many came before the next row of a set: those in the books, and the rows before it.
struct Ahead(HashMap<(Counted, u32, Digest), u32>);

impl Ahead {
    fn new(asked: &Asked, found: &Found) -> Self {
        let place = |need: &Need| (need.counted, need.window_s, need.key);
        Ahead(asked.needs.iter().map(place).zip(found.seen.iter().copied()).collect())
    }

    /// What the counters show to this row; those behind it see it, too.
    fn count_in(&mut self, facts: &Facts, counters: &BTreeMap<Counter, u32>) -> Vec<Count> {
        let mut counts = Vec::with_capacity(counters.len());
        for (&counter, &most) in counters {
            let Some(key) = facts.key(counter.by) else { continue };
            let seen = self.0.entry((counter.counted, counter.window_s, key)).or_default();
            counts.push(Count { counter, most, seen: most.min(*seen) });
            *seen += match counter.counted {
                Counted::Checkouts => 1,
                // Nobody in this set has paid yet.
                Counted::FailedAttempts => 0,
            };
        }
        counts
    }
}

/// A checkout and its score, to be written down.
struct Scored {
    order_id: OrderId,
    facts: Facts,
    score: Score,
    keys: Vec<Digest>,
}

impl Scored {
    fn as_new(&self, rules: &RuleSet) -> NewScreening<'_> {
        NewScreening {
            order_id: self.order_id,
            rules_version: rules.version,
            review_deadline_s: rules.review_deadline_s,
            facts: &self.facts,
            score: &self.score,
            keys: &self.keys,
        }
    }
}

/// Screens this checkout. One that is denied has failed, once that is on record.
///
/// # Errors
/// [`refusal`].
pub async fn screen(flow: &mut Flow, checkout: ScreenOrder) -> engine::Result<Screening> {
    let screening = flow.tx(checkout).undo(Nothing).await?;
    match screening.decision {
        Decision::Allow | Decision::Review => Ok(screening),
        Decision::Deny => {
            flow.checkpoint().await?;
            Err(refusal())
        }
    }
}
