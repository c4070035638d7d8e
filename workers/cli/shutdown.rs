//! Ctrl-C and SIGTERM: the first asks for a graceful stop, the second does not wait for it.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// The exit code of a process ended by SIGINT, as shells count it.
const INTERRUPTED: i32 = 130;

/// The two signals; from its making on, neither ends the process by itself.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Starts listening.
    ///
    /// # Errors
    /// The operating system's own.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Stop { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for either.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// From now on the next Ctrl-C ends the process at once. The embedded server goes with it.
    pub(crate) fn exit_on_next(mut self) {
        tokio::spawn(async move {
            self.interrupt.recv().await;
            std::process::exit(INTERRUPTED);
        });
    }
}
