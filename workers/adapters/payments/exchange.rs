//! One HTTP call to a gateway, with its outcome told apart: an answer, a refusal, or not knowing.

use std::time::Duration;

use domain::ports::GatewayError;
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How long a call may take from connecting to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read; no gateway's object is near it.
const MAX_ANSWER: usize = 1024 * 1024;

/// What a gateway says when it refuses.
#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    detail: String,
}

/// Sends `request` and reads a 2xx answer as `T`.
///
/// # Errors
/// [`GatewayError::Refused`] on a 4xx that says the call certainly did nothing. Everything else that
/// went wrong is [`GatewayError::Unknown`]: no connection (it may have been lost after the request
/// left), time-out, 5xx, an answer that makes no sense, and the 4xx that ask to come again.
pub(super) async fn exchange<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, GatewayError> {
    let response = request.timeout(TIMEOUT).send().await.map_err(unknown)?;
    let status = response.status();
    let body = read(response).await?;
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map_err(|error| GatewayError::Unknown(format!("an answer that makes no sense: {error}")));
    }
    if status.is_client_error() && !asks_to_come_again(status) {
        let problem: Problem = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Problem { code: format!("http-{}", status.as_u16()), detail: String::new() });
        return Err(GatewayError::Refused { code: problem.code, detail: problem.detail });
    }
    Err(GatewayError::Unknown(format!("the gateway answered {status}")))
}

/// Statuses whose cause passes by itself (RFC 9110 15.5.9, RFC 8470 5.2, RFC 6585 4).
fn asks_to_come_again(status: StatusCode) -> bool {
    [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, GatewayError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unknown)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(GatewayError::Unknown("an answer without end".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The cause goes along, the address does not: it may carry ids that do not belong in a log.
fn unknown(error: reqwest::Error) -> GatewayError {
    let error = error.without_url();
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection was lost"
    };
    GatewayError::Unknown(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statuses_that_pass_by_themselves_ask_to_come_again() {
        for (status, again) in
            [(400, false), (404, false), (408, true), (409, false), (422, false), (425, true), (429, true)]
        {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(asks_to_come_again(status), again, "{status}");
        }
    }
}
