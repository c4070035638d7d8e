//! Taking a port, and the address others reach it by.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use tokio::net::TcpListener;

use crate::failure::Failure;

/// Listens on `address` (`host:port`; port 0 for any).
///
/// # Errors
/// A port that is taken or forbidden, a host that is not this machine.
pub(crate) async fn listen(address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        if error.kind() == ErrorKind::AddrInUse {
            Failure::new(format!("{address} is taken by another process"))
                .hint("choose another address with --listen, e.g. --listen 127.0.0.1:0 for any free port")
        } else {
            Failure::caused_by(&format!("cannot listen on {address}"), &error)
                .hint("--listen wants host:port, e.g. 127.0.0.1:8080")
        }
    })
}

/// The URL under which this machine reaches a listener: one that listens everywhere is reached here.
///
/// # Errors
/// The operating system's own.
pub(crate) fn url(listener: &TcpListener) -> Result<String, Failure> {
    let address = listener.local_addr()?;
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    Ok(format!("http://{}", SocketAddr::new(ip, address.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_told_with_a_way_out() {
        let first = listen("127.0.0.1:0").await.expect("a port");
        let address = first.local_addr().expect("an address").to_string();
        let report = listen(&address).await.expect_err("taken").report();
        assert!(report.contains(&format!("{address} is taken")), "{report}");
        assert!(report.contains("\nhint: "), "{report}");
    }

    #[tokio::test]
    async fn what_listens_everywhere_is_reached_here() {
        let listener = listen("0.0.0.0:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        assert_eq!(url(&listener).expect("a URL"), format!("http://127.0.0.1:{port}"));
    }
}
