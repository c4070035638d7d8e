//! The data directory: what is where, who holds it, and how a cluster comes to be in it.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::NAME;
use crate::discovery::Found;
use crate::error::{At, Error};
use crate::identity::Identity;
use crate::process::{self, Signal};
use crate::running::{PidFile, clusters};

/// How long a second start waits for the first one to let go.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// The log is moved aside at a start that finds it larger than this, in bytes.
const LOG_LIMIT: u64 = 16 * 1024 * 1024;
/// How often to look again, while waiting.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Where this user's embedded cluster lives unless told otherwise.
///
/// As root `/var/lib/cart-engine`, since Postgres then runs as a user who cannot enter `/root`;
/// else the platform's folder for application data: `$XDG_DATA_HOME/cart-engine`,
/// `~/.local/share/cart-engine`, or on macOS `~/Library/Application Support/cart-engine`.
pub fn default_data_dir() -> PathBuf {
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|dir| dir.is_absolute());
    if process::effective_account().uid == 0 {
        return PathBuf::from("/var/lib/cart-engine");
    }
    let home = folder("HOME");
    let base = if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library/Application Support"))
    } else {
        folder("XDG_DATA_HOME").or_else(|| home.map(|home| home.join(".local/share")))
    };
    // A user without a home (a bare container) still gets a place of its own.
    let uid = process::effective_account().uid;
    base.map_or_else(|| PathBuf::from(format!("/var/tmp/cart-engine-{uid}")), |base| base.join("cart-engine"))
}

/// A data directory that this process alone may use.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
    /// Held until the cluster is stopped or dropped; the kernel frees it when we die.
    _lock: File,
}

