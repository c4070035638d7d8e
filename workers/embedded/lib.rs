//! The embedded Postgres: what lets the shop run on a machine that has only a Rust toolchain.
//!
//! Finds a Postgres on this machine (or downloads one, once), makes a private cluster under a data
//! directory and runs it as a child of this process. The cluster listens on a unix socket only,
//! inside a folder that nobody but its owner can enter; it has no network port and no password.
//!
//! What lives here: finding binaries, the cluster's directory, the child process. What must not:
//! anything that knows what the shop stores, or how a `DATABASE_URL` is chosen over this cluster.

mod cluster;
mod directory;
mod discovery;
mod download;
mod error;
mod identity;
mod launch;
mod process;
mod running;

use std::path::PathBuf;

pub use cluster::Cluster;
pub use directory::default_data_dir;
pub use discovery::{Found, Source, discover};
pub use error::Error;
pub use running::running;

/// The superuser of an embedded cluster, and the database [`running`] points at.
pub const NAME: &str = "cart_engine";

/// What to run, and where its data lives.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder everything is kept under: the cluster in `postgres-<major>`, its log in
    /// `postgres.log`, downloaded binaries in `binaries/<version>`.
    pub data_dir: PathBuf,
    /// A folder that holds `postgres` and `initdb`. Nothing else is tried when it is set.
    pub bin_dir: Option<PathBuf>,
    /// Whether an installed Postgres may be used; otherwise only `bin_dir` or downloaded binaries.
    pub discovery: bool,
    /// Refuses to download.
    pub offline: bool,
    /// Whether a commit survives a crash of the machine. `false` turns fsync, synchronous commit
    /// and full-page writes off: for tests only.
    pub durable: bool,
    /// Server settings that override ours, as `(name, value)`.
    pub settings: Vec<(String, String)>,
}

impl Options {
    /// A durable cluster under `data_dir`, from whatever Postgres there is to be had.
    pub fn new(data_dir: PathBuf) -> Self {
        Options { data_dir, bin_dir: None, discovery: true, offline: false, durable: true, settings: Vec::new() }
    }
}
