//! Who Postgres runs as. It refuses root, so a root parent drops to an ordinary user.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{At, Error};
use crate::process::{self, Account};

/// The user that owns the cluster and runs its programs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) account: Account,
    /// Whether we are root and must change to `account`.
    drops: bool,
}

impl Identity {
    /// Ourselves, or as root: whoever owns the clusters already there, else `postgres`, else `nobody`.
    pub(crate) fn choose(clusters: &[PathBuf]) -> Result<Self, Error> {
        let us = process::effective_account();
        if us.uid != 0 {
            return Ok(Self { account: us, drops: false });
        }
        // A `postgres` user that was installed after the first start must not lose us our data.
        let owner = clusters
            .iter()
            .filter_map(|cluster| std::fs::metadata(cluster).ok())
            .map(|meta| Account { uid: meta.uid(), gid: meta.gid() })
            .find(|owner| owner.uid != 0);
        let account = owner
            .or_else(|| process::account(c"postgres"))
            .or_else(|| process::account(c"nobody"))
            .ok_or(Error::NoAccount)?;
        Ok(Self { account, drops: true })
    }

    /// A command that runs as this user, with nothing of our environment that Postgres would heed.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Our own working directory may be closed to the user we drop to.
        command.current_dir("/").stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let inherited = name.to_string_lossy();
            if inherited.starts_with("PG") || inherited.starts_with("LC_") || inherited == "LANG" {
                command.env_remove(&name);
            }
        }
        // English messages, and no dependence on which locales are installed.
        command.env("LC_ALL", "C").env("TZ", "UTC");
        if self.drops {
            // std also drops our supplementary groups here.
            command.uid(self.account.uid).gid(self.account.gid);
        }
        command
    }

    /// Refuses a data directory this user could never enter. Writes nothing.
    ///
    /// # Errors
    /// [`Error::Unreachable`] names the first closed folder on the way.
    pub(crate) fn check_reachable(&self, data_dir: &Path) -> Result<(), Error> {
        if !self.drops {
            return Ok(());
        }
        // An empty folder of root's is opened by `claim`: it can only have been made for us.
        let top = if is_empty_of_root(data_dir) { data_dir.parent() } else { Some(data_dir) };
        let mut folders: Vec<&Path> =
            top.map(|top| top.ancestors().filter(|folder| folder.exists()).collect()).unwrap_or_default();
        folders.reverse();
        // Trying it as that user is exact where reading mode bits is not (groups, ACLs).
        let script = r#"for folder; do cd "$folder" 2>/dev/null || { printf %s "$folder"; exit 1; }; done"#;
        let shell = Path::new("/bin/sh");
        let output = self.command(shell).args(["-c", script, "sh"]).args(&folders).output().at("run", shell)?;
        if output.status.success() {
            return Ok(());
        }
        let blocked = PathBuf::from(String::from_utf8_lossy(&output.stdout).into_owned());
        Err(Error::Unreachable { blocked, user: self.name().to_owned() })
    }

    /// Makes a folder this user's own and private, creating it if need be.
    pub(crate) fn own_private(&self, path: &Path) -> Result<(), Error> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) if self.drops => process::give(path, self.account).at("give away", path)?,
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).at("create", path),
        }
        // Not following links: in a folder that everyone may write to, the name may be a trap.
        let meta = std::fs::symlink_metadata(path).at("examine", path)?;
        if !meta.is_dir() {
            return Err(Error::SocketFolder { path: path.to_owned(), reason: "it is not a folder".into() });
        }
        self.check_owner(path, meta.uid())?;
        if meta.mode() & 0o777 != 0o700 {
            let private = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(path, private).at("make private", path)?;
        }
        Ok(())
    }

    /// Refuses what belongs to anybody else.
    pub(crate) fn check_owner(&self, path: &Path, owner: u32) -> Result<(), Error> {
        if owner == self.account.uid {
            return Ok(());
        }
        Err(Error::ForeignOwner { path: path.to_owned(), owner, uid: self.account.uid })
    }

    /// Creates the data directory, open for this user to pass through.
    pub(crate) fn claim(&self, data_dir: &Path) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;
        let made: Vec<PathBuf> = data_dir
            .ancestors()
            .take_while(|folder| !folder.exists() || (*folder == data_dir && is_empty_of_root(folder)))
            .map(Path::to_owned)
            .collect();
        std::fs::create_dir_all(data_dir).at("create", data_dir)?;
        if self.drops {
            // Whatever root's umask says, the dropped user must get through, and only through.
            for folder in made {
                let passable = std::fs::Permissions::from_mode(0o711);
                std::fs::set_permissions(&folder, passable).at("open", &folder)?;
            }
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        let is = |name| process::account(name).is_some_and(|known| known.uid == self.account.uid);
        if is(c"postgres") {
            "`postgres`"
        } else if is(c"nobody") {
            "`nobody`"
        } else {
            "the owner of its data"
        }
    }
}

fn is_empty_of_root(folder: &Path) -> bool {
    std::fs::metadata(folder).is_ok_and(|meta| meta.uid() == 0)
        && std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}