impl DataDir {
    /// Creates and locks it. Nothing is written if it cannot serve.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).at("resolve", path)?;
        let identity = Identity::choose(&clusters(&path))?;
        identity.check_reachable(&path)?;
        identity.claim(&path)?;
        // Links resolved, as the kernel reports a running server's folder to us.
        let path = path.canonicalize().at("resolve", &path)?;
        let lock = lock(&path)?;
        Ok(Self { path, identity, _lock: lock })
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("postgres.log")
    }

    /// The cluster's own folder, made by `initdb` if it is not there.
    ///
    /// It is made under another name first: a folder with the final name is always whole.
    pub(crate) fn cluster(&self, found: &Found, durable: bool) -> Result<PathBuf, Error> {
        let cluster = self.path.join(format!("postgres-{}", found.major));
        if cluster.exists() {
            if !cluster.join("PG_VERSION").exists() {
                return Err(Error::NotACluster { path: cluster });
            }
            let owner = std::fs::metadata(&cluster).at("examine", &cluster)?.uid();
            self.identity.check_owner(&cluster, owner)?;
            return Ok(cluster);
        }
        let unfinished = self.path.join(format!("postgres-{}.init", found.major));
        remove(&unfinished)?;
        self.identity.own_private(&unfinished)?;
        self.initdb(found, &unfinished, durable)?;
        std::fs::rename(&unfinished, &cluster).at("rename", &unfinished)?;
        File::open(&self.path).and_then(|folder| folder.sync_all()).at("sync", &self.path)?;
        Ok(cluster)
    }

    fn initdb(&self, found: &Found, into: &Path, durable: bool) -> Result<(), Error> {
        let program = found.bin_dir.join("initdb");
        let mut command = self.identity.command(&program);
        // Trust is safe: the only way in is a socket in a folder that no other user may enter.
        command
            .arg("-D")
            .arg(into)
            .args(["-U", NAME, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"])
            .stderr(Stdio::piped());
        if !durable {
            command.arg("--no-sync");
        }
        process::die_with_parent(&mut command, Signal::Kill);
        let output = command.output().at("run", &program)?;
        if output.status.success() {
            return Ok(());
        }
        let output_text = [output.stdout, output.stderr].concat();
        Err(Error::Initdb { status: output.status, output: last_lines(&output_text) })
    }

    /// The folder of the unix socket, private to the user Postgres runs as.
    ///
    /// Not in the data directory: a socket's whole path has to fit in about 100 bytes.
    pub(crate) fn socket_folder(&self) -> Result<PathBuf, Error> {
        let digest = Sha256::digest(self.path.as_os_str().as_bytes());
        let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        // Root's own runtime folder is closed to the user it drops to.
        let runtime = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|dir| process::effective_account().uid != 0 && dir.is_dir())
            .filter(|dir| dir.is_absolute() && dir.as_os_str().len() <= 40);
        let parent = runtime.unwrap_or_else(|| PathBuf::from("/tmp"));
        let folder = parent.join(format!("cart-engine-{name}"));
        self.identity.own_private(&folder)?;
        Ok(folder)
    }

    /// Clears away what an earlier server left in `cluster`, ending it first if it still runs.
    ///
    /// We hold the lock, so a server of ours that still runs has lost its parent and is (or should
    /// be) on its way out. A server that somebody else started there is left alone.
    pub(crate) async fn settle(&self, cluster: &Path, socket_folder: &Path) -> Result<(), Error> {
        let path = cluster.join("postmaster.pid");
        let Some(left) = PidFile::read(cluster) else {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", &path),
                _ => Ok(()),
            };
        };
        if left.server_lives(cluster) {
            if left.socket_folder != socket_folder {
                return Err(Error::InUse { data_dir: self.path.clone(), pid: left.pid });
            }
            end_orphan(&left, cluster).await?;
        }
        if !path.exists() {
            return Ok(());
        }
        // The dead server's id may belong to some other process by now, or to a zombie nobody
        // reaps, and Postgres would take either for a rival. Naming ourselves, its parent, makes it
        // look at the shared memory the file also names instead, which is the check that matters.
        let text = std::fs::read_to_string(&path).at("read", &path)?;
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        std::fs::write(&path, format!("{}\n{rest}", std::process::id())).at("write", &path)?;
        let lock = left.socket().with_added_extension("lock");
        if lock.starts_with(socket_folder) && lock.exists() {
            std::fs::remove_file(&lock).at("remove", &lock)?;
        }
        Ok(())
    }

    /// Opens the log for the server to write to.
    pub(crate) fn open_log(&self) -> Result<File, Error> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.log();
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
            std::fs::rename(&path, self.path.join("postgres.log.old")).at("rename", &path)?;
        }
        // Failed statements are quoted in it: not for other users to read.
        File::options().create(true).append(true).mode(0o600).open(&path).at("open", &path)
    }
}

async fn end_orphan(server: &PidFile, cluster: &Path) -> Result<(), Error> {
    for (signal, patience) in [(Signal::Interrupt, 20), (Signal::Quit, 10)] {
        // Gone already is what we want.
        let _ = process::send(server.pid, signal);
        let deadline = Instant::now() + Duration::from_secs(patience);
        while Instant::now() < deadline {
            if !server.server_lives(cluster) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Err(Error::DidNotStop { pid: server.pid })
}

fn lock(data_dir: &Path) -> Result<File, Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = data_dir.join("lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600) // others may not even take the lock
        .open(&path)
        .at("open", &path)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).at("read", &path)?;
                let pid = holder.trim().parse().unwrap_or_default();
                return Err(Error::InUse { data_dir: data_dir.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
        }
    }
    // Only for the message above; the lock itself is the kernel's.
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()))
        .at("write", &path)?;
    Ok(file)
}

/// Removes a folder and what is in it, if there is one.
pub(crate) fn remove(folder: &Path) -> Result<(), Error> {
    // A killed initdb's own child may still write for a moment after us.
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match std::fs::remove_dir_all(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && Instant::now() < deadline => {
                std::thread::sleep(POLL);
            }
            Err(error) => return Err(error).at("remove", folder),
        }
    }
}

/// The end of what a program wrote, short enough for an error message.
pub(crate) fn last_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
