//! The OpenAPI document, generated from the handlers, and the pages that show it.

pub(crate) mod examples;
pub(crate) mod promises;

use axum::{
    Router,
    http::{HeaderValue, header},
    middleware::map_response,
    response::Response,
};
use serde::Serialize;
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::{
        Content, OpenApi as Document, PathItem, Ref, RefOr, ResponseBuilder,
        path::{Operation, Parameter, ParameterIn},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::{error::PROBLEM_JSON, state::AppState};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cart Engine",
        description = "Durable carts, checkout and orders. Money is a decimal string beside its currency; \
                       times are RFC 3339 in UTC; every refusal is an RFC 9457 problem with a stable `code`. \
                       Beside what each operation lists, any request may be refused with 400 `malformed-host`, \
                       400 `malformed-framing`, 414 `uri-too-long`, 422 `card-data-refused`, 431 `headers-too-large`, 405 \
                       `method-not-allowed`, 500 `internal`, and one with a body with 400 `malformed-body`, 408 \
                       `request-timeout`, 413 `body-too-large` or, if it is encoded, 415 `unsupported-media-type`."
    ),
    components(schemas(Problem)),
    modifiers(&Security)
)]
struct Base;

/// A refusal (RFC 9457). Some codes add members of their own, such as `available`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Names the kind of problem.
    r#type: String,
    /// The kind, in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened, for people.
    detail: String,
    /// Stable, kebab-case; what programs match on.
    code: String,
    /// With 422: every place that is wrong.
    #[schema(required = false)]
    errors: Vec<ProblemPlace>,
}

/// One place of a request that is wrong.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProblemPlace {
    /// JSON pointer into the body, or `/name` of a parameter.
    pointer: String,
    /// What is wrong there.
    detail: String,
}

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        for (name, header) in [("cartSession", "X-Cart-Session"), ("apiKey", "X-Api-Key")] {
            components.add_security_scheme(name, SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(header))));
        }
    }
}

/// The document without paths; each resource merges its own into it.
pub(crate) fn document() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Base::openapi())
}

/// Every operation with its method, in lower case, and its path.
fn operations(document: &mut Document) -> Vec<(&'static str, String, &mut Operation)> {
    let mut operations = Vec::new();
    for (path, item) in &mut document.paths.paths {
        let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
        let methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
        let items = [get, put, post, delete, options, head, patch, trace];
        let offered = methods.into_iter().zip(items).filter_map(|(method, item)| Some((method, item.as_mut()?)));
        operations.extend(offered.map(|(method, operation)| (method, path.clone(), operation)));
    }
    operations
}

/// Adds to every operation what the layers around it and the extractors before it may refuse, so that a
/// handler documents only what it refuses itself; and names it by method and path, since handlers of
/// different resources have the same names.
pub(crate) fn add_common_refusals(document: &mut Document) {
    for (method, path, operation) in operations(document) {
        let words = path.trim_start_matches("/api/").split(|c: char| !c.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        operation.operation_id = Some(format!("{method}_{}", words.join("_")));
        for (status, codes) in common_refusals(&path, operation) {
            for code in codes {
                promise(operation, status, code);
            }
        }
    }
}

/// Adds a code to what is promised under a status.
fn promise(operation: &mut Operation, status: &str, code: &str) {
    let quoted = format!("`{code}`");
    let responses = &mut operation.responses.responses;
    match responses.get_mut(status) {
        Some(RefOr::T(response)) if response.description.contains(&quoted) => {}
        Some(RefOr::T(response)) => response.description.push_str(&format!(", {quoted}")),
        Some(RefOr::Ref(_)) => {}
        None => {
            let problem = Content::new(Some(Ref::from_schema_name("Problem")));
            let refusal = ResponseBuilder::new().description(quoted).content(PROBLEM_JSON, problem).build();
            responses.insert(status.to_owned(), refusal.into());
        }
    }
}

fn common_refusals(path: &str, operation: &Operation) -> Vec<(&'static str, &'static [&'static str])> {
    const INVALID: &[&str] = &["validation-failed"];
    let mut refusals: Vec<(&str, &[&str])> = vec![("503", &["unavailable", "overloaded", "timeout"])];
    // A gateway's webhook is neither limited nor read before its signature has been checked.
    let is_webhook = path.starts_with("/api/webhooks/");
    if !is_webhook {
        refusals.push(("429", &["rate-limited"]));
    }
    if operation.request_body.is_some() {
        refusals.push(("413", &["body-too-large"]));
    }
    if operation.request_body.is_some() && !is_webhook {
        refusals.extend([
            ("400", &["malformed-json", "malformed-body"] as &[_]),
            ("415", &["unsupported-media-type"]),
            ("422", INVALID),
        ]);
    }
    if operation.security.as_ref().is_some_and(|schemes| !schemes.is_empty()) {
        refusals.extend([("401", &["login-required"] as &[_]), ("403", &["forbidden"])]);
    }
    for parameter in operation.parameters.iter().flatten() {
        let RefOr::T(Parameter { name, parameter_in, .. }) = parameter else { continue };
        match parameter_in {
            ParameterIn::Query | ParameterIn::QueryString => refusals.push(("422", INVALID)),
            // One that is no text, and one with a character that no text of ours can have.
            ParameterIn::Path => refusals.extend([("404", &["not-found"] as &[_]), ("422", INVALID)]),
            ParameterIn::Header if name == "Idempotency-Key" => {
                refusals.extend([
                    ("400", &["idempotency-key-invalid"] as &[_]),
                    ("409", &["idempotency-in-progress"]),
                    ("422", &["idempotency-key-reused"]),
                ]);
            }
            ParameterIn::Header | ParameterIn::Cookie => {}
        }
    }
    refusals
}

/// `/api/openapi.json`, and Swagger UI at `/docs` from files in the binary.
pub(crate) fn pages(document: Document) -> Router<AppState> {
    Router::from(SwaggerUi::new("/docs").url("/api/openapi.json", document)).layer(map_response(
        async |mut response: Response| {
            // Swagger UI styles itself inline and draws its icons from data URLs.
            let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                          frame-ancestors 'none'";
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
            response
        },
    ))
}
