//! The rules by which checkouts are scored: admins read them, replace them, and try others on past checkouts.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::fraud::{Decision, Draft, DraftRule, Kind, Rule, RuleSet};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::{
    fraud::{Change, DryRun, DryRunError, dry_run},
    store::fraud::rules as store,
};

use crate::{
    caller::Caller,
    error::{ApiError, FieldError},
    etag::{IfMatch, etag},
    extract::Json,
    openapi::Problem,
    state::AppState,
    valid::{Complaints, optional_reason},
    write::Write,
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show, replace)).routes(routes!(try_out))
}

/// A rule.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleBody {
    /// What its reasons are called by; no other rule of the set has it.
    #[schema(min_length = 1, max_length = 60, examples("Billed abroad"))]
    name: String,
    /// VELOCITY, FAILED_ATTEMPTS, AMOUNT_BY_ACCOUNT_AGE, COUNTRY_MISMATCH, BLOCK_LIST or ALLOW_LIST.
    #[schema(value_type = String, examples("COUNTRY_MISMATCH"))]
    kind: Kind,
    /// 1 to 1000; an allow list takes them off the score.
    #[schema(minimum = 1, maximum = 1000, examples(20))]
    points: i64,
    /// VELOCITY and FAILED_ATTEMPTS: `{by, limit, windowS}`; AMOUNT_BY_ACCOUNT_AGE: `{amount, currency,
    /// youngerThanS}`; BLOCK_LIST and ALLOW_LIST: `{entries: [{by, value}]}`; else none. `by` is ACCOUNT, EMAIL,
    /// ADDRESS, NETWORK or TOKEN. E-mail addresses and tokens are kept as SHA-256 digests; postal addresses are given
    /// as such, as a review shows them. What is counted is counted from when its rule is switched on.
    #[schema(value_type = Object)]
    #[serde(default = "no_parameters")]
    parameters: Value,
    /// Switched on, unless it says otherwise.
    #[schema(examples(true))]
    #[serde(default = "switched_on")]
    enabled: bool,
}

fn no_parameters() -> Value {
    json!({})
}

fn switched_on() -> bool {
    true
}

/// How long the staff may take where nobody says: a day.
fn a_day() -> i64 {
    86_400
}

/// The rules, in the order of their reasons.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RulesView {
    #[schema(examples(1))]
    version: i32,
    /// From so many points on, the money is set aside until somebody has looked.
    #[schema(examples(60))]
    review_at: i32,
    /// From so many points on, a checkout goes no further.
    #[schema(examples(100))]
    deny_at: i32,
    /// Without a decision for so many seconds the money goes back.
    #[schema(examples(86400))]
    review_deadline_s: i32,
    rules: Vec<RuleBody>,
}

impl From<Rule> for RuleBody {
    fn from(rule: Rule) -> Self {
        let (kind, parameters) = rule.condition.written();
        RuleBody { name: rule.name, kind, points: rule.points.into(), parameters, enabled: rule.enabled }
    }
}

impl From<RuleBody> for DraftRule {
    fn from(RuleBody { name, kind, points, parameters, enabled }: RuleBody) -> Self {
        DraftRule { name, kind, points, parameters, enabled }
    }
}

impl From<RuleSet> for RulesView {
    fn from(RuleSet { version, review_at, deny_at, review_deadline_s, rules }: RuleSet) -> Self {
        let rules = rules.into_iter().map(RuleBody::from).collect();
        RulesView { version, review_at, deny_at, review_deadline_s, rules }
    }
}

fn parse(draft: Draft) -> Result<RuleSet, ApiError> {
    draft.parse().map_err(|problems| {
        ApiError::invalid(problems.into_iter().map(|wrong| FieldError::new(wrong.pointer, wrong.detail)).collect())
    })
}

/// Rules that replace others.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RulesBody {
    /// The version they replace; theirs is the next.
    #[schema(examples(1))]
    version: i32,
    /// 1 to `denyAt`.
    #[schema(minimum = 1, maximum = 50000, examples(60))]
    review_at: i64,
    /// 1 to 50000.
    #[schema(minimum = 1, maximum = 50000, examples(100))]
    deny_at: i64,
    /// A minute to two and a half days: money may not be set aside for longer everywhere.
    #[schema(minimum = 60, maximum = 216000, examples(86400))]
    review_deadline_s: i64,
    /// At most 50.
    #[schema(max_items = 50)]
    rules: Vec<RuleBody>,
    /// For the audit log.
    #[schema(max_length = 500, examples("Cards are being tried from one network"))]
    #[serde(default)]
    reason: Option<String>,
}

