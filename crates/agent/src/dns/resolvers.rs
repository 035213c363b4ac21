//! The resolvers that the node itself uses, as its resolv.conf (resolv.conf(5)) has them now.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// What systemd-resolved listens on. Pods cannot reach it, and it may know them as its own upstream.
const STUB: &str = "127.0.0.53";
/// Where it says whom it asks itself.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// Longest file that is read, as with the kubelet.
const MOST_BYTES: u64 = 10 << 20;
const PORT: u16 = 53;

/// What a resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) nameservers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl ResolvConf {
    /// Reads a text as the kubelet does: name servers add up, of the others the last line counts.
    pub(crate) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let keyword = words.next();
            let mut rest = words.map(ToOwned::to_owned);
            match keyword {
                Some("nameserver") => found.nameservers.extend(rest.next()),
                Some("search") => {
                    let plain = |it: String| it.strip_suffix('.').unwrap_or(&it).to_owned();
                    found.searches = rest.map(plain).collect();
                }
                Some("options") => found.options = rest.collect(),
                _ => {}
            }
        }
        found
    }

    /// What this file says; nothing when there is none. Where it leads to systemd-resolved alone, what that has.
    pub(crate) fn read(path: &Path) -> Self {
        let read = |path: &Path| {
            let is_long = fs::metadata(path).is_ok_and(|file| file.len() > MOST_BYTES);
            let text = fs::read_to_string(path).ok().filter(|_| !is_long);
            Self::parse(&text.unwrap_or_default())
        };
        let own = read(path);
        if own.nameservers.iter().all(|it| it == STUB) && !own.nameservers.is_empty() {
            let behind = read(Path::new(BEHIND_STUB));
            if !behind.nameservers.is_empty() {
                return behind;
            }
        }
        own
    }
}

/// The node's resolvers, read again when the file is another one.
#[derive(Debug)]
pub(super) struct Resolvers {
    path: PathBuf,
    /// Addresses that are this DNS itself.
    own: Vec<IpAddr>,
    seen: Option<(Option<SystemTime>, u64)>,
    servers: Vec<SocketAddr>,
    /// The one that answered last goes first.
    first: usize,
    /// One of them leads back here, until the file changes.
    is_loop: bool,
}

impl Resolvers {
    pub(super) fn new(path: &Path, own: Vec<IpAddr>) -> Self {
        let path = path.to_owned();
        Self { path, own, seen: None, servers: Vec::new(), first: 0, is_loop: false }
    }

    /// Looks at the file. Whether it is another one than before.
    pub(super) fn refresh(&mut self) -> bool {
        let state =
            fs::metadata(&self.path).map_or((None, 0), |file| (file.modified().ok(), file.len()));
        if self.seen == Some(state) {
            return false;
        }
        self.seen = Some(state);
        let conf = ResolvConf::read(&self.path);
        let mut servers = Vec::new();
        for text in &conf.nameservers {
            match text.parse::<IpAddr>() {
                Ok(address) if self.own.contains(&address) => tracing::warn!(
                    %address, file = %self.path.display(),
                    "the node's resolver is the cluster's DNS itself: it is not asked"
                ),
                Ok(address) => servers.push(SocketAddr::new(address, PORT)),
                Err(_) => tracing::warn!(text, "a name server that is no address is not asked"),
            }
        }
        (self.servers, self.first, self.is_loop) = (servers, 0, false);
        true
    }

    /// Whom to ask, in this order.
    pub(super) fn in_order(&self) -> Vec<SocketAddr> {
        if self.is_loop {
            return Vec::new();
        }
        let (later, sooner) = self.servers.split_at(self.first.min(self.servers.len()));
        [sooner, later].concat()
    }

    /// This one answered.
    pub(super) fn prefer(&mut self, server: SocketAddr) {
        if let Some(place) = self.servers.iter().position(|it| *it == server) {
            self.first = place;
        }
    }

    /// What was asked of these came back here as a question.
    pub(super) fn turn_off(&mut self) {
        if !std::mem::replace(&mut self.is_loop, true) {
            tracing::error!(
                servers = ?self.servers, file = %self.path.display(),
                "the node's resolvers ask the cluster's DNS, which asks them: they are not asked any more, and names \
                 outside of the cluster are not found; hint: name other resolvers in that file"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_the_kubelet_reads_it() {
        let text = "# made by hand\n nameserver 192.0.2.1\nnameserver ::1 x\nnameserver\nsearch a\n\
            search lan. corp\noptions ndots:2\noptions ndots:1 edns0\n";
        let found = ResolvConf::parse(text);
        assert_eq!(found.nameservers, ["192.0.2.1", "::1"]);
        assert_eq!(
            (found.searches, found.options),
            (
                vec!["lan".to_owned(), "corp".to_owned()],
                vec!["ndots:1".to_owned(), "edns0".to_owned()],
            )
        );
    }

    #[test]
    fn resolvers_follow_their_file_and_are_never_ourselves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut resolvers = Resolvers::new(&path, vec![[10, 96, 0, 10].into()]);
        assert!(resolvers.refresh() && resolvers.in_order().is_empty());
        fs::write(&path, "nameserver 192.0.2.1\nnameserver 10.96.0.10\nnameserver 192.0.2.2\n")
            .unwrap();
        assert!(resolvers.refresh() && !resolvers.refresh());
        let [one, two]: [SocketAddr; 2] = resolvers.in_order().try_into().unwrap();
        assert_eq!(
            (one.to_string(), two.to_string()),
            ("192.0.2.1:53".into(), "192.0.2.2:53".into())
        );
        resolvers.prefer(two);
        assert_eq!(resolvers.in_order(), [two, one]);
        resolvers.turn_off();
        assert!(resolvers.in_order().is_empty());
        fs::write(&path, "nameserver 192.0.2.3\n").unwrap();
        assert!(resolvers.refresh());
        assert_eq!(resolvers.in_order().len(), 1, "it is another file now");
    }
}
