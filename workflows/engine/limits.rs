//! Limits that protect the engine. Reaching one unwinds the run (or parks it past the point of no
//! return); none is silent.

use std::time::Duration;

/// Largest input, output or signal, in bytes of JSON, roughly: escapes are not counted.
pub const PAYLOAD_BYTES: usize = 1024 * 1024;
/// Runs that travel together at most.
pub(crate) const SET: usize = 64;
/// What the runs of a set were started with, together, in bytes: more do not travel together.
pub const SET_BYTES: usize = 1024 * 1024;
/// Longest business key of a run, and longest key of a signal, in bytes: an index must hold it.
pub const KEY_BYTES: usize = 1_024;
/// Text of a failure that is kept, in bytes; the rest is cut off.
pub const TEXT_BYTES: usize = 8 * 1024;
/// Journal entries a run may write.
pub const JOURNAL_ENTRIES: i32 = 1_000;
/// Signals a run may hold, consumed or not.
pub const SIGNALS: i64 = 1_000;
/// The longest that a run rests because whom it calls asked for peace, or because it is not its turn.
pub const PUT_OFF: Duration = Duration::from_secs(60);
