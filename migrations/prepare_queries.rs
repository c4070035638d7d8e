//! Regenerates `.sqlx/`, the committed answers against which `sqlx::query!` is checked, by asking a
//! throw-away cluster that carries the current schema. `--check` fails instead when they are stale.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// Crates whose queries are checked.
const CRATE_ROOTS: [&str; 7] = [
    "api/lib.rs",
    "schedules/lib.rs",
    "tests/main.rs",
    "workers/lib.rs",
    "workflows/lib.rs",
    "workflows/engine/lib.rs",
    "workflows/store/lib.rs",
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let check = std::env::args().any(|a| a == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace root")?;
    let base = if cfg!(unix) { Path::new("/tmp") } else { root };
    let scratch = tempfile::tempdir_in(base)?;
    let cluster = embedded::Cluster::start(&embedded::Options {
        durable: false,
        ..embedded::Options::new(scratch.path().join("data"))
    })
    .await?;
    cluster.ensure_database("prepare").await?;
    let pool = sqlx::PgPool::connect_with(cluster.connect_options("prepare")).await?;
    migrations::run(&pool).await?;

    let fresh = scratch.path().join("sqlx");
    std::fs::create_dir_all(&fresh)?;
    // A dependency that is compiled with the database would leave its own queries among ours: first without.
    // New queries of ours do not compile so, which does not matter.
    if !check {
        println!("compiling what the workspace depends on");
        check_all(root).args(["--quiet", "--keep-going"]).stderr(Stdio::null()).status()?;
    }
    // The macros only answer when their crate is compiled, and cargo does not know that they looked at
    // a database: a newer crate root makes it compile again.
    for crate_root in CRATE_ROOTS {
        std::fs::File::options().append(true).open(root.join(crate_root))?.set_modified(std::time::SystemTime::now())?;
    }
    let status = check_all(root)
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &fresh)
        .env("DATABASE_URL", cluster.url("prepare"))
        .status()?;
    if !status.success() {
        bail!("the workspace does not compile, or a query does not fit the schema");
    }
    let (old, new) = (read(&root.join(".sqlx"))?, read(&fresh)?);
    if new.is_empty() {
        bail!("nothing was prepared");
    }
    if check {
        let stale: Vec<_> = new.keys().filter(|name| !old.contains_key(*name)).collect();
        if !stale.is_empty() {
            bail!("{} queries are not in .sqlx: run `cargo run -p migrations --example prepare-queries`", stale.len());
        }
    } else {
        let target = root.join(".sqlx");
        if target.exists() {
            std::fs::remove_dir_all(&target)?;
        }
        std::fs::create_dir_all(&target)?;
        for (name, text) in &new {
            std::fs::write(target.join(name), text)?;
        }
        println!("{} queries prepared", new.len());
    }
    pool.close().await;
    cluster.stop().await?;
    Ok(())
}

fn check_all(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root).args(["check", "--workspace", "--all-targets"]).env("SQLX_OFFLINE", "true");
    // What `cargo run` says of this example would make some build scripts, and all that hangs on them, stale.
    for (name, _) in std::env::vars_os() {
        if ["OUT_DIR", "CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|known| name.to_string_lossy().starts_with(known)) {
            command.env_remove(name);
        }
    }
    command
}

fn read(dir: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    if !dir.exists() {
        return Ok(BTreeMap::new());
    }
    std::fs::read_dir(dir)?
        .map(|entry| {
            let path = entry?.path();
            let name = path.file_name().context("a file name")?.to_string_lossy().into_owned();
            Ok((name, std::fs::read_to_string(&path)?))
        })
        .collect()
}
