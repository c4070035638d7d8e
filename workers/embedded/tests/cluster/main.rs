//! A cluster's life on a real Postgres: made, stopped, killed, fought over.
//!
//! Every test has a cluster of its own. Without an installed Postgres the tests say so and pass.
//! They hold for root, who drops to another user, as for anybody else.

mod crashes;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use embedded::{Cluster, Error, NAME, Options, Source, discover, running};
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

fn options(data_dir: &Path) -> Options {
    let small = [("shared_buffers", "16MB"), ("max_connections", "20")];
    Options {
        data_dir: data_dir.to_owned(),
        bin_dir: None,
        discovery: true,
        offline: true,
        durable: false,
        settings: small.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
    }
}

/// A new data directory, or `None` (said aloud) where no Postgres is installed.
fn data_dir() -> Option<TempDir> {
    // Not where TMPDIR points: as root it may be closed to the user Postgres runs as.
    let dir = tempfile::tempdir_in("/tmp").expect("a folder");
    match discover(&options(dir.path())) {
        Ok(_) => Some(dir),
        Err(error) => {
            eprintln!("NOT TESTED: the embedded Postgres. {error}");
            None
        }
    }
}

async fn start(dir: &TempDir) -> Cluster {
    Cluster::start(&options(dir.path())).await.expect("a running cluster")
}

async fn run(cluster: &Cluster, sql: &'static str) {
    let mut session = cluster.connect_options("postgres").connect().await.expect("a session");
    sqlx::raw_sql(sql).execute(&mut session).await.expect(sql);
    session.close().await.expect("closed");
}

async fn ask(cluster: &Cluster, sql: &'static str) -> String {
    let mut session = cluster.connect_options("postgres").connect().await.expect("a session");
    sqlx::query_scalar(sql).fetch_one(&mut session).await.expect(sql)
}

async fn remember(cluster: &Cluster) {
    run(cluster, "create table kept (id int); insert into kept values (42); checkpoint; insert into kept values (1)")
        .await;
}

async fn assert_remembered(cluster: &Cluster) {
    assert_eq!(ask(cluster, "select sum(id)::text from kept").await, "43");
}

#[tokio::test]
async fn the_first_start_makes_a_cluster_that_the_shop_can_use() {
    let Some(dir) = data_dir() else { return };
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("closed");
    let cluster = start(&dir).await;
    run(&cluster, "create extension pgcrypto; create extension hstore").await;
    assert_eq!(ask(&cluster, "show listen_addresses").await, "");
    assert_eq!(ask(&cluster, "show timezone").await, "UTC");
    assert_eq!(ask(&cluster, "show server_encoding").await, "UTF8");
    assert_eq!(ask(&cluster, "show fsync").await, "off");
    assert_eq!(ask(&cluster, "show max_connections").await, "20", "the caller's settings win");
    assert!(ask(&cluster, "select version()").await.contains(cluster.version()));
    let socket_folder = ask(&cluster, "show unix_socket_directories").await;
    assert!(socket_folder.len() < 90, "{socket_folder}");
    for private in [Path::new(&socket_folder), cluster.data_dir()] {
        let meta = std::fs::metadata(private).expect("there");
        assert_eq!(meta.mode() & 0o777, 0o700, "{}", private.display());
        assert_ne!(meta.uid(), 0, "{}", private.display());
    }
    cluster.stop().await.expect("stopped");
    assert!(!Path::new(&socket_folder).exists(), "a stopped cluster leaves nothing in /tmp");
}

