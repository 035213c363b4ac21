//! DNS on the node, with a real resolver behind it (Debian's dnsmasq), through cuts and restarts.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use toono_names::{Ask, Name, kind};

use crate::{
    cloud::{Cloud, PATIENCE},
    site::{Site, in_own_namespace},
};

const UID: &str = "7d1b6f0e-6a53-4a2e-8a52-6e1f9c1d3b11";
/// The bridge's address of the test's pod network.
const DNS: ([u8; 4], u16) = ([10, 244, 7, 1], 10_272);

/// A resolver on the loopback of this namespace; ends with the test.
struct Resolver(Child);

impl Resolver {
    async fn start(arguments: &[&str]) -> Self {
        let child = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--no-resolv",
                "--no-hosts",
                "--user=root",
                "--pid-file=",
            ])
            .args(["--conf-file=/dev/null", "--listen-address=127.0.0.1", "--bind-interfaces"])
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .expect("dnsmasq is needed: make test-packages");
        let there = timeout(PATIENCE, async {
            while TcpStream::connect("127.0.0.1:53").await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        there.await.expect("dnsmasq does not listen");
        Self(child)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The response code, and the address that the answer ends with.
type Heard = (u8, Option<[u8; 4]>);

fn heard(message: &[u8]) -> Heard {
    let has_answers = message[7] > 0;
    (message[3] & 15, has_answers.then(|| message.last_chunk().copied().unwrap()))
}

fn question(name: &str) -> Vec<u8> {
    Ask::of(Name::of(name).unwrap(), kind::A).message(77, false)
}

/// Asks once; none when nothing comes back in time.
async fn ask(name: &str, patience: Duration) -> Option<Heard> {
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    // There may be no bridge yet.
    socket.connect(SocketAddr::from(DNS)).await.ok()?;
    socket.send(&question(name)).await.ok()?;
    let mut room = [0; 2048];
    let length = timeout(patience, socket.recv(&mut room)).await.ok()?.ok()?;
    Some(heard(&room[..length]))
}

async fn ask_by_tcp(name: &str) -> Heard {
    let mut stream = TcpStream::connect(SocketAddr::from(DNS)).await.unwrap();
    let question = question(name);
    // In parts, as a slow client sends.
    stream.write_all(&(question.len() as u16).to_be_bytes()).await.unwrap();
    stream.write_all(&question[..5]).await.unwrap();
    stream.flush().await.unwrap();
    stream.write_all(&question[5..]).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.unwrap();
    heard(&answer)
}

/// Until a name means this.
async fn until(name: &str, expected: Heard) {
    let mut last = None;
    let seen = timeout(PATIENCE, async {
        loop {
            last = ask(name, Duration::from_millis(500)).await;
            if last == Some(expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let is_seen = seen.await.is_ok();
    assert!(is_seen, "{name}: {last:?} instead of {expected:?}");
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "uid": UID},
        "spec": {
            "nodeName": "n1", "terminationGracePeriodSeconds": 0, "hostname": "till", "subdomain": "db",
            "dnsConfig": {"nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3"]},
            "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["x"]}],
            "containers": [{"name": "main", "image": "images.test/busybox:1",
                "command": ["/bin/sh", "-c", "hostname; env; sleep 1000"],
                "env": [{"name": "URL", "value": "http://$(WEB_SERVICE_HOST)/"}]}],
        },
    })
}

const WEB: &str = r#"{"clusterIPs":["10.96.0.7"],"ports":[{"port":80}]}"#;

/// Until a file has another content, which is told.
async fn until_another(path: &Path, before: Vec<u8>) -> Vec<u8> {
    loop {
        let now = fs::read(path).unwrap_or_default();
        if now != before {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn resolvers(site: &Site, text: &str) {
    fs::write(&site.config.resolv_conf, text).unwrap();
}

#[test]
fn names_are_answered_with_and_without_the_cloud_and_the_wan() {
    in_own_namespace(async {
        let resolver =
            Resolver::start(&["--address=/shop.example/192.0.2.80", "--local-ttl=1"]).await;
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        resolvers(&site, "nameserver 127.0.0.1\nsearch lan\n");
        cloud.know(&[
            (
                "service/kube-system/kube-dns",
                Some(r#"{"clusterIPs":["10.96.0.10"],"ports":[{"port":53}]}"#),
            ),
            ("service/shop/web", Some(WEB)),
        ]);
        let agent = site.start();
        let web = "web.shop.svc.cluster.local";
        until(web, (0, Some([10, 96, 0, 7]))).await;
        assert_eq!(ask_by_tcp(web).await, (0, Some([10, 96, 0, 7])));
        assert_eq!(ask("none.shop.svc.cluster.local", PATIENCE).await, Some((3, None)));
        until("www.shop.example", (0, Some([192, 0, 2, 80]))).await;
        assert_eq!(ask_by_tcp("www.shop.example").await, (0, Some([192, 0, 2, 80])));

        let part = site.config.data.join("pool/part");
        let before = timeout(PATIENCE, until_another(&part, Vec::new())).await.unwrap();
        cloud.know(&[(
            "service/shop/web",
            Some(r#"{"clusterIPs":["10.96.0.8"],"ports":[{"port":80}]}"#),
        )]);
        cloud.want(vec![pod()]).await;
        until(web, (0, Some([10, 96, 0, 8]))).await;
        cloud
            .until(UID, |_, status| {
                status.container_statuses.as_ref().is_some_and(|it| it[0].ready)
            })
            .await;
        what_the_pod_has(&site, &cloud);

        timeout(PATIENCE, until_another(&part, before)).await.expect("the change is kept");
        // The WAN is cut: what was asked before is known, whatever else is not.
        drop(resolver);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(ask("www.shop.example", PATIENCE).await, Some((0, Some([192, 0, 2, 80]))));
        assert_eq!(ask("other.shop.example", PATIENCE).await, Some((2, None)));
        // The cloud is away, too, and the agent starts anew.
        agent.stop().await;
        drop(cloud);
        let agent = site.start();
        until(web, (0, Some([10, 96, 0, 8]))).await;
        let _again = Resolver::start(&["--address=/shop.example/192.0.2.81"]).await;
        until("www.shop.example", (0, Some([192, 0, 2, 81]))).await;
        agent.stop().await;
        site.clear().await;
    });
}

fn what_the_pod_has(site: &Site, cloud: &Cloud) {
    let etc = |name: &str| fs::read_to_string(site.pod_dir(UID).join("etc").join(name)).unwrap();
    assert_eq!(
        etc("resolv.conf"),
        "search shop.svc.cluster.local svc.cluster.local cluster.local lan\n\
         nameserver 10.96.0.10\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:5\n"
    );
    let hosts = etc("hosts");
    assert!(hosts.contains("\ttill.db.shop.svc.cluster.local\ttill\n"), "{hosts}");
    assert!(hosts.ends_with("\n# Entries added by HostAliases.\n192.0.2.7\tx\n"), "{hosts}");
    let messages = cloud.messages_of("DNSConfigForming");
    assert_eq!(
        messages,
        ["Nameserver limits were exceeded, some nameservers have been omitted, the applied \
        nameserver line is: 10.96.0.10 192.0.2.1 192.0.2.2"]
    );
    let log = site.pod_dir(UID).join("logs/main/0.log");
    let text = fs::read_to_string(Path::new(&log)).unwrap();
    for line in [
        "till",
        "WEB_SERVICE_HOST=10.96.0.8",
        "WEB_PORT_80_TCP=tcp://10.96.0.8:80",
        "URL=http://10.96.0.8/",
    ] {
        assert!(text.lines().any(|it| it.ends_with(line)), "{line} in {text}");
    }
}

#[test]
fn a_resolver_that_leads_back_is_left() {
    in_own_namespace(async {
        let _resolver = Resolver::start(&["--server=10.244.7.1#10272", "--cache-size=0"]).await;
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        resolvers(&site, "nameserver 127.0.0.1\n");
        cloud.know(&[("service/shop/web", Some(WEB))]);
        let agent = site.start();
        until("web.shop.svc.cluster.local", (0, Some([10, 96, 0, 7]))).await;
        until("www.shop.example", (2, None)).await;
        let begin = Instant::now();
        assert_eq!(ask("late.shop.example", PATIENCE).await, Some((2, None)));
        assert!(begin.elapsed() < Duration::from_secs(1), "nobody is asked any more");
        resolvers(&site, "nameserver 127.0.0.1\n# Mended.\n");
        agent.stop().await;
        site.clear().await;
    });
}
