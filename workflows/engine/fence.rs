//! What every write of a run is fenced by.

use uuid::Uuid;

/// What every write of a run is fenced by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fence {
    pub(crate) run_id: Uuid,
    /// Drawn by the claim.
    pub(crate) token: Uuid,
    /// Entries its journal has, as far as this worker knows; 0 is not looked at.
    pub(crate) written: i32,
}

impl Fence {
    /// The same for giving the run back, which is right whatever its journal says.
    pub(crate) fn whatever_is_written(self) -> Self {
        Fence { written: 0, ..self }
    }

    /// Counts a write that came after somebody else had claimed the run.
    pub(crate) fn note_refusal(self) {
        metrics::counter!("cart_engine_refused_late_writes_total").increment(1);
        tracing::warn!(run = %self.run_id, "late write refused: the run is not what this worker knows of it");
    }
}
