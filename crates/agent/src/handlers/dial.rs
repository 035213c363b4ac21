//! Connections into a pod, from inside of its network namespace.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::errno::Errno;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use toono_http::client::Endpoint;
use toono_net::netns;

use super::Place;

/// Whom a probe or a hook connects to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The process whose network namespace it is, unless the pod names a host: from where the node
    /// itself is, then.
    inside: Option<i32>,
    host: String,
    port: u16,
}

impl Target {
    /// The pod itself, unless another host is named.
    pub(super) fn new(place: &Place, host: Option<&str>, port: u16) -> Self {
        let own = || place.pod_ip.map(|ip| ip.to_string()).unwrap_or_default();
        Self {
            inside: host.is_none().then(|| place.keeper.pid().as_raw()),
            host: host.map_or_else(own, str::to_owned),
            port,
        }
    }

    #[cfg(test)]
    pub(super) fn alone(host: &str, port: u16) -> Self {
        Self { inside: None, host: host.to_owned(), port }
    }

    /// The same way to another port.
    pub(super) fn with_port(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn endpoint(&self, tls: bool) -> Endpoint {
        Endpoint { tls, host: self.host.clone(), port: self.port }
    }

    /// `HOST:PORT`.
    pub(super) fn authority(&self) -> String {
        self.endpoint(false).authority()
    }

    /// Connects.
    ///
    /// # Errors
    /// What the kubelet's events say of it.
    pub(super) async fn connect(&self) -> Result<TcpStream, String> {
        let address = self.address().await?;
        let refused = |error: io::Error| format!("dial tcp {address}: connect: {}", reason(&error));
        let socket = self.socket(address).map_err(refused)?;
        socket.connect(address).await.map_err(refused)
    }

    /// What is said of one that did not answer in time.
    pub(super) fn timed_out(&self) -> String {
        format!("dial tcp {}: i/o timeout", self.authority())
    }

    async fn address(&self) -> Result<SocketAddr, String> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        let unknown = || format!("dial tcp: lookup {}: no such host", self.host);
        let mut found =
            lookup_host((self.host.as_str(), self.port)).await.map_err(|_| unknown())?;
        found.next().ok_or_else(unknown)
    }

    /// A socket stays in the namespace in which it was made, wherever it is used.
    fn socket(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let make = || if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        match self.inside {
            None => make(),
            Some(pid) => {
                let pod = netns::of_pid(pid).map_err(io::Error::other)?;
                pod.run(make).map_err(io::Error::other)?
            }
        }
    }
}

/// An error of the system without its number.
pub(super) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}
