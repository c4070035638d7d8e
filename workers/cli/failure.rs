//! What a command says when it cannot do its work: one line, one more for each of several things that are
//! wrong, and one more if there is something to do about it. No backtraces: whoever reads this runs a shop, and does not debug one.

use std::error::Error;

use api::accounts::CreateUserError;

/// Why a command ended without doing its work.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    message: String,
    /// Where one sentence would not do: what is wrong, thing by thing.
    details: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure in one sentence, without a full stop.
    pub(crate) fn new(message: impl AsRef<str>) -> Self {
        Failure { message: one_line(message.as_ref()), details: Vec::new(), hint: None }
    }

    /// Several things that are wrong at once, each in a line of its own; a single one is the message.
    pub(crate) fn several(message: impl AsRef<str>, mut details: Vec<String>) -> Self {
        match details.len() {
            1 => Failure::new(details.remove(0)),
            _ => Failure { details: details.iter().map(|detail| one_line(detail)).collect(), ..Failure::new(message) },
        }
    }

    /// What failed, and why.
    pub(crate) fn caused_by(what: &str, cause: &(dyn Error + 'static)) -> Self {
        Failure::new(format!("{what}: {}", chain(cause)))
    }

    /// The same, told as the reason why something larger failed.
    #[must_use]
    pub(crate) fn within(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(one_line(hint.as_ref()));
        self
    }

    /// What goes to stderr.
    pub(crate) fn report(&self) -> String {
        let details: String = self.details.iter().map(|detail| format!("\n  {detail}")).collect();
        let hint = self.hint.iter().map(|hint| format!("\nhint: {hint}")).collect::<String>();
        format!("cart-engine: {}{details}{hint}", self.message)
    }
}

/// An error and its causes. A cause that an error's own text already tells is not told twice.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl From<embedded::Error> for Failure {
    fn from(error: embedded::Error) -> Self {
        let text = chain(&error);
        let failure = match text.rsplit_once('\n') {
            // Their last line says what to install, or how to do without.
            Some((message, advice))
                if matches!(error, embedded::Error::NotFound { .. } | embedded::Error::Offline { .. }) =>
            {
                Failure::new(message).hint(advice)
            }
            Some(_) | None => Failure::new(&text),
        };
        if matches!(error, embedded::Error::InUse { .. }) {
            return failure.hint("stop that process, or choose another --data-dir, or try --ephemeral");
        }
        failure
    }
}

impl From<CreateUserError> for Failure {
    fn from(error: CreateUserError) -> Self {
        match &error {
            // A place in a request's body is a plain name here.
            CreateUserError::Invalid(fields) => {
                let complaints: Vec<String> = fields
                    .iter()
                    .map(|field| format!("{} {}", field.pointer.trim_start_matches('/'), field.detail))
                    .collect();
                Failure::new(complaints.join("; "))
            }
            CreateUserError::EmailTaken | CreateUserError::Hash(_) | CreateUserError::Database(_) => {
                Failure::new(chain(&error))
            }
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::new(chain(&*error))
    }
}

macro_rules! from_errors {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure::new(chain(&error))
            }
        })+
    };
}

from_errors!(
    adapters::notify::ConfigError,
    adapters::payments::ConfigError,
    migrations::Error,
    reqwest::Error,
    sandbox::Error,
    serde_json::Error,
    sqlx::Error,
    std::io::Error,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_it_was_made_of() {
        let failure = Failure::new("initdb failed:\n  no space\n\tleft").hint("make\nroom");
        assert_eq!(failure.report(), "cart-engine: initdb failed: no space left\nhint: make room");
    }

    #[test]
    fn a_cause_is_told_once() {
        let inner = std::io::Error::other("disk full");
        let error = migrations::Error::Database(sqlx::Error::Io(inner));
        let report = Failure::from(error).report();
        assert_eq!(report.matches("disk full").count(), 1, "{report}");
        assert_eq!(report.lines().count(), 1, "{report}");
    }

    #[test]
    fn a_missing_postgres_says_how_to_get_one() {
        let error = embedded::Error::NotFound { tried: "\n  /usr/bin: no initdb".to_owned() };
        let report = Failure::from(error).report();
        let (message, hint) = report.split_once('\n').expect("a hint");
        assert!(message.contains("no usable PostgreSQL") && message.contains("no initdb"), "{report}");
        assert!(hint.starts_with("hint: Install it"), "{report}");
    }
}