#[tokio::test]
async fn a_database_is_created_once_and_its_url_is_understood_by_sqlx_and_psql() {
    let Some(dir) = data_dir() else { return };
    let cluster = start(&dir).await;
    for _ in 0..2 {
        cluster.ensure_database("odd \"name\" ?").await.expect("created");
    }
    let url = cluster.url("odd \"name\" ?");
    let mut session = sqlx::PgConnection::connect(&url).await.expect(&url);
    let name: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(&mut session).await.expect("asked");
    assert_eq!(name, "odd \"name\" ?");
    if let Ok(output) = Command::new("psql").args(["-Atc", "select current_user", &url]).output() {
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), NAME, "{output:?}");
    }
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_restart_keeps_the_data() {
    let Some(dir) = data_dir() else { return };
    let cluster = start(&dir).await;
    remember(&cluster).await;
    cluster.stop().await.expect("stopped");
    let cluster = start(&dir).await;
    assert_remembered(&cluster).await;
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_dropped_cluster_stops_by_itself_and_the_next_start_waits_for_it() {
    let Some(dir) = data_dir() else { return };
    let cluster = start(&dir).await;
    remember(&cluster).await;
    drop(cluster);
    let cluster = start(&dir).await;
    assert_remembered(&cluster).await;
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_second_start_on_the_same_data_is_refused_and_told_by_whom() {
    let Some(dir) = data_dir() else { return };
    let cluster = start(&dir).await;
    let error = Cluster::start(&options(dir.path())).await.expect_err("refused");
    assert!(matches!(error, Error::InUse { pid, .. } if pid == std::process::id()), "{error}");
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_running_cluster_is_found_from_its_data_directory_and_a_stopped_one_is_not() {
    let Some(dir) = data_dir() else { return };
    assert_eq!(running(dir.path()), None);
    let cluster = start(&dir).await;
    assert_eq!(running(dir.path()), Some(cluster.url(NAME)));
    cluster.stop().await.expect("stopped");
    assert_eq!(running(dir.path()), None);
}

#[tokio::test]
async fn a_server_that_does_not_start_shows_the_end_of_its_log() {
    let Some(dir) = data_dir() else { return };
    let mut options = options(dir.path());
    options.settings.push(("shared_buffers".into(), "lots".into()));
    let error = Cluster::start(&options).await.expect_err("nonsense").to_string();
    assert!(error.contains("invalid value for parameter \"shared_buffers\""), "{error}");
}

#[tokio::test]
async fn root_is_told_at_once_when_the_server_could_not_enter_the_data_directory() {
    let Some(dir) = data_dir() else { return };
    if std::fs::metadata(dir.path()).expect("there").uid() != 0 {
        eprintln!("NOT TESTED: a closed parent folder. Only root drops to another user.");
        return;
    }
    let data_dir = dir.path().join("shop");
    std::fs::write(dir.path().join("secret"), "").expect("written");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("closed");
    let error = Cluster::start(&options(&data_dir)).await.expect_err("closed");
    assert!(matches!(&error, Error::Unreachable { blocked, .. } if blocked == dir.path()), "{error}");
    assert!(error.to_string().contains("--data-dir"), "{error}");
    assert!(!data_dir.exists(), "nothing was written");
}

#[tokio::test]
async fn offline_refuses_to_download() {
    let dir = tempfile::tempdir_in("/tmp").expect("a folder");
    let options = Options { discovery: false, ..options(dir.path()) };
    match discover(&options) {
        Ok(cached) => assert_eq!(cached.source, Source::Downloaded),
        Err(_) => {
            let error = Cluster::start(&options).await.expect_err("offline");
            assert!(matches!(error, Error::Offline { .. }), "{error}");
        }
    }
}

#[tokio::test]
#[ignore = "downloads 24 MB"]
async fn downloaded_binaries_make_a_cluster_that_the_shop_can_use() {
    let dir = tempfile::tempdir_in("/tmp").expect("a folder");
    let options = Options { discovery: false, offline: false, ..options(dir.path()) };
    let cluster = Cluster::start_with(&options, &|message| eprintln!("{message}")).await.expect("a running cluster");
    run(&cluster, "create extension pgcrypto; create extension hstore; create extension pg_stat_statements").await;
    remember(&cluster).await;
    cluster.stop().await.expect("stopped");
    let offline = Options { offline: true, ..options };
    let cluster = Cluster::start(&offline).await.expect("from the cache");
    assert_remembered(&cluster).await;
    assert!(cluster.bin_dir().starts_with(dir.path()) || discover(&offline).is_ok());
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_server_that_somebody_else_started_on_the_data_is_left_alone() {
    let Some(dir) = data_dir() else { return };
    let cluster = start(&dir).await;
    let folder = cluster.data_dir().to_owned();
    let program = cluster.bin_dir().join("postgres");
    cluster.stop().await.expect("stopped");
    let owner = std::fs::metadata(&folder).expect("there");
    let mut stranger = Command::new(program)
        .arg("-D")
        .arg(&folder)
        .args(["-c", "listen_addresses=", "-c"])
        .arg(format!("unix_socket_directories={}", folder.display()))
        .current_dir("/")
        .uid(owner.uid())
        .gid(owner.gid())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a server");
    crashes::until("it is ready", || running(dir.path()).is_some()).await;
    // On another thread of the runtime, as a service would start it.
    let options = options(dir.path());
    let start = tokio::spawn(async move { Cluster::start(&options).await });
    let error = start.await.expect("no panic").expect_err("refused");
    assert!(matches!(error, Error::InUse { pid, .. } if pid == stranger.id()), "{error}");
    assert!(running(dir.path()).is_some());
    crashes::kill("-QUIT", stranger.id());
    stranger.wait().expect("ended");
}
