//! What survives a crash: of the server, of the shop that holds it, of both, of the first start.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use embedded::{Cluster, NAME, Options, discover, running};
use tempfile::TempDir;

use super::{assert_remembered, data_dir, options, remember, start};

/// Tells the copy of this program that a test starts which data directory to hold.
const HOLD: &str = "EMBEDDED_TEST_HOLD";

/// What a crash test needs: only a durable cluster keeps its last commits through one.
fn durable(data_dir: &Path) -> Options {
    Options { durable: true, ..options(data_dir) }
}

async fn start_durable(dir: &TempDir) -> Cluster {
    Cluster::start(&durable(dir.path())).await.expect("a running cluster")
}

pub(super) fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill runs");
    assert!(status.success(), "kill {signal} {pid}");
}

pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    // A busy machine takes its time.
    let deadline = Instant::now() + Duration::from_secs(180);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Another process that holds a cluster, as a shop that can be killed.
struct Holder {
    process: Child,
    postmaster: u32,
}

impl Holder {
    fn of(dir: &TempDir) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "crashes::hold_a_cluster_for_another_test", "--ignored", "--nocapture"])
            .env(HOLD, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a copy of this program");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let pid = output.lines().find_map(|line| line.ok()?.split_once("postmaster=")?.1.trim().parse().ok());
        Self { process, postmaster: pid.expect("a pid") }
    }

    fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }
}

#[tokio::test]
#[ignore = "started by other tests"]
async fn hold_a_cluster_for_another_test() {
    let Some(dir) = std::env::var_os(HOLD) else {
        return;
    };
    let cluster = Cluster::start(&durable(Path::new(&dir))).await.expect("a running cluster");
    remember(&cluster).await;
    println!("\npostmaster={}", cluster.pid());
    // Until the other end of the pipe, the test, is gone.
    drop(std::io::stdin().read_line(&mut String::new()));
}

#[tokio::test]
async fn an_immediate_restart_recovers_in_the_same_place() {
    let Some(dir) = data_dir() else { return };
    let mut cluster = start_durable(&dir).await;
    remember(&cluster).await;
    let (pid, url) = (cluster.pid(), cluster.url(NAME));
    cluster.restart_immediately().await.expect("restarted");
    assert_ne!(cluster.pid(), pid);
    assert_eq!(cluster.url(NAME), url);
    assert_remembered(&cluster).await;
    let log = std::fs::read_to_string(dir.path().join("postgres.log")).expect("a log");
    assert!(log.contains("was not properly shut down"), "it did not crash:\n{log}");
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_killed_server_recovers_at_the_next_start() {
    let Some(dir) = data_dir() else { return };
    let mut cluster = start_durable(&dir).await;
    remember(&cluster).await;
    kill("-KILL", cluster.pid());
    cluster.restart_immediately().await.expect("restarted");
    assert_remembered(&cluster).await;
    kill("-KILL", cluster.pid());
    drop(cluster);
    let cluster = start_durable(&dir).await;
    assert_remembered(&cluster).await;
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_killed_shop_takes_its_server_with_it() {
    let Some(dir) = data_dir() else { return };
    let mut holder = Holder::of(&dir);
    holder.kill();
    if cfg!(target_os = "linux") {
        let process = format!("/proc/{}/cwd", holder.postmaster);
        // A zombie that nobody reaps has no folder any more.
        until("the server ends", || std::fs::read_link(&process).is_err()).await;
    }
    let cluster = start_durable(&dir).await;
    assert_remembered(&cluster).await;
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_shop_killed_together_with_its_server_recovers() {
    let Some(dir) = data_dir() else { return };
    let mut holder = Holder::of(&dir);
    kill("-KILL", holder.postmaster);
    holder.kill();
    let cluster = start_durable(&dir).await;
    assert_remembered(&cluster).await;
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_stale_pid_file_that_names_a_living_stranger_is_no_obstacle() {
    let Some(dir) = data_dir() else { return };
    let cluster = start(&dir).await;
    remember(&cluster).await;
    let folder = cluster.data_dir().to_owned();
    let pid_file = folder.join("postmaster.pid");
    let text = std::fs::read_to_string(&pid_file).expect("a pid file");
    cluster.stop().await.expect("stopped");
    // The same user's, else Postgres itself would see that it cannot be a rival.
    let owner = std::fs::metadata(&folder).expect("there");
    let mut stranger = Command::new("sleep").arg("600").uid(owner.uid()).gid(owner.gid()).spawn().expect("sleep runs");
    let forged = format!("{}\n{}", stranger.id(), text.split_once('\n').expect("lines").1);
    std::fs::write(&pid_file, forged).expect("written");
    std::os::unix::fs::chown(&pid_file, Some(owner.uid()), Some(owner.gid())).expect("given");
    assert_eq!(running(dir.path()), None);
    let cluster = start(&dir).await;
    assert_remembered(&cluster).await;
    cluster.stop().await.expect("stopped");
    std::fs::write(&pid_file, "").expect("written");
    start(&dir).await.stop().await.expect("an empty pid file is no obstacle either");
    stranger.kill().and_then(|()| stranger.wait()).expect("ended");
}

#[tokio::test]
async fn a_half_finished_initdb_is_done_again() {
    let Some(dir) = data_dir() else { return };
    let found = discover(&options(dir.path())).expect("checked");
    let unfinished = dir.path().join(format!("postgres-{}.init", found.major));
    std::fs::create_dir_all(unfinished.join("base")).expect("created");
    std::fs::write(unfinished.join("PG_VERSION"), "half").expect("written");
    let cluster = start(&dir).await;
    assert!(!unfinished.exists());
    cluster.stop().await.expect("stopped");
}
