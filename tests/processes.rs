//! Real processes that die, freeze and come back, and a Postgres whose plug is pulled.
//!
//! Every role is the real binary on a durable cluster of this module's own. The production binary has
//! no switch that makes it fail; for a death at an exact point this test binary starts itself again
//! (`deaths`). Tests share the [`stage`], but for the one that pulls its plug.

mod bench;
mod child;
mod command_line;
mod deaths;
mod deployment;
mod four_gateways;
mod kills;
mod mute_gateway;
mod outage;
mod queues;
mod shoppers;
mod silence;
mod stage;
mod stop;
mod zombie;

/// Whether the long variants were asked for: `CART_ENGINE_NIGHTLY=1`.
pub(crate) fn nightly() -> bool {
    std::env::var("CART_ENGINE_NIGHTLY").is_ok_and(|value| value == "1")
}
