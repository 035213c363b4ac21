//! Looking inside: logs, exec, attach, cp, port-forward, debug.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Stdio,
};

use serde_json::json;

use crate::{
    case::{Case, Fact, container, lasting, pod},
    stage::Stage,
};

pub(crate) fn cases(_: &Stage) -> Vec<Case> {
    [logs(), commands(), streams()].into_iter().flatten().collect()
}

fn logs() -> Vec<Case> {
    let lines =
        || pod("for i in 1 2 3; do echo line $i; done; echo error >&2", json!({}), json!({}));
    let case = |name, pod, facts: Vec<Fact>| Case::new(name, vec![pod], facts);
    let says = |arguments, wanted: &str| Fact::Kubectl(arguments, wanted.to_owned());
    vec![
        case(
            "logs-tail-and-limit",
            lines(),
            vec![
                Fact::Phase("Succeeded"),
                says(&["logs", "p", "--tail=2"], "line 3\nerror"),
                says(&["logs", "p", "--limit-bytes=6"], "line 1"),
                says(&["logs", "p", "--timestamps", "--tail=1"], "Z error"),
            ],
        ),
        case(
            "logs-of-all-containers",
            pod(
                "echo from c",
                json!({}),
                json!({"containers": [container("d", "echo from d", json!({}))]}),
            ),
            vec![
                Fact::Phase("Succeeded"),
                says(&["logs", "p", "--all-containers", "--prefix"], "[pod/p/d] from d"),
            ],
        ),
        case(
            "logs-followed-to-the-end",
            pod("for i in 1 2 3; do echo line $i; sleep 0.5; done", json!({}), json!({})),
            vec![Fact::Runs, says(&["logs", "p", "-f"], "line 3")],
        ),
        case(
            "logs-of-no-such-container",
            lines(),
            vec![
                Fact::Phase("Succeeded"),
                Fact::Fails(
                    &["logs", "p", "-c", "none"],
                    "container none is not valid for pod p".to_owned(),
                ),
            ],
        ),
        case(
            "logs-before-there-are-any",
            pod("true", json!({"image": "absent.test/x:1", "imagePullPolicy": "Never"}), json!({})),
            vec![
                Fact::Waits("ErrImageNeverPull", ""),
                Fact::Fails(&["logs", "p"], "is waiting to start".to_owned()),
            ],
        ),
        case(
            "logs-of-the-run-before-the-first",
            lines(),
            vec![
                Fact::Phase("Succeeded"),
                Fact::Fails(
                    &["logs", "p", "--previous"],
                    "previous terminated container \"c\" in pod \"p\" not found".to_owned(),
                ),
            ],
        ),
    ]
}

fn commands() -> Vec<Case> {
    let running = |name, facts: Vec<Fact>| {
        Case::new(
            name,
            vec![lasting(json!({}), json!({}))],
            std::iter::once(Fact::Runs).chain(facts).collect(),
        )
    };
    vec![
        running(
            "exec-runs-a-command",
            vec![Fact::Kubectl(&["exec", "p", "--", "sh", "-c", "echo $((6*7))"], "42".to_owned())],
        ),
        running(
            "exec-tells-the-exit-code",
            vec![Fact::Fails(&["exec", "p", "--", "sh", "-c", "exit 5"], "exit code 5".to_owned())],
        ),
        running(
            "exec-of-no-such-program",
            vec![Fact::Fails(
                &["exec", "p", "--", "nothing-like-it"],
                "executable file not found in $PATH".to_owned(),
            )],
        ),
        running(
            "exec-with-input",
            vec![Fact::Does(|stage, namespace| {
                let mut child = stage
                    .edge
                    .kubectl_command(&[
                        "-n", namespace, "exec", "-i", "p", "--", "tr", "a-z", "A-Z",
                    ])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                child.stdin.take().unwrap().write_all(b"shout\n").unwrap();
                let output = child.wait_with_output().unwrap();
                assert_eq!(String::from_utf8_lossy(&output.stdout), "SHOUT\n");
            })],
        ),
        running(
            "cp-there-and-back",
            vec![Fact::Does(|stage, namespace| {
                let path = stage.edge.data().join("copied");
                let text = "0123456789abcdef".repeat(10_000);
                std::fs::write(&path, &text).unwrap();
                let (there, back) =
                    (path.to_str().unwrap().to_owned(), path.with_extension("back"));
                stage.kubectl(namespace, &["cp", &there, "p:/tmp/copied"]);
                stage.kubectl(namespace, &["cp", "p:/tmp/copied", back.to_str().unwrap()]);
                assert_eq!(std::fs::read_to_string(back).unwrap(), text);
            })],
        ),
        running(
            "debug-with-an-ephemeral-container",
            vec![
                Fact::Kubectl(
                    &[
                        "debug",
                        "p",
                        "--image",
                        "lab.toono.io/busybox:1",
                        "--target=c",
                        "-c",
                        "look",
                        "--",
                        "sh",
                        "-c",
                        "ps | grep -c '[t]rap'",
                    ],
                    String::new(),
                ),
                Fact::Is(
                    "/status/ephemeralContainerStatuses/0/state/terminated/exitCode",
                    "0".to_owned(),
                ),
                Fact::LogHas("look", "1".to_owned()),
            ],
        ),
        Case::new(
            "exec-in-one-that-has-ended",
            vec![pod("true", json!({}), json!({}))],
            vec![
                Fact::Phase("Succeeded"),
                Fact::Fails(
                    &["exec", "p", "--", "true"],
                    "cannot exec into a container in a completed pod".to_owned(),
                ),
            ],
        ),
    ]
}