/// The rules as they stand. Admins only.
#[utoipa::path(
    get, path = "/api/fraud/rules", tag = "Fraud", security(("bearer" = [])),
    responses(
        (status = 200, description = "The rules; their version is the ETag", body = RulesView),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn show(State(state): State<AppState>, caller: Caller) -> Result<Response, ApiError> {
    caller.require_admin()?;
    let kept = store::current(&mut *state.pool.acquire().await?).await?;
    let tag = etag(kept.rules.version.into());
    Ok(([(header::ETAG, tag)], Json(RulesView::from(kept.rules))).into_response())
}

/// Replaces all rules, for every checkout that is screened from now on. Admins only.
#[utoipa::path(
    put, path = "/api/fraud/rules", tag = "Fraud", request_body = RulesBody, security(("bearer" = [])),
    params(("If-Match" = Option<String>, Header, description = "The ETag of the rules they replace")),
    responses(
        (status = 200, description = "The rules as they are now", body = RulesView),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`fraud-rules-changed`: `version` is the present one", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn replace(
    State(state): State<AppState>,
    caller: Caller,
    if_match: IfMatch,
    Json(body): Json<RulesBody>,
) -> Result<Response, ApiError> {
    caller.require_admin()?;
    let RulesBody { version: replaced, review_at, deny_at, review_deadline_s, rules, reason } = body;
    let reason = optional_reason(reason)?;
    let rules = rules.into_iter().map(DraftRule::from).collect();
    let draft = Draft { version: replaced.saturating_add(1), review_at, deny_at, review_deadline_s, rules };
    let rules = parse(draft)?;
    let mut write = Write::once(&state, &caller).await?;
    if if_match.is_given() && !if_match.allows(store::current(write.conn()).await?.rules.version.into()) {
        return Err(ApiError::precondition_failed("The rules have changed since you read them."));
    }
    if !store::replace(write.conn(), replaced, &rules, &caller.key()?, reason.as_deref()).await? {
        let present = store::current(write.conn()).await?.rules.version;
        let refusal = ApiError::conflict("fraud-rules-changed", "Somebody has changed the rules meanwhile.");
        return Err(refusal.with("version", present));
    }
    let subject = format!("fraud-rules:{}", rules.version);
    write.note("fraud.rules.replace", &subject, reason.as_deref(), &json!({ "replaces": replaced })).await?;
    let tag = etag(rules.version.into());
    let mut response = write.answer(StatusCode::OK, &RulesView::from(rules)).await?;
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// Rules to be tried out, and on what.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DryRunBody {
    /// Need not be given, and means nothing here.
    #[serde(default)]
    #[expect(dead_code, reason = "so that what was read can be sent as it is")]
    version: Option<i32>,
    /// 1 to `denyAt`.
    #[schema(minimum = 1, maximum = 50000, examples(60))]
    review_at: i64,
    /// 1 to 50000.
    #[schema(minimum = 1, maximum = 50000, examples(100))]
    deny_at: i64,
    /// A minute to two and a half days.
    #[schema(minimum = 60, maximum = 216000, examples(86400))]
    #[serde(default = "a_day")]
    review_deadline_s: i64,
    /// At most 50.
    #[schema(max_items = 50)]
    rules: Vec<RuleBody>,
    /// Checkouts screened from then on.
    #[schema(examples("2026-01-01T00:00:00Z"))]
    from: DateTime<Utc>,
    /// And before then.
    #[schema(examples("2026-01-02T00:00:00Z"))]
    to: DateTime<Utc>,
}

/// A checkout that would have got something else.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ChangeView {
    /// The order; one that was denied was never made.
    order_id: Uuid,
    /// What it got: ALLOW, REVIEW or DENY.
    #[schema(value_type = String, examples("ALLOW"))]
    was: Decision,
    /// What it would have got.
    #[schema(value_type = String, examples("REVIEW"))]
    now: Decision,
}

/// What the rules would have made of past checkouts.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DryRunView {
    /// Checkouts in that time.
    #[schema(examples(1000))]
    orders: u64,
    #[schema(examples(990))]
    allow: u64,
    #[schema(examples(9))]
    review: u64,
    #[schema(examples(1))]
    deny: u64,
    /// The first 100 that would have got something else.
    changed: Vec<ChangeView>,
    /// There are more than those.
    #[schema(examples(false))]
    truncated: bool,
}

impl From<DryRun> for DryRunView {
    fn from(DryRun { orders, allow, review, deny, changed, truncated }: DryRun) -> Self {
        let change = |Change { order_id, was, now }: Change| ChangeView { order_id: order_id.into(), was, now };
        DryRunView { orders, allow, review, deny, changed: changed.into_iter().map(change).collect(), truncated }
    }
}

impl From<DryRunError> for ApiError {
    fn from(error: DryRunError) -> Self {
        let detail = error.to_string();
        match error {
            DryRunError::TooMany => ApiError::unprocessable("too-many-checkouts", detail),
            DryRunError::Database(error) => error.into(),
        }
    }
}

/// Scores past checkouts by other rules, and says what would have been different. Nothing is changed. Admins only.
#[utoipa::path(
    post, path = "/api/fraud/rules/dry-run", tag = "Fraud", request_body = DryRunBody, security(("bearer" = [])),
    responses(
        (status = 200, description = "What the rules would have made of them", body = DryRunView),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`; `too-many-checkouts`: choose a shorter time", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn try_out(
    State(state): State<AppState>,
    caller: Caller,
    Json(body): Json<DryRunBody>,
) -> Result<Json<DryRunView>, ApiError> {
    caller.require_admin()?;
    let DryRunBody { version: _, review_at, deny_at, review_deadline_s, rules, from, to } = body;
    let mut complaints = Complaints::default();
    complaints.instant("/from", from);
    complaints.instant("/to", to);
    complaints.note(from >= to, "/to", "must be after `from`");
    let errors = complaints.into_errors();
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let rules = rules.into_iter().map(DraftRule::from).collect();
    let rules = parse(Draft { version: 1, review_at, deny_at, review_deadline_s, rules })?;
    let outcome = dry_run(&mut *state.pool.acquire().await?, &rules, from, to).await?;
    Ok(Json(outcome.into()))
}
