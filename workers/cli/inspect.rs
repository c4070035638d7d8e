//! `cart-engine inspect`: looking at runs.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::SecondsFormat;
use engine::{
    RunStatus,
    inspect::{self, JournalEntry, Run},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;
use workflows::store::{
    audit_log::{self, Line},
    disputes::{self, DisputeHead},
    reconciliation::checks::{self, SetAside},
    refunds::held::{self, Held},
    webhook_inbox::{self, Unplaced},
};

use crate::{
    Ended, arguments::InspectCommand, config::Config, database::IfMissing, failure::Failure, maintain::on_database,
    say, shutdown::Stop,
};

/// How often `tail` looks.
const TAIL_EVERY: Duration = Duration::from_millis(500);
/// How many of the newest runs it follows.
const TAIL_RUNS: i64 = 500;
/// What was done to a run by hand: so many of the latest are shown.
const ACTIONS: i64 = 50;
/// Characters of a journal's JSON shown in a line.
const SHOWN: usize = 160;

/// Shows what was asked for.
///
/// # Errors
/// The database's own, or no such run.
pub(crate) async fn run(config: &Config, command: InspectCommand) -> Result<Ended, Failure> {
    on_database(config, IfMissing::Refuse, async |pool| {
        migrations::check(pool).await?;
        match command {
            InspectCommand::Runs { workflow, status, limit, json } => {
                show(&inspect::runs(pool, workflow.as_deref(), status, limit).await?, json)
            }
            InspectCommand::Stuck { limit, json } => stuck(pool, limit, json).await,
            InspectCommand::Money { limit, json } => money(pool, limit, json).await,
            InspectCommand::Run { id, json } => one(pool, id, json).await,
            InspectCommand::Tail => tail(pool).await,
        }
    })
    .await?;
    Ok(Ended::Well)
}

fn show(runs: &[Run], as_json: bool) -> Result<(), Failure> {
    if as_json {
        say(&serde_json::to_string(&json!({ "items": runs }))?);
    } else {
        runs.iter().for_each(|run| say(&line(run)));
    }
    Ok(())
}

/// Parked runs, and refunds that wait for a person, or for another that does.
async fn stuck(pool: &PgPool, limit: i64, as_json: bool) -> Result<(), Failure> {
    let parked = inspect::runs(pool, None, Some(RunStatus::Stuck), limit).await?;
    let refunds = held::held(&mut *pool.acquire().await?, Uuid::nil(), limit).await?;
    if as_json {
        say(&serde_json::to_string(&json!({ "items": parked, "refunds": refunds }))?);
    } else if parked.is_empty() && refunds.is_empty() {
        say("nothing is stuck");
    } else {
        parked.iter().for_each(|run| say(&line(run)));
        refunds.iter().for_each(|refund| say(&held_line(refund)));
    }
    Ok(())
}

/// Refunds that do not get on, disputes that are open, comparisons that did not succeed, and messages of gateways that
/// fit nothing.
async fn money(pool: &PgPool, limit: i64, as_json: bool) -> Result<(), Failure> {
    let mut conn = pool.acquire().await?;
    let refunds = held::held(&mut conn, Uuid::nil(), limit).await?;
    let disputes = disputes::open(&mut conn, limit).await?;
    let aside = checks::aside(&mut conn, limit).await?;
    let unplaced = webhook_inbox::unplaced(&mut conn, limit).await?;
    if as_json {
        let all = json!({ "refunds": refunds, "disputes": disputes, "setAside": aside, "webhooks": unplaced });
        say(&serde_json::to_string(&all)?);
        return Ok(());
    }
    if refunds.is_empty() && disputes.is_empty() && aside.is_empty() && unplaced.is_empty() {
        say("no money waits for a person");
    }
    refunds.iter().for_each(|refund| say(&held_line(refund)));
    disputes.iter().for_each(|dispute| say(&dispute_line(dispute)));
    for SetAside { order_id, gateway, pass, attempts, problem, is_tried_again } in &aside {
        let (problem, again) = (problem.as_deref().unwrap_or("no reason"), again(*is_tried_again));
        say(&format!(
            "comparison {pass} of order {order_id} with {gateway}  tried {attempts} times, {again}  {problem}"
        ));
    }
    for Unplaced { gateway, event_id, event_type, outcome, body, received_at, is_tried_again } in &unplaced {
        let at = received_at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let again = again(*is_tried_again);
        say(&format!("{at}  {outcome} {event_type} {event_id} of {gateway}, {again}  {}", cut(body)));
    }
    Ok(())
}

fn again(is_tried_again: bool) -> &'static str {
    if is_tried_again { "and tried again" } else { "and not tried again" }
}

