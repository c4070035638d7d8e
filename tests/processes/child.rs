//! One process of the real binary: what it says, and how it ends.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    sync::watch,
};

use crate::patience::{PATIENCE, in_time};

/// Lines of a process, both streams, in the order they came. Nobody sends once both streams have ended.
type Said = watch::Receiver<Vec<String>>;

/// A process of ours. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: tokio::process::Child,
    pid: u32,
    said: Said,
}

/// The real binary, with this environment and nothing else that could configure it.
pub fn binary(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cart-engine"));
    let kept = ["PATH", "HOME", "TMPDIR"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    // A configuration file is looked for in the current folder.
    command.args(arguments).env_clear().envs(kept).envs(environment.iter().copied()).current_dir(Path::new("/"));
    command
}

impl Child {
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Child {
        Child::spawn(&arguments.join(" "), binary(arguments, environment))
    }

    pub fn spawn(name: &str, mut command: Command) -> Child {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let (say, said) = watch::channel(Vec::new());
        let (stdout, stderr) = (process.stdout.take().expect("piped"), process.stderr.take().expect("piped"));
        listen(stdout, say.clone());
        listen(stderr, say);
        let pid = process.id().expect("it has not been waited for");
        Child { name: name.to_owned(), process, pid, said }
    }

    /// Waits for a line that contains `text`, and returns what follows it.
    pub async fn says(&self, text: &str) -> String {
        let mut said = self.said.clone();
        let heard = said.wait_for(|lines| lines.iter().any(|line| line.contains(text)));
        match tokio::time::timeout(PATIENCE, heard).await {
            Ok(Ok(lines)) => {
                let line = lines.iter().find_map(|line| line.split_once(text)).expect("just heard");
                line.1.to_owned()
            }
            Ok(Err(_)) => panic!("{} ended before it said {text:?}: {}", self.name, self.heard()),
            Err(_) => panic!("{} never said {text:?}: {}", self.name, self.heard()),
        }
    }

    /// Everything it has said, for whoever must find out what went wrong.
    pub fn heard(&self) -> String {
        self.said.borrow().join("\n")
    }

    /// Everything it has said once it has ended.
    pub async fn last_words(&mut self) -> String {
        let mut said = self.said.clone();
        let all = async { while said.changed().await.is_ok() {} };
        in_time("its streams end with it", all).await;
        self.heard()
    }

    /// Sends it a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").arg(format!("-{name}")).arg(self.pid.to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "{} takes no {name}", self.name);
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        match tokio::time::timeout(PATIENCE, self.process.wait()).await {
            Ok(ended) => ended.expect("a child of ours"),
            Err(_) => panic!("{} did not end within {PATIENCE:?}: {}", self.name, self.heard()),
        }
    }

    /// Whether it runs still.
    pub fn lives(&mut self) -> bool {
        self.process.try_wait().expect("a child of ours").is_none()
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        self.process.kill().await.expect("a child of ours");
    }
}

fn listen(stream: impl AsyncRead + Unpin + Send + 'static, say: watch::Sender<Vec<String>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            say.send_modify(|said| said.push(line));
        }
    });
}
