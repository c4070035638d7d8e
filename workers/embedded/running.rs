//! Telling whether a server already runs from a data directory.
//!
//! A `postmaster.pid` proves nothing by itself: its writer may be dead and its process id reused.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::NAME;
use crate::process;

/// How long a server may take to say anything at all.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// The URL of a server that runs from this data directory right now, for the database [`NAME`].
///
/// Lets a command work beside a running shop. The process exists, is a Postgres of this very
/// folder, is ready, and answers on its socket; otherwise `None`.
pub fn running(data_dir: &Path) -> Option<String> {
    let data_dir = data_dir.canonicalize().ok()?;
    clusters(&data_dir).iter().find_map(|cluster| {
        let server = PidFile::read(cluster)?;
        let answers = server.ready && server.server_lives(cluster) && server.answers();
        answers.then(|| url(&server.socket_folder, server.port, NAME))
    })
}

/// The folders of finished clusters, by name.
pub(crate) fn clusters(data_dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(data_dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| major_of(path).is_some())
        .collect();
    found.sort();
    found
}

/// The major version in a cluster folder's name.
pub(crate) fn major_of(cluster: &Path) -> Option<u32> {
    cluster.file_name()?.to_str()?.strip_prefix("postgres-")?.parse().ok()
}

/// A connection URL that both sqlx and libpq understand: the socket's folder goes in a parameter.
pub(crate) fn url(socket_folder: &Path, port: u16, database: &str) -> String {
    let (folder, database) = (percent_encoded(&socket_folder.to_string_lossy()), percent_encoded(database));
    format!("postgres://{NAME}@localhost:{port}/{database}?host={folder}")
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// What a server wrote into its `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PidFile {
    pub(crate) pid: u32,
    pub(crate) port: u16,
    pub(crate) socket_folder: PathBuf,
    /// Whether it accepts sessions; it says so only after recovery.
    pub(crate) ready: bool,
}

impl PidFile {
    pub(crate) fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(cluster.join("postmaster.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // Lines: pid, data directory, start time, port, socket folder, TCP address, shared memory,
        // status. Postgres adds them one by one while it starts.
        let lines: Vec<&str> = text.lines().collect();
        let line = |index: usize| lines.get(index).map_or("", |line| line.trim());
        Some(Self {
            // A standalone backend writes its id negated; it is as much in the way.
            pid: line(0).trim_start_matches('-').parse().ok()?,
            port: line(3).parse().unwrap_or_default(),
            socket_folder: PathBuf::from(line(4)),
            ready: line(7) == "ready",
        })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.socket_folder.join(format!(".s.PGSQL.{}", self.port))
    }

    /// Whether the process that wrote this is alive and is the server of `cluster`.
    pub(crate) fn server_lives(&self, cluster: &Path) -> bool {
        // The kernel reports the folder with its links resolved.
        let cluster = cluster.canonicalize().unwrap_or_else(|_| cluster.to_owned());
        process::exists(self.pid) && is_server_of(self.pid, &cluster)
    }

    fn answers(&self) -> bool {
        // "Do you speak TLS?", the one question a server answers before it knows who asks, and
        // without a line in its log.
        const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
        let ask = || -> std::io::Result<u8> {
            let mut socket = UnixStream::connect(self.socket())?;
            socket.set_read_timeout(Some(ANSWER_PATIENCE))?;
            socket.set_write_timeout(Some(ANSWER_PATIENCE))?;
            socket.write_all(&SSL_REQUEST)?;
            let mut answer = [0];
            socket.read_exact(&mut answer)?;
            Ok(answer[0])
        };
        ask().is_ok_and(|answer| matches!(answer, b'S' | b'N'))
    }
}

#[cfg(target_os = "linux")]
fn is_server_of(pid: u32, cluster: &Path) -> bool {
    // A zombie keeps its name but is in no folder any more. Postgres works in its data directory.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd"));
    name.trim() == "postgres" && folder.is_ok_and(|folder| folder == cluster)
}

#[cfg(not(target_os = "linux"))]
fn is_server_of(pid: u32, cluster: &Path) -> bool {
    // Only the server itself still shows the `-D` it was started with; its sessions rename
    // themselves.
    let pid = pid.to_string();
    let mut ps = std::process::Command::new("ps");
    let output = ps.args(["-ww", "-o", "stat=,command=", "-p", &pid]).output();
    output.is_ok_and(|output| {
        let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let folder = format!("-D {}", cluster.display());
        !line.starts_with('Z') && line.contains("postgres") && line.contains(&folder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_read_at_every_stage_of_a_start() {
        let whole = "4242\n/d/postgres-15\n1700000000\n5432\n/tmp/s\n\n 1 2\nready   \n";
        let server = PidFile { pid: 4242, port: 5432, socket_folder: "/tmp/s".into(), ready: true };
        assert_eq!(PidFile::parse(whole), Some(server));
        assert_eq!(PidFile::parse("4242\n/d\n").map(|file| (file.pid, file.ready)), Some((4242, false)));
        assert_eq!(PidFile::parse("-7\n").map(|file| file.pid), Some(7));
        assert_eq!(PidFile::parse(""), None);
    }

    #[test]
    fn a_url_survives_strange_names() {
        let url = url(Path::new("/tmp/a b"), 5432, "shop?x");
        assert_eq!(url, "postgres://cart_engine@localhost:5432/shop%3Fx?host=%2Ftmp%2Fa%20b");
    }

    #[test]
    fn a_process_that_is_no_server_does_not_count_as_one() {
        let file = PidFile { pid: std::process::id(), port: 5432, socket_folder: "/tmp".into(), ready: true };
        assert!(!file.server_lives(Path::new("/")));
    }
}
