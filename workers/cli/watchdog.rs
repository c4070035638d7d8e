//! Ends the process when its database has been silent for too long, whatever the reason: a supervisor's
//! fresh start has nothing left of what made it deaf.

use std::{io::Write as _, thread, time::Duration};

use workers::Finger;

use crate::failure::Failure;

/// What the process ends with.
pub(crate) const EXIT_CODE: i32 = 3;

/// Between two looks. Silence is counted in looks and not read off a clock: a process that was stopped,
/// or a laptop that was closed, has not been silent.
const LOOK: Duration = Duration::from_millis(500);

/// Watches from a thread of its own, which no busy runtime can keep from it, until the pool has stopped.
///
/// # Errors
/// No thread to be had.
pub(crate) fn watch(finger: Finger, patience: Duration) -> Result<(), Failure> {
    let watching = move || {
        let mut silent = Duration::ZERO;
        while silent < patience {
            thread::sleep(LOOK);
            match finger.feels() {
                Some(true) => silent = Duration::ZERO,
                Some(false) => silent += LOOK,
                None => return,
            }
        }
        tracing::error!(?silent, "the database is silent; this worker ends, so that it is started anew");
        // A closed stderr leaves nobody to tell; the exit code still does.
        let _ = writeln!(
            std::io::stderr().lock(),
            "cart-engine: the database has not answered for {} s; exit {EXIT_CODE}",
            silent.as_secs()
        );
        std::process::exit(EXIT_CODE);
    };
    thread::Builder::new().name("watchdog".to_owned()).spawn(watching)?;
    Ok(())
}
