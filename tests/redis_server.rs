//! A Redis of a test's own, without a memory beyond its process.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use adapters::redis::Redis;

use crate::patience::{eventually, not_run};

/// It ends with the test.
pub struct RedisServer {
    process: Child,
    port: u16,
    pub handle: Redis,
}

impl RedisServer {
    /// None, told loudly, where no Redis is installed.
    pub async fn start(test: &str) -> Option<RedisServer> {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let process = match serve(port) {
            Ok(process) => process,
            Err(error) => {
                not_run(test, format!("there is no redis-server: {error}"));
                return None;
            }
        };
        let server = RedisServer { process, port, handle: handle(port) };
        server.is_up().await;
        Some(server)
    }

    /// Another process' connections to it.
    pub fn another_handle(&self) -> Redis {
        handle(self.port)
    }

    pub fn kill(&mut self) {
        self.process.kill().expect("alive");
        self.process.wait().expect("dead");
    }

    /// Starts it again after it was killed, with nothing in it.
    pub async fn come_back(&mut self) {
        self.process = serve(self.port).expect("it was there a moment ago");
        self.is_up().await;
    }

    async fn is_up(&self) {
        eventually("redis-server answers", async || self.handle.is_up().await).await;
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn handle(port: u16) -> Redis {
    Redis::at(&format!("redis://127.0.0.1:{port}")).expect("a handle")
}

fn serve(port: u16) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}
