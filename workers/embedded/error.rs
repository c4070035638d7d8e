//! Everything that can keep an embedded cluster from running, in the words its user will read.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No usable binaries, and none can be downloaded.
    #[error(
        "no usable PostgreSQL found (14 or newer, with contrib).{tried}\n\
         Install it (Debian, Ubuntu: `apt install postgresql`; macOS: `brew install postgresql@17`) \
         or set DATABASE_URL to a running one."
    )]
    NotFound {
        /// One indented line for each place that was looked at.
        tried: String,
    },
    /// The binaries folder that was asked for cannot be used.
    #[error("cannot use the PostgreSQL binaries in {}: {reason}", dir.display())]
    Unusable {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The data directory holds a cluster of a major version this machine has no binaries for.
    #[error(
        "{} holds data of PostgreSQL {existing}, but only {found} is at hand. \
         Install PostgreSQL {existing}, or choose another --data-dir to start empty.",
        data_dir.display()
    )]
    OtherMajor {
        /// The data directory.
        data_dir: PathBuf,
        /// The major versions that have data there.
        existing: String,
        /// The major version that was found instead.
        found: u32,
    },
    /// Started as root, and the user that Postgres must run as cannot enter the data directory.
    #[error(
        "PostgreSQL refuses to run as root, so it runs as {user}, who cannot enter {}. \
         Choose a folder that everyone may traverse, e.g. --data-dir /var/lib/cart-engine.",
        blocked.display()
    )]
    Unreachable {
        /// The first folder on the way that is closed.
        blocked: PathBuf,
        /// The user Postgres would run as.
        user: String,
    },
    /// Started as root on a system with neither a `postgres` nor a `nobody` user.
    #[error("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as")]
    NoAccount,
    /// Another process is using this data directory.
    #[error("{} is already in use by pid {pid}", data_dir.display())]
    InUse {
        /// The data directory.
        data_dir: PathBuf,
        /// The process that holds it.
        pid: u32,
    },
    /// The cluster's files belong to another user.
    #[error("{} belongs to uid {owner}, but PostgreSQL would run as uid {uid}", path.display())]
    ForeignOwner {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who would need it.
        uid: u32,
    },
    /// A folder with the cluster's name is there, but is not a cluster.
    #[error("{} is not a PostgreSQL data directory (no PG_VERSION); move it away", path.display())]
    NotACluster {
        /// The folder.
        path: PathBuf,
    },
    /// The folder for the unix socket cannot be trusted.
    #[error("cannot put the PostgreSQL socket in {}: {reason}", path.display())]
    SocketFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A download would be needed, and downloads are forbidden.
    #[error(
        "no usable PostgreSQL found, and --offline forbids downloading {version} ({size_mb} MB).{tried}\n\
         Install it (Debian, Ubuntu: `apt install postgresql`; macOS: `brew install postgresql@17`) \
         or set DATABASE_URL to a running one."
    )]
    Offline {
        /// What would be downloaded.
        version: String,
        /// Its size, in megabytes.
        size_mb: u64,
        /// One indented line for each place that was looked at.
        tried: String,
    },
    /// What was downloaded is not what this release was made with.
    #[error(
        "the downloaded {file} does not have the expected checksum ({got} instead of {expected}); nothing was unpacked"
    )]
    Checksum {
        /// The archive's name.
        file: String,
        /// The pinned digest.
        expected: String,
        /// The digest of what arrived.
        got: String,
    },
    /// `initdb` failed.
    #[error("initdb failed ({status}):\n{output}")]
    Initdb {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        output: String,
    },
    /// The server ended instead of becoming ready.
    #[error("PostgreSQL did not start ({status}); the end of its log {}:\n{log}", path.display())]
    DidNotStart {
        /// How it ended.
        status: String,
        /// The log file.
        path: PathBuf,
        /// Its last lines.
        log: String,
    },
    /// The server was not ready in time.
    #[error("PostgreSQL was not ready after {seconds} s; the end of its log {}:\n{log}", path.display())]
    NotReady {
        /// How long we waited, in seconds.
        seconds: u64,
        /// The log file.
        path: PathBuf,
        /// Its last lines.
        log: String,
    },
    /// The server did not end when told to.
    #[error("PostgreSQL (pid {pid}) did not stop")]
    DidNotStop {
        /// The server's process id.
        pid: u32,
    },
    /// The file system or the operating system refused something.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The running server refused a statement.
    #[error("the embedded PostgreSQL refused")]
    Database(#[from] sqlx::Error),
}

/// Adds to an I/O error what was being done and to what.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { doing, path: path.to_owned(), source })
    }
}
