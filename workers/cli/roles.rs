//! The parts a shop runs as, each a process of its own, or all in one in development.

pub(crate) mod api;
pub(crate) mod metrics;
pub(crate) mod sandbox;
pub(crate) mod scheduler;
pub(crate) mod worker;