/// One refund in one line: since when, which, of what, and what it waits for.
fn held_line(refund: &Held) -> String {
    let Held { refund_id, order_id, run_id, amount, currency, failure, since } = refund;
    let why = failure.as_deref().unwrap_or("no reason given");
    format!(
        "{}  refund {refund_id}  {amount} {currency} of order {order_id}, run {run_id}  waits for a decision: the \
         gateway refused it ({why})",
        since.to_rfc3339_opts(SecondsFormat::Millis, true)
    )
}

/// One dispute in one line: since when, which, of what, and why.
fn dispute_line(dispute: &DisputeHead) -> String {
    let DisputeHead { gateway, dispute_id, order_id, payment_id, amount, currency, reason, opened_at, .. } = dispute;
    let of = match (amount, currency) {
        (Some(amount), Some(currency)) => format!("{amount} {currency}"),
        (_, _) => "an unknown amount".to_owned(),
    };
    format!(
        "{}  dispute {dispute_id}  {of} of order {order_id}, payment {payment_id}  waits for an answer at {gateway} ({})",
        opened_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        reason.as_deref().unwrap_or("no reason given")
    )
}

async fn one(pool: &PgPool, id: Uuid, as_json: bool) -> Result<(), Failure> {
    let run = inspect::run(pool, id).await?.ok_or_else(|| {
        Failure::new(format!("there is no run {id}")).hint("`cart-engine inspect runs` lists the newest")
    })?;
    let journal = inspect::journal(pool, id).await?;
    let signals = inspect::signals(pool, id).await?;
    let actions = audit_log::about(&mut *pool.acquire().await?, &format!("run:{id}"), ACTIONS).await?;
    if as_json {
        let all = json!({ "run": run, "journal": journal, "signals": signals, "actions": actions });
        say(&serde_json::to_string(&all)?);
        return Ok(());
    }
    say(&line(&run));
    for (name, value) in
        [("input", Some(&run.input)), ("output", run.output.as_ref()), ("failure", run.failure.as_ref())]
    {
        if let Some(value) = value {
            say(&format!("  {name:<8} {value}"));
        }
    }
    journal.iter().for_each(|entry| say(&step(entry)));
    for sent in &signals {
        let heard = if sent.consumed_at.is_some() { "heard" } else { "not heard yet" };
        let at = sent.sent_at.to_rfc3339_opts(SecondsFormat::Millis, true);
        say(&format!("  signal {}  {at}  {heard}  {}", sent.name, cut(&sent.payload)));
    }
    for Line { actor, action, reason, at, .. } in &actions {
        let (at, reason) = (at.to_rfc3339_opts(SecondsFormat::Millis, true), reason.as_deref().unwrap_or("no reason"));
        say(&format!("  {action}  {at}  by {actor}: {reason}"));
    }
    Ok(())
}

/// One run in one line: when, which, where it stands, and why it stands there.
fn line(run: &Run) -> String {
    let why = match (&run.waiting_for, &run.failure) {
        (Some(signal), _) => format!("  waits for {signal}"),
        (None, Some(failure)) => format!("  {}", cut(failure)),
        (None, None) => String::new(),
    };
    format!(
        "{}  {}  {:<12}  {}/v{}  {}{why}",
        run.created_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        run.id,
        run.status,
        run.workflow,
        run.version,
        run.run_key
    )
}

