//! Into a pod by HTTP: `kubectl port-forward`, and the `proxy` of pods, Services and nodes.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    process::{Child, ChildStderr, ChildStdout, Stdio},
    time::Duration,
};

use crate::{
    edge::{Edge, condition, kubectls, success},
    wait::until,
};

const SOON: Duration = Duration::from_secs(20);
/// Many frames of every protocol on the way.
const LARGE: usize = 1 << 20;
/// Answers one request with what it says: its first line, headers that must not come this far, and its body,
/// which kubectl sends in chunks. The web server's own scripts get only as much of a body as came with the head.
const ECHO: &str = r#"#!/bin/sh
cr=$(printf '\r')
read -r said
while read -r line && [ "$line" != "$cr" ]; do
  case $line in [Xx]-[Ff]orwarded*|[Aa]uthorization*) said="$said $line" ;; esac
done
while read -r line && line=${line%$cr} && [ "$line" != 0 ]; do said="$said
$line"; done
printf 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' ${#said} "$said"
"#;

#[test]
fn port_forward_and_proxy_reach_a_web_server_behind_nat() {
    let edge = Edge::up();
    edge.kubectl(&["scale", "deployment/hello", "--replicas=1"]);
    let pod = until("one pod", SOON, || {
        let pods = edge.pods();
        let one = pods.len() == 1 && condition(&pods[0], "Ready") == "True";
        one.then(|| pods[0].clone())
    });
    let pod = pod["metadata"]["name"].as_str().unwrap().to_owned();
    let node = edge.kubectl(&["get", "pod", &pod, "-o", "jsonpath={.spec.nodeName}"]);
    let hello = format!("hello from {node}\n");
    let large: Vec<u8> = (0..LARGE as u32).map(|n| (n.wrapping_mul(n) / 7) as u8).collect();
    serve(&edge, &pod, "large", &large);
    echo(&edge, &pod);
    edge.kubectl(&["expose", "deployment/hello", "--port=80", "--target-port=8080"]);
    edge.kubectl(&["create", "service", "clusterip", "idle", "--tcp=80:8080"]);
    for (service, pod) in [("hello", pod.as_str()), ("echo", "echo")] {
        until("endpoints", SOON, || {
            let label = format!("kubernetes.io/service-name={service}");
            let ready = "jsonpath={.items[*].endpoints[?(@.conditions.ready)].targetRef.name}";
            let slices = edge.kubectl(&["get", "endpointslices", "-l", &label, "-o", ready]);
            slices.contains(pod).then_some(())
        });
    }

    let programs = kubectls();
    // The oldest speaks SPDY, the newest WebSocket.
    for (program, websocket) in [(&programs[1], false), (programs.last().unwrap(), true)] {
        eprintln!("with {}", program.display());
        edge.use_kubectl(program.clone());
        a_port_is_forwarded(&edge, &format!("pod/{pod}"), ":8080", websocket, &hello, &large);
        a_port_is_forwarded(&edge, "service/hello", ":80", websocket, &hello, &large);
        a_closed_port_says_so(&edge, &pod);
        proxies_pass_requests_on(&edge, &pod, &hello, &large);
        proxies_say_what_is_wrong(&edge, &pod);
        let health = format!("/api/v1/nodes/{node}/proxy/healthz");
        assert_eq!(edge.kubectl(&["get", "--raw", &health]), "ok");
    }
}

/// A pod and a Service `echo` that answer as [`ECHO`] says, from the image of another pod.
fn echo(edge: &Edge, like: &str) {
    let image = ["get", "pod", like, "-o", "jsonpath={.spec.containers[0].image}"];
    let image = format!("--image={}", edge.kubectl(&image));
    let run = "printf %s \"$0\" > /echo && chmod +x /echo && exec nc -ll -p 8080 -e /echo";
    edge.kubectl(&["run", "echo", &image, "--command", "--", "sh", "-c", run, ECHO]);
    edge.kubectl(&["expose", "pod/echo", "--port=80", "--target-port=8080"]);
}

/// Puts a file where the pod's web server finds it.
fn serve(edge: &Edge, pod: &str, name: &str, content: &[u8]) {
    let write = format!("mkdir -p /www/cgi-bin && cat > /www/{name}");
    let mut child = edge
        .kubectl_command(&["exec", "-i", pod, "--", "sh", "-c", &write])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    success("kubectl exec", child.wait_with_output().unwrap());
}

/// A running `kubectl port-forward`.
struct Forward {
    child: Child,
    /// It writes a line for each connection, and would end if nobody could read it.
    output: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
    port: u16,
}

impl Forward {
    /// Forwards a port that kubectl chooses and tells.
    fn start(edge: &Edge, target: &str, ports: &str) -> Self {
        let arguments = ["port-forward", "-v=4", "--address=127.0.0.1", target, ports];
        let mut child = edge
            .kubectl_command(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut forward = Self { child, output, errors, port: 0 };
        let mut line = String::new();
        forward.output.read_line(&mut line).unwrap();
        let told = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| {
            let (port, _) = rest.split_once(" -> ")?;
            port.parse().ok()
        });
        let Some(port) = told else {
            panic!("port-forward {target}: {line:?}\n{}", forward.end());
        };
        forward.port = port;
        forward
    }

