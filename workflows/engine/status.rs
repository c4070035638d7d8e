//! Where a run stands, as its row says.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sqlx::{Database, Decode, Postgres, Type, error::BoxDynError};

/// Where a run stands. It is kept, and told, by these names in capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RunStatus {
    /// Ready for whichever worker comes first.
    Pending,
    /// In a worker's hands.
    Running,
    /// Asleep until a signal or a deadline.
    Waiting,
    /// Asleep after an attempt that failed, or because it is not its turn.
    Retrying,
    /// Taking back what it did.
    Compensating,
    /// Parked: only a person can say how it goes on, or so it seems.
    Stuck,
    /// Ended, with what it returned.
    Completed,
    /// Ended, with all that it did taken back.
    Failed,
    /// As failed, because somebody asked it to stop.
    Cancelled,
}

impl RunStatus {
    /// Every one there is, in the order of a run's life.
    pub const ALL: [RunStatus; 9] = [
        RunStatus::Pending,
        RunStatus::Running,
        RunStatus::Waiting,
        RunStatus::Retrying,
        RunStatus::Compensating,
        RunStatus::Stuck,
        RunStatus::Completed,
        RunStatus::Failed,
        RunStatus::Cancelled,
    ];

    /// As it is stored and told.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Pending => "PENDING",
            RunStatus::Running => "RUNNING",
            RunStatus::Waiting => "WAITING",
            RunStatus::Retrying => "RETRYING",
            RunStatus::Compensating => "COMPENSATING",
            RunStatus::Stuck => "STUCK",
            RunStatus::Completed => "COMPLETED",
            RunStatus::Failed => "FAILED",
            RunStatus::Cancelled => "CANCELLED",
        }
    }

    /// True of a run that nothing can happen to any more.
    pub fn has_ended(self) -> bool {
        match self {
            RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled => true,
            RunStatus::Pending
            | RunStatus::Running
            | RunStatus::Waiting
            | RunStatus::Retrying
            | RunStatus::Compensating
            | RunStatus::Stuck => false,
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no status of a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a run is never {0:?}")]
pub struct UnknownStatus(String);

impl FromStr for RunStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        let known = RunStatus::ALL.into_iter().find(|status| status.as_str() == text);
        known.ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

impl Type<Postgres> for RunStatus {
    fn type_info() -> <Postgres as Database>::TypeInfo {
        <&str as Type<Postgres>>::type_info()
    }

    fn compatible(ty: &<Postgres as Database>::TypeInfo) -> bool {
        <&str as Type<Postgres>>::compatible(ty)
    }
}

impl<'r> Decode<'r, Postgres> for RunStatus {
    fn decode(value: <Postgres as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(<&str as Decode<'r, Postgres>>::decode(value)?.parse()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_what_is_told_and_read() {
        for status in RunStatus::ALL {
            assert_eq!(serde_json::json!(status), status.as_str());
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert_eq!("pending".parse::<RunStatus>(), Err(UnknownStatus("pending".to_owned())));
        assert_eq!(format!("{:<12}|", RunStatus::Stuck), "STUCK       |");
    }
}
