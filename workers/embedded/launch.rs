//! The server as a child process: starting it, waiting for it, ending it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::directory::{DataDir, POLL, last_lines};
use crate::discovery::{Found, has_library};
use crate::error::{At, Error};
use crate::process::{self, Signal};
use crate::running::PidFile;
use crate::{NAME, Options};

/// The port's only role is to name the socket file: there is no TCP.
pub(crate) const PORT: u16 = 5432;
/// Recovery after a crash may have to replay up to `max_wal_size`.
const READY_PATIENCE: Duration = Duration::from_secs(120);
/// How long sessions and the last checkpoint may take at a stop.
const FAST_PATIENCE: Duration = Duration::from_secs(30);
/// How long an immediate stop may take.
const QUIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long the sessions of a killed server may outlive it.
const LINGER_PATIENCE: Duration = Duration::from_secs(10);

/// Everything it takes to start the server, again and again, in the same place.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) found: Found,
    pub(crate) cluster: PathBuf,
    pub(crate) socket_folder: PathBuf,
    arguments: Vec<String>,
}

impl Plan {
    pub(crate) fn new(options: &Options, data_dir: &DataDir, found: Found, cluster: PathBuf) -> Result<Self, Error> {
        let socket_folder = data_dir.socket_folder()?;
        let compression = wal_compression(data_dir, &found, &cluster);
        let mut settings = vec![
            ("listen_addresses", String::new()),
            ("port", PORT.to_string()),
            ("unix_socket_directories", socket_folder.to_string_lossy().into_owned()),
            ("cluster_name", NAME.to_owned()),
            ("timezone", "UTC".to_owned()),
            ("log_timezone", "UTC".to_owned()),
            // Workers and API keep pools of their own beside the queue's.
            ("max_connections", "200".to_owned()),
            ("shared_buffers", "256MB".to_owned()),
            ("wal_compression", compression.to_owned()),
            // Fewer, steadier checkpoints: they are what latency suffers from on a small disk.
            ("max_wal_size", "2GB".to_owned()),
            ("checkpoint_completion_target", "0.9".to_owned()),
            ("track_io_timing", "off".to_owned()),
            ("log_min_duration_statement", "-1".to_owned()),
        ];
        let commit = if options.durable { "on" } else { "off" };
        settings.extend(["fsync", "synchronous_commit", "full_page_writes"].map(|name| (name, commit.to_owned())));
        if has_library(&found.bin_dir, "pg_stat_statements") {
            settings.push(("shared_preload_libraries", "pg_stat_statements".to_owned()));
        }
        let own = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
        // The last of two settings with one name wins.
        let arguments =
            own.chain(options.settings.iter().cloned()).map(|(name, value)| format!("{name}={value}")).collect();
        Ok(Self { found, cluster, socket_folder, arguments })
    }

    /// Starts the server and waits until it accepts sessions.
    pub(crate) async fn launch(&self, data_dir: &DataDir) -> Result<Postmaster, Error> {
        let started = Instant::now();
        loop {
            data_dir.settle(&self.cluster, &self.socket_folder).await?;
            let log = data_dir.open_log()?;
            let beginning = log.metadata().at("examine", &data_dir.log())?.len();
            let attempt = self.attempt(data_dir, log, beginning).await;
            // Sessions of a killed server hold its shared memory until they notice its death.
            match attempt {
                Err(Error::DidNotStart { log, .. })
                    if log.contains("shared memory block") && started.elapsed() < LINGER_PATIENCE =>
                {
                    sleep(POLL * 10).await;
                }
                Err(error) => return Err(error),
                Ok(postmaster) => return Ok(postmaster),
            }
        }
    }

    async fn attempt(&self, data_dir: &DataDir, log: File, beginning: u64) -> Result<Postmaster, Error> {
        let program = self.found.bin_dir.join("postgres");
        let mut command = data_dir.identity.command(&program);
        command.arg("-D").arg(&self.cluster);
        for argument in &self.arguments {
            command.arg("-c").arg(argument);
        }
        command.stdout(log.try_clone().at("open", &data_dir.log())?).stderr(log);
        // A group of its own: ^C in a terminal is for us, who still need the database to shut down.
        command.process_group(0);
        process::die_with_parent(&mut command, Signal::Interrupt);
        let mut postmaster = Postmaster::spawn(command, &program).await?;
        let outcome = timeout(READY_PATIENCE, self.ready(&mut postmaster)).await;
        let (path, end_of_log) = (data_dir.log(), || log_since(&data_dir.log(), beginning));
        match outcome {
            Ok(None) => Ok(postmaster),
            Ok(Some(status)) => Err(Error::DidNotStart { status, path, log: end_of_log() }),
            Err(_) => {
                postmaster.stop(Signal::Quit).await?;
                Err(Error::NotReady { seconds: READY_PATIENCE.as_secs(), path, log: end_of_log() })
            }
        }
    }

