//! Finding a Postgres that is already on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::identity::Identity;
use crate::running::{clusters, major_of};
use crate::{Options, download};

/// What the shop's queries and extensions need at least.
const OLDEST_MAJOR: u32 = 14;

/// Where binaries came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The folder named in [`Options::bin_dir`].
    Explicit,
    /// Installed on this machine.
    Installed,
    /// Downloaded by us, now or at an earlier start.
    Downloaded,
}

/// Usable binaries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The folder with `postgres` and `initdb`.
    pub bin_dir: PathBuf,
    /// The whole version, e.g. `17.2`.
    pub version: String,
    /// The major version, which decides whose data these can read.
    pub major: u32,
    /// How they got here.
    pub source: Source,
}

/// Finds the binaries a start with these options would use, without downloading any.
///
/// The order: the explicit folder; else what `pg_config --bindir` says, Debian's folders (newest
/// first), Homebrew, Postgres.app, `PATH`; else what was downloaded before. A major version that
/// already has data in the data directory wins over one that has none.
///
/// # Errors
/// [`Error::NotFound`] lists what was looked at and why it would not do; [`Error::Unusable`] is about
/// the explicit folder; [`Error::OtherMajor`] if all that was found cannot read the data that is there.
pub fn discover(options: &Options) -> Result<Found, Error> {
    let identity = Identity::choose(&clusters(&options.data_dir))?;
    let places = if options.discovery { Places::of_this_machine() } else { Places::default() };
    choose(options, &places, |dir, source| examine(dir, source, &identity))
}

/// Where an installed Postgres may be. Empty by default.
#[derive(Debug, Default)]
struct Places {
    path: Vec<PathBuf>,
    /// Folders that hold one folder a version, each with a `bin`.
    by_version: Vec<PathBuf>,
}

impl Places {
    fn of_this_machine() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let by_version = [
            "/usr/lib/postgresql",                          // Debian, Ubuntu
            "/usr/libexec",                                 // Alpine: postgresql17/
            "/usr",                                         // Fedora's packages: pgsql-17/
            "/opt/homebrew/opt",                            // Homebrew: postgresql@17/
            "/usr/local/opt",                               // Homebrew on Intel
            "/Applications/Postgres.app/Contents/Versions", // Postgres.app
        ];
        Self {
            path: std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect(),
            by_version: by_version.into_iter().map(PathBuf::from).collect(),
        }
    }

    fn candidates(&self) -> Vec<PathBuf> {
        let configured = self.path.iter().map(|dir| dir.join("pg_config")).find(|program| program.is_file());
        let mut found: Vec<PathBuf> = configured.and_then(|program| ask(&program, "--bindir")).into_iter().collect();
        for folder in &self.by_version {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            let mut versions: Vec<(u32, PathBuf)> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter_map(|path| Some((version_folder(path.file_name()?.to_str()?)?, path)))
                .flat_map(|(major, path)| [(major, path.join("bin")), (major, path)])
                .filter(|(_, bin)| bin.join("postgres").is_file())
                .collect();
            versions.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
            found.extend(versions.into_iter().map(|(_, bin)| bin));
        }
        found.extend(self.path.iter().filter(|dir| dir.join("postgres").is_file()).cloned());
        let mut seen = std::collections::HashSet::new();
        found.retain(|dir| seen.insert(dir.clone()));
        found
    }
}

/// The major version a folder's name tells: `17`, `postgresql@17`, `postgresql17`, `pgsql-17`.
fn version_folder(name: &str) -> Option<u32> {
    let version = name.trim_start_matches("postgresql").trim_start_matches("pgsql").trim_start_matches(['@', '-']);
    if name == "postgresql" || name == "latest" { Some(0) } else { version.parse().ok() }
}

fn choose(
    options: &Options,
    places: &Places,
    examine: impl Fn(&Path, Source) -> Result<Found, String>,
) -> Result<Found, Error> {
    let existing: Vec<u32> = clusters(&options.data_dir).iter().filter_map(|path| major_of(path)).collect();
    let candidates: Vec<(PathBuf, Source)> = match &options.bin_dir {
        Some(dir) => vec![(dir.clone(), Source::Explicit)],
        None => places
            .candidates()
            .into_iter()
            .map(|dir| (dir, Source::Installed))
            .chain(download::cached(&options.data_dir).into_iter().map(|dir| (dir, Source::Downloaded)))
            .collect(),
    };
    let mut tried = String::new();
    let mut first = None;
    for (dir, source) in candidates {
        match examine(&dir, source) {
            Ok(found) if existing.is_empty() || existing.contains(&found.major) => {
                return Ok(found);
            }
            Ok(found) => first = first.or(Some(found)),
            Err(reason) if source == Source::Explicit => {
                return Err(Error::Unusable { dir, reason });
            }
            Err(reason) => tried.push_str(&format!("\n  {}: {reason}", dir.display())),
        }
    }
    match first {
        Some(found) => Err(Error::OtherMajor {
            data_dir: options.data_dir.clone(),
            existing: existing.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
            found: found.major,
        }),
        None => Err(Error::NotFound { tried }),
    }
}