fn streams() -> Vec<Case> {
    vec![
        Case::new(
            "port-forward",
            vec![lasting(
                json!({"command": ["httpd", "-f", "-p", "8080", "-h", "/www"],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}),
                json!({}),
            )],
            vec![
                Fact::Holds("Ready"),
                Fact::Does(|stage, namespace| {
                    let mut child = stage
                        .edge
                        .kubectl_command(&["-n", namespace, "port-forward", "p", ":8080"])
                        .stdout(Stdio::piped())
                        .spawn()
                        .unwrap();
                    let mut line = String::new();
                    // It stays open: kubectl ends where nobody reads on.
                    let mut output = BufReader::new(child.stdout.take().unwrap());
                    output.read_line(&mut line).unwrap();
                    let port: u16 = line
                        .split("127.0.0.1:")
                        .nth(1)
                        .and_then(|it| it.split(' ').next()?.parse().ok())
                        .unwrap();
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
                    // It ends as httpd ends it, which may be by a reset.
                    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        answer.extend_from_slice(&buffer[..length]);
                    }
                    child.kill().unwrap();
                    child.wait().unwrap();
                    let answer = String::from_utf8_lossy(&answer);
                    assert!(answer.contains("Hello from the edge"), "{answer}");
                }),
            ],
        ),
        Case::new(
            "attach-sees-what-is-written",
            vec![pod(
                "until [ -e /tmp/go ]; do sleep 0.1; done; echo seen; sleep 1",
                json!({}),
                json!({}),
            )],
            vec![
                Fact::Runs,
                Fact::Does(|stage, namespace| {
                    let mut child = stage
                        .edge
                        .kubectl_command(&["-n", namespace, "attach", "p", "-c", "c"])
                        .stdout(Stdio::piped())
                        .stderr(Stdio::piped())
                        .spawn()
                        .unwrap();
                    let mut seen = String::new();
                    // kubectl says so when it is there.
                    BufReader::new(child.stderr.take().unwrap()).read_line(&mut seen).unwrap();
                    stage.kubectl(namespace, &["exec", "p", "--", "touch", "/tmp/go"]);
                    let mut output = String::new();
                    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
                    child.wait().unwrap();
                    assert!(output.contains("seen"), "{output}");
                }),
            ],
        ),
        Case::new(
            "input-once",
            vec![pod("cat", json!({"stdin": true, "stdinOnce": true}), json!({}))],
            vec![
                Fact::Runs,
                Fact::Does(|stage, namespace| {
                    let mut child = stage
                        .edge
                        .kubectl_command(&["-n", namespace, "attach", "-i", "p", "-c", "c"])
                        .stdin(Stdio::piped())
                        .stdout(Stdio::piped())
                        .spawn()
                        .unwrap();
                    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
                    child.wait_with_output().unwrap();
                }),
                Fact::Phase("Succeeded"),
                Fact::Log("c", "typed\n".to_owned()),
            ],
        ),
    ]
}