    /// The response to a GET, without its head.
    fn get(&self, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(read.is_ok(), "{path}: {read:?} after {} bytes", answer.len());
        assert!(
            answer.starts_with(b"HTTP/1.0 200 OK\r\n")
                || answer.starts_with(b"HTTP/1.1 200 OK\r\n")
        );
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        answer.split_off(head + 4)
    }

    /// Ends kubectl; what it wrote to standard error.
    fn end(mut self) -> String {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        let mut text = String::new();
        self.errors.read_to_string(&mut text).unwrap();
        text
    }
}

fn a_port_is_forwarded(
    edge: &Edge,
    target: &str,
    ports: &str,
    websocket: bool,
    hello: &str,
    large: &[u8],
) {
    let forward = Forward::start(edge, target, ports);
    assert_eq!(String::from_utf8(forward.get("/")).unwrap(), hello);
    // Connections at the same time keep apart.
    std::thread::scope(|scope| {
        let first = scope.spawn(|| forward.get("/large") == large);
        let second = scope.spawn(|| forward.get("/large") == large);
        assert_eq!(String::from_utf8(forward.get("/index.html")).unwrap(), hello);
        assert!(first.join().unwrap() && second.join().unwrap(), "{target}: other bytes");
    });
    // One that is given up early does not harm the next.
    let stream = TcpStream::connect(("127.0.0.1", forward.port)).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    assert_eq!(String::from_utf8(forward.get("/")).unwrap(), hello);
    let log = forward.end();
    // A kubectl that fails with WebSocket would go on with SPDY and only say it here.
    assert_eq!(log.contains("negotiated protocol: portforward.k8s.io"), websocket, "{log}");
    assert!(!log.contains("fallback"), "{log}");
}

fn a_closed_port_says_so(edge: &Edge, pod: &str) {
    let mut forward = Forward::start(edge, &format!("pod/{pod}"), ":9");
    let mut stream = TcpStream::connect(("127.0.0.1", forward.port)).unwrap();
    let mut answer = Vec::new();
    // Reset or closed: nothing comes.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
    let mut line = String::new();
    while !line.contains("an error occurred forwarding") {
        line.clear();
        assert_ne!(forward.errors.read_line(&mut line).unwrap(), 0, "kubectl did not say it");
    }
    assert!(line.contains("failed to connect to localhost:9 inside"), "{line}");
    forward.end();
}

fn proxies_pass_requests_on(edge: &Edge, pod: &str, hello: &str, large: &[u8]) {
    let base = "/api/v1/namespaces/default";
    for path in [
        format!("pods/{pod}:8080/proxy/"),
        format!("pods/http:{pod}:8080/proxy/index.html"),
        // The port is the one that the container declares.
        format!("pods/{pod}/proxy/"),
        "services/hello:80/proxy/index.html".to_owned(),
        "services/hello/proxy/".to_owned(),
        "services/http:hello:80/proxy/".to_owned(),
    ] {
        assert_eq!(edge.kubectl(&["get", "--raw", &format!("{base}/{path}")]), hello, "{path}");
    }
    for owner in [format!("pods/{pod}:8080"), "services/hello:80".to_owned()] {
        let path = format!("{base}/{owner}/proxy/large");
        let got = edge.kubectl_command(&["get", "--raw", &path]).output().unwrap();
        assert!(got.status.success() && got.stdout == large, "{owner}: other bytes");
    }
    let body = edge.data().join("body");
    fs::write(&body, "what was sent\n").unwrap();
    for owner in ["pods/echo:8080", "services/echo:80"] {
        let path = format!("{base}/{owner}/proxy/some/path?a=b&c=d");
        let echoed = edge.kubectl(&["create", "--raw", &path, "-f", body.to_str().unwrap()]);
        let said = echoed.starts_with("POST /some/path?a=b&c=d HTTP/1.1\r\n");
        assert!(said && echoed.contains("\nwhat was sent\n"), "{echoed:?}");
    }
}

fn proxies_say_what_is_wrong(edge: &Edge, pod: &str) {
    let missing = format!("pods/{pod}:8080/proxy/missing");
    let closed = format!("pods/{pod}:9/proxy/");
    for (path, says) in [
        (missing.as_str(), "could not find the requested resource"),
        (&closed, "error trying to reach service"),
        ("pods/nobody:8080/proxy/", "pods \"nobody\" not found"),
        ("services/nobody:80/proxy/", "services \"nobody\" not found"),
        ("services/hello:81/proxy/", "no service port \"81\" found for service \"hello\""),
        ("services/idle:80/proxy/", "no endpoints available for service \"idle\""),
    ] {
        let path = format!("/api/v1/namespaces/default/{path}");
        let failed = edge.kubectl_command(&["get", "--raw", &path]).output().unwrap();
        let text = String::from_utf8_lossy(&failed.stderr);
        assert!(!failed.status.success() && text.contains(says), "{path}: {text}");
    }
}