/// Whether these binaries run here, as the user they would run as, and are all we need.
pub(crate) fn examine(bin_dir: &Path, source: Source, identity: &Identity) -> Result<Found, String> {
    let bin_dir = bin_dir.canonicalize().map_err(|error| error.to_string())?;
    // `initdb` tells where its files are, which no other program of a bare installation does. It
    // also checks that the `postgres` beside it runs and is of the same version.
    let output = identity
        .command(&bin_dir.join("initdb"))
        .args(["--show", "-D", "/nonexistent"])
        .output()
        .map_err(|error| format!("initdb does not run: {error}"))?;
    let shown = [output.stdout, output.stderr].concat();
    let shown = String::from_utf8_lossy(&shown);
    let value = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let (Some(version), Some(share)) = (value("VERSION"), value("share_path")) else {
        return Err(format!("initdb does not run: {}", shown.lines().last().unwrap_or("it says nothing")));
    };
    let version = version.split_whitespace().next().unwrap_or_default().to_owned();
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    let major = version[..digits].parse().map_err(|_| format!("version {version} is not understood"))?;
    if major < OLDEST_MAJOR {
        return Err(format!("version {version} is older than {OLDEST_MAJOR}"));
    }
    for extension in ["pgcrypto", "hstore"] {
        if !Path::new(share).join("extension").join(format!("{extension}.control")).is_file() {
            return Err(format!("the contrib extension {extension} is not installed"));
        }
    }
    Ok(Found { bin_dir, version, major, source })
}

/// Whether the server can load this library at its start.
pub(crate) fn has_library(bin_dir: &Path, library: &str) -> bool {
    let configured = ask(&bin_dir.join("pg_config"), "--pkglibdir");
    let beside = ["../lib/postgresql", "../lib"].map(|folder| bin_dir.join(folder));
    configured
        .into_iter()
        .chain(beside)
        .any(|folder| ["so", "dylib"].iter().any(|suffix| folder.join(library).with_extension(suffix).is_file()))
}

fn ask(pg_config: &Path, what: &str) -> Option<PathBuf> {
    let output = Command::new(pg_config).arg(what).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !answer.trim().is_empty()).then(|| PathBuf::from(answer.trim()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn options(data_dir: &Path) -> Options {
        Options {
            data_dir: data_dir.to_owned(),
            bin_dir: None,
            discovery: true,
            offline: true,
            durable: false,
            settings: Vec::new(),
        }
    }

    fn program(path: &Path, script: &str) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("create");
        std::fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("write");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    /// Takes a folder's last number for its version, as the real examination would find out.
    fn by_name(dir: &Path, source: Source) -> Result<Found, String> {
        let text = dir.to_string_lossy();
        let major = text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).next_back();
        let major: u32 = major.ok_or("no version")?;
        if major < OLDEST_MAJOR {
            return Err("too old".into());
        }
        Ok(Found { bin_dir: dir.to_owned(), version: major.to_string(), major, source })
    }

    /// A machine with versions 13, 15 and 16 in folders and 14 on the `PATH`.
    fn machine(root: &Path) -> Places {
        for bin in ["pg/13/bin", "pg/15/bin", "pg/16/bin", "bin-14"] {
            program(&root.join(bin).join("postgres"), "");
        }
        Places { path: vec![root.join("bin-14")], by_version: vec![root.join("pg")] }
    }

    #[test]
    fn pg_config_is_asked_first_then_versions_downwards_then_the_path() {
        let root = tempfile::tempdir().expect("folder");
        let places = machine(root.path());
        let tail = ["pg/16/bin", "pg/15/bin", "pg/13/bin", "bin-14"].map(|bin| root.path().join(bin));
        assert_eq!(places.candidates(), tail);
        program(&root.path().join("bin-14/pg_config"), "echo /chosen");
        assert_eq!(places.candidates()[0], Path::new("/chosen"));
        assert_eq!(places.candidates()[1..], tail);
    }

    #[test]
    fn an_explicit_folder_beats_every_other_and_is_never_replaced() {
        let root = tempfile::tempdir().expect("folder");
        let places = machine(root.path());
        let mut options = options(&root.path().join("data"));
        options.bin_dir = Some("/mine/17".into());
        assert_eq!(choose(&options, &places, by_name).expect("found").source, Source::Explicit);
        options.bin_dir = Some("/mine/9".into());
        assert!(matches!(choose(&options, &places, by_name), Err(Error::Unusable { .. })));
    }

    #[test]
    fn the_version_that_has_data_beats_a_newer_one() {
        let root = tempfile::tempdir().expect("folder");
        let (places, options) = (machine(root.path()), options(&root.path().join("data")));
        assert_eq!(choose(&options, &places, by_name).expect("found").major, 16);
        std::fs::create_dir_all(root.path().join("data/postgres-15")).expect("create");
        assert_eq!(choose(&options, &places, by_name).expect("found").major, 15);
    }

    #[test]
    fn data_of_a_version_that_is_gone_is_not_silently_left_behind() {
        let root = tempfile::tempdir().expect("folder");
        let (places, options) = (machine(root.path()), options(&root.path().join("data")));
        std::fs::create_dir_all(root.path().join("data/postgres-12")).expect("create");
        let error = choose(&options, &places, by_name).expect_err("no 12");
        assert!(matches!(error, Error::OtherMajor { found: 16, .. }), "{error}");
    }

    #[test]
    fn without_any_the_error_says_what_was_tried_and_what_to_install() {
        let root = tempfile::tempdir().expect("folder");
        let options = options(&root.path().join("data"));
        let refuse = |_: &Path, _| Err("broken".to_owned());
        let error = choose(&options, &machine(root.path()), refuse).expect_err("all broken").to_string();
        assert!(error.contains("pg/15/bin: broken") && error.contains("apt install postgresql"), "{error}");
    }

    #[test]
    fn folders_are_known_by_each_packagers_naming() {
        for (name, major) in [("17", Some(17)), ("postgresql@16", Some(16)), ("pgsql-15", Some(15)), ("lib", None)] {
            assert_eq!(version_folder(name), major, "{name}");
        }
    }
}