fn step(entry: &JournalEntry) -> String {
    let what = entry.error.as_ref().or(entry.output.as_ref()).map(cut).unwrap_or_default();
    format!(
        "  {:>3}  {}  {:<9}  {}  {what}",
        entry.seq,
        entry.recorded_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        entry.kind,
        entry.name
    )
}

fn cut(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Prints each run whose state changed, until it is told to stop.
async fn tail(pool: &PgPool) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let mut ticks = tokio::time::interval(TAIL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut seen: Option<HashMap<Uuid, Seen>> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.asked() => return Ok(()),
        }
        let mut runs = inspect::runs(pool, None, None, TAIL_RUNS).await?;
        runs.reverse();
        for run in changed(&mut seen, &runs) {
            say(&line(run));
        }
    }
}

/// Where a run stood when it was last shown.
type Seen = (RunStatus, Option<String>);

/// What is to be shown of `runs`: nothing the first time, which only learns what there is.
fn changed<'a>(seen: &mut Option<HashMap<Uuid, Seen>>, runs: &'a [Run]) -> Vec<&'a Run> {
    let first = seen.is_none();
    let seen = seen.get_or_insert_default();
    let fresh = runs
        .iter()
        .filter(|run| {
            let now = (run.status, run.waiting_for.clone());
            seen.insert(run.id, now.clone()).as_ref() != Some(&now) && !first
        })
        .collect();
    // Only the newest are followed, so only they are remembered.
    let followed: HashSet<Uuid> = runs.iter().map(|run| run.id).collect();
    seen.retain(|id, _| followed.contains(id));
    fresh
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn a_run(status: RunStatus) -> Run {
        Run {
            id: Uuid::nil(),
            workflow: "checkout".to_owned(),
            version: 1,
            run_key: "cart:1".to_owned(),
            status,
            input: Value::Null,
            output: None,
            failure: None,
            waiting_for: None,
            wake_at: None,
            epoch: 1,
            crashes: 0,
            created_at: DateTime::UNIX_EPOCH,
            finished_at: None,
        }
    }

    #[test]
    fn tail_shows_changes_only() {
        let mut seen = None;
        for (status, shown) in
            [(RunStatus::Pending, 0), (RunStatus::Running, 1), (RunStatus::Running, 0), (RunStatus::Completed, 1)]
        {
            assert_eq!(changed(&mut seen, &[a_run(status)]).len(), shown, "{status}");
        }
    }

    #[test]
    fn a_dispute_is_one_line() {
        let dispute = |amount: Option<i64>, reason: Option<&str>| DisputeHead {
            gateway: "stripe".to_owned(),
            dispute_id: "dp_1".to_owned(),
            order_id: Uuid::nil(),
            payment_id: "pi_1".to_owned(),
            amount: amount.map(|paise| rust_decimal::Decimal::new(paise, 2)),
            currency: amount.map(|_| "INR".to_owned()),
            status: "OPENED".to_owned(),
            reason: reason.map(str::to_owned),
            opened_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        };
        let of = "of order 00000000-0000-0000-0000-000000000000, payment pi_1  waits for an answer at stripe";
        assert_eq!(
            [dispute_line(&dispute(Some(5_905_000), Some("fraudulent"))), dispute_line(&dispute(None, None))],
            [
                format!("1970-01-01T00:00:00.000Z  dispute dp_1  59050.00 INR {of} (fraudulent)"),
                format!("1970-01-01T00:00:00.000Z  dispute dp_1  an unknown amount {of} (no reason given)"),
            ]
        );
    }

    #[test]
    fn a_run_is_one_line() {
        assert_eq!(
            line(&Run { waiting_for: Some("payment".to_owned()), ..a_run(RunStatus::Waiting) }),
            "1970-01-01T00:00:00.000Z  00000000-0000-0000-0000-000000000000  WAITING       checkout/v1  cart:1  waits for payment"
        );
    }
}
