//! `cart-engine check-deploy`: would this release carry on what is running?

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
};

use engine::{
    Registry,
    inspect::{Rehearsed, rehearse},
};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Ended, config::Config, database::IfMissing, dev, failure::Failure, maintain::on_database, outside, say};

/// Runs whose journals are in memory at a time.
const PAGE: i64 = 64;
/// Between two words about how far it has come, in runs.
const PROGRESS: u64 = 64 * 50;

/// What was found of the live runs.
#[derive(Debug, Default)]
struct Survey {
    /// By workflow and version.
    tallies: BTreeMap<(String, i32), Tally>,
    runs: u64,
    refused: u64,
    /// The first of those that would not go on.
    shown: Vec<Rehearsed>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    runs: u64,
    refused: u64,
}

impl Survey {
    fn add(&mut self, run: Rehearsed, limit: usize) {
        let tally = self.tallies.entry((run.workflow.clone(), run.version)).or_default();
        tally.runs += 1;
        self.runs += 1;
        if run.failure.is_some() {
            tally.refused += 1;
            self.refused += 1;
            if self.shown.len() < limit {
                self.shown.push(run);
            }
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{:<32} {:>9} {:>15}", "workflow", "live runs", "would not go on")];
        for ((workflow, version), tally) in &self.tallies {
            lines.push(format!("{:<32} {:>9} {:>15}", format!("{workflow}/v{version}"), tally.runs, tally.refused));
        }
        for run in &self.shown {
            let why = run.failure.as_ref().map(ToString::to_string).unwrap_or_default();
            lines.push(format!("{}  {:<12}  {}/v{}  {why}", run.run_id, run.status, run.workflow, run.version));
        }
        let unshown = self.refused.saturating_sub(u64::try_from(self.shown.len()).unwrap_or(u64::MAX));
        if unshown > 0 {
            lines.push(format!("and {unshown} more; --limit shows more of them"));
        }
        lines.push(match self.refused {
            0 => format!("this release would carry on every one of {} live runs", self.runs),
            refused => format!("this release would not carry on {refused} of {} live runs", self.runs),
        });
        lines
    }

    fn json(&self) -> serde_json::Value {
        let workflows: Vec<_> = self
            .tallies
            .iter()
            .map(|((workflow, version), tally)| {
                json!({ "workflow": workflow, "version": version, "runs": tally.runs, "refused": tally.refused })
            })
            .collect();
        json!({ "runs": self.runs, "refused": self.refused, "workflows": workflows, "items": self.shown })
    }
}

/// Replays every live run's journal and tells of those that this release would park, `limit` of them one
/// by one. Before a release its schema is not there yet, so that of the release before will do.
///
/// # Errors
/// The database's own, a schema without runs, or a configuration that makes no sense.
pub(crate) async fn run(config: &Config, limit: usize, as_json: bool) -> Result<Ended, Failure> {
    let survey = on_database(config, IfMissing::Refuse, async |pool| {
        match migrations::check(pool).await {
            Ok(()) | Err(migrations::Error::Behind { found: 1.., .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let shop = outside::shop(config, dev::settings(pool).await?.as_ref(), pool)?;
        survey(pool, &workflows::registry(&shop), limit).await
    })
    .await?;
    if as_json {
        say(&serde_json::to_string(&survey.json())?);
    } else {
        survey.lines().iter().for_each(|line| say(line));
    }
    Ok(if survey.refused == 0 { Ended::Well } else { Ended::Unsound })
}

async fn survey(pool: &PgPool, registry: &Registry, limit: usize) -> Result<Survey, Failure> {
    let (mut survey, mut after, mut told) = (Survey::default(), Uuid::nil(), 0);
    loop {
        let page = rehearse(pool, registry, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(survey) };
        after = last.run_id;
        page.into_iter().for_each(|run| survey.add(run, limit));
        if survey.runs - told >= PROGRESS {
            told = survey.runs;
            let mut stderr = std::io::stderr().lock();
            if stderr.is_terminal() {
                // For a person who waits; nobody needs it.
                let _ = writeln!(stderr, "· {told} runs replayed, {} would not go on", survey.refused);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_go_on_is_counted_by_version_and_shown_up_to_a_limit() {
        let mut survey = Survey::default();
        for (version, code) in [(1, None), (2, Some("workflow-unknown")), (2, Some("workflow-unknown"))] {
            let failure = code.map(|code| engine::Failure::new(code, "a test"));
            let (workflow, status) = ("checkout".to_owned(), engine::RunStatus::Waiting);
            survey.add(Rehearsed { run_id: Uuid::nil(), workflow, version, status, failure }, 1);
        }
        assert_eq!(
            survey.lines(),
            [
                "workflow                         live runs would not go on",
                "checkout/v1                              1               0",
                "checkout/v2                              2               2",
                "00000000-0000-0000-0000-000000000000  WAITING       checkout/v2  workflow-unknown: a test",
                "and 1 more; --limit shows more of them",
                "this release would not carry on 2 of 3 live runs",
            ]
        );
    }
}
