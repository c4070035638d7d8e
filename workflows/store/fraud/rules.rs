//! `fraud_rule_sets`: a version is written once, and never changed.

use domain::fraud::{Rule, RuleSet};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// The rules as they stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Of this row, in this database.
    pub id: Uuid,
    /// The rules.
    pub rules: RuleSet,
}

/// The present rule set.
///
/// # Errors
/// The database's own; a set that this program cannot read.
pub async fn current(conn: &mut PgConnection) -> Result<Kept, sqlx::Error> {
    let row = sqlx::query!(
        r#"select id, version, review_at, deny_at, review_deadline_s, rules as "rules: Json<Vec<Rule>>"
             from fraud_rule_sets order by version desc limit 1"#
    )
    .fetch_one(conn)
    .await?;
    let rules = RuleSet {
        version: row.version,
        review_at: row.review_at,
        deny_at: row.deny_at,
        review_deadline_s: row.review_deadline_s,
        rules: row.rules.0,
    };
    Ok(Kept { id: row.id, rules })
}

/// Writes the version after `replaced`, which is that of `rules`. False if `replaced` is not the present one: of two
/// who replace the same version one does.
///
/// # Errors
/// The database's own.
pub async fn replace(
    conn: &mut PgConnection,
    replaced: i32,
    rules: &RuleSet,
    by: &str,
    reason: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let RuleSet { version, review_at, deny_at, review_deadline_s, rules } = rules;
    let written = sqlx::query!(
        "insert into fraud_rule_sets (version, review_at, deny_at, review_deadline_s, rules, created_by, reason)
         select $2, $3, $4, $5, $6, $7, $8
          where (select max(version) from fraud_rule_sets) = $1
         on conflict (version) do nothing",
        replaced,
        version,
        review_at,
        deny_at,
        review_deadline_s,
        Json(rules) as _,
        by,
        reason
    )
    .execute(conn)
    .await?;
    Ok(written.rows_affected() > 0)
}
