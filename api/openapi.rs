//! The OpenAPI document, generated from the handlers, and the pages that show it.

pub(crate) mod examples;

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
                       Beside what each operation lists, any request may be refused with 414 `uri-too-long`, \
                       431 `headers-too-large` or 405 `method-not-allowed`."
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

/// Adds to every operation what the layers around it and the extractors before it may refuse, so that a
/// handler documents only what it refuses itself; and names it by method and path, since handlers of
/// different resources have the same names.
pub(crate) fn add_common_refusals(document: &mut Document) {
    for (path, item) in &mut document.paths.paths {
        let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
        let methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
        let operations = [get, put, post, delete, options, head, patch, trace];
        for (method, operation) in methods.into_iter().zip(operations).filter_map(|(m, o)| Some((m, o.as_mut()?))) {
            let words = path.trim_start_matches("/api/").split(|c: char| !c.is_ascii_alphanumeric());
            let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
            operation.operation_id = Some(format!("{method}_{}", words.join("_")));
            for (status, codes) in common_refusals(path, operation) {
                let problem = Content::new(Some(Ref::from_schema_name("Problem")));
                let refusal = ResponseBuilder::new().description(codes).content(PROBLEM_JSON, problem).build();
                operation.responses.responses.entry(status.to_owned()).or_insert_with(|| refusal.into());
            }
        }
    }
}

fn common_refusals(path: &str, operation: &Operation) -> Vec<(&'static str, &'static str)> {
    let mut refusals = vec![("503", "`unavailable`, `overloaded`, `timeout`")];
    // A gateway's webhook is neither limited nor read before its signature has been checked.
    let is_webhook = path.starts_with("/api/webhooks/");
    if !is_webhook {
        refusals.push(("429", "`rate-limited`"));
    }
    if operation.request_body.is_some() {
        refusals.push(("413", "`body-too-large`"));
    }
    if operation.request_body.is_some() && !is_webhook {
        refusals.extend([
            ("400", "`malformed-json`, `malformed-body`"),
            ("415", "`unsupported-media-type`"),
            ("422", "`validation-failed`"),
        ]);
    }
    if operation.security.as_ref().is_some_and(|schemes| !schemes.is_empty()) {
        refusals.extend([("401", "`login-required`"), ("403", "`forbidden`")]);
    }
    for parameter in operation.parameters.iter().flatten() {
        let RefOr::T(Parameter { name, parameter_in, .. }) = parameter else { continue };
        match parameter_in {
            ParameterIn::Query | ParameterIn::QueryString => refusals.push(("422", "`validation-failed`")),
            // One that is no text, and one with a character that no text of ours can have.
            ParameterIn::Path => refusals.extend([("404", "`not-found`"), ("422", "`validation-failed`")]),
            ParameterIn::Header if name == "Idempotency-Key" => {
                refusals.extend([("400", "`idempotency-key-invalid`"), ("409", "`idempotency-in-progress`")]);
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