    /// Waits until the server accepts sessions; says how it ended if it ended instead.
    async fn ready(&self, postmaster: &mut Postmaster) -> Option<String> {
        loop {
            if PidFile::read(&self.cluster).is_some_and(|file| file.pid == postmaster.pid && file.ready) {
                return None;
            }
            if let Ok(status) = timeout(POLL, postmaster.ended()).await {
                return Some(status);
            }
        }
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // Empty once the server has stopped, and no use to anybody. While one still runs it is not
        // empty, this fails, and the next start finds the folder again.
        drop(std::fs::remove_dir(&self.socket_folder));
    }
}

/// The best compression of the write-ahead log that this build knows.
fn wal_compression(data_dir: &DataDir, found: &Found, cluster: &Path) -> &'static str {
    let knows_lz4 = data_dir
        .identity
        .command(&found.bin_dir.join("postgres"))
        .arg("-D")
        .arg(cluster)
        .args(["-c", "wal_compression=lz4", "-C", "wal_compression"])
        .output()
        .is_ok_and(|output| output.status.success());
    if knows_lz4 { "lz4" } else { "on" }
}

fn log_since(path: &Path, beginning: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(beginning.max(length.saturating_sub(8 * 1024))))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(text)
    };
    read().map_or_else(|error| format!("(unreadable: {error})"), |text| last_lines(&text))
}

/// A running server. Dropping it tells the server to stop, without waiting.
#[derive(Debug)]
pub(crate) struct Postmaster {
    pub(crate) pid: u32,
    /// Set once the process has ended and been reaped: from then on the id may be another's.
    status: watch::Receiver<Option<ExitStatus>>,
}

impl Postmaster {
    /// Spawns the server from a thread that lives as long as it does.
    ///
    /// The parent-death signal follows the thread that spawned, not the process; a runtime's
    /// worker thread may end at any time.
    async fn spawn(mut command: Command, program: &Path) -> Result<Self, Error> {
        let (tell_pid, pid) = oneshot::channel();
        let (tell_status, status) = watch::channel(None);
        let keeper = move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(tell_pid.send(Err(error))),
            };
            if tell_pid.send(Ok(child.id())).is_err() {
                // Whoever asked for the server is gone, and nobody else knows of it.
                drop(process::send(child.id(), Signal::Interrupt));
            }
            match child.wait() {
                Ok(status) => drop(tell_status.send(Some(status))),
                Err(error) => tracing::error!(%error, "lost track of the embedded PostgreSQL"),
            }
        };
        std::thread::Builder::new().name("postgres-keeper".into()).spawn(keeper).at("start a thread for", program)?;
        let gone = |_| Err(std::io::Error::other("the thread that runs it ended"));
        let pid = pid.await.unwrap_or_else(gone).at("run", program)?;
        Ok(Self { pid, status })
    }

    /// Waits for the process to end, and says how it did.
    pub(crate) async fn ended(&mut self) -> String {
        match self.status.wait_for(Option::is_some).await {
            Ok(status) => status.map_or_else(String::new, |status| status.to_string()),
            Err(_) => "unknown".to_owned(),
        }
    }

    /// Ends the server: with `Interrupt` in good order, and only if that takes too long at once;
    /// with `Quit` at once.
    ///
    /// # Errors
    /// [`Error::DidNotStop`] if it outlives every signal that leaves its files whole.
    pub(crate) async fn stop(&mut self, first: Signal) -> Result<(), Error> {
        for (signal, patience) in [(first, FAST_PATIENCE), (Signal::Quit, QUIT_PATIENCE)] {
            self.signal(signal);
            if timeout(patience, self.ended()).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(pid = self.pid, ?signal, "the embedded PostgreSQL is slow to stop");
        }
        Err(Error::DidNotStop { pid: self.pid })
    }

    fn signal(&self, signal: Signal) {
        if self.status.borrow().is_none() {
            // It may have ended just now, which is what the signal is for.
            drop(process::send(self.pid, signal));
        }
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        self.signal(Signal::Interrupt);
    }
}
