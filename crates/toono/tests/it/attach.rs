//! `kubectl attach` and `kubectl run -i`: the streams of a container itself.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use crate::edge::{Edge, kubectls};

const IMAGE: &str = "--image=lab.toono.io/busybox:1";
const ANSWERS: &str = r#"while read line; do echo "got $line"; done"#;

#[test]
fn attach_and_run_write_to_a_container_and_see_what_it_writes() {
    let edge = Edge::up();
    // It keeps its input open when a client leaves.
    let overrides = r#"{"spec": {"terminationGracePeriodSeconds": 0, "containers": [{
        "name": "talk", "image": "lab.toono.io/busybox:1", "stdin": true,
        "command": ["sh", "-c", "ANSWERS"]}]}}"#
        .replace("ANSWERS", &ANSWERS.replace('"', "\\\""));
    edge.kubectl(&["run", "talk", IMAGE, &format!("--overrides={overrides}")]);
    edge.kubectl(&["wait", "pod/talk", "--for=condition=Ready", "--timeout=20s"]);
    let programs = kubectls();
    for (number, program) in [&programs[1], programs.last().unwrap()].into_iter().enumerate() {
        eprintln!("with {}", program.display());
        edge.use_kubectl(program.clone());
        clients_share_a_container(&edge);
        run_passes_all_on(&edge, &format!("once-{number}"));
        let name = format!("terminal-{number}");
        let run = ["run", &name, "--rm", "-it", "--restart=Never", IMAGE];
        let shown = edge.under_a_terminal(&run, "tty; exit\n");
        assert!(shown.contains("/dev/pts/") || shown.contains("/dev/console"), "{shown}");
    }
}

/// A running `kubectl attach -i`.
struct Attached {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Attached {
    fn start(edge: &Edge) -> Self {
        let mut child = edge
            .kubectl_command(&["attach", "-i", "talk"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    fn say(&mut self, word: &str) {
        writeln!(self.input, "{word}").unwrap();
    }

    fn hear(&mut self, word: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("got {word}\n"));
    }

    fn leave(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn clients_share_a_container(edge: &Edge) {
    let mut first = Attached::start(edge);
    first.say("one");
    first.hear("one");
    let mut second = Attached::start(edge);
    second.say("two");
    second.hear("two");
    first.hear("two");
    second.leave();
    first.say("three");
    first.hear("three");
    first.leave();
}

/// More than a pipe holds goes in and comes out, the input ends, and the exit code is told.
fn run_passes_all_on(edge: &Edge, name: &str) {
    let script = "cat; echo cat $? >&2; exit 7";
    let run = ["run", name, "--rm", "-i", "--restart=Never", "--quiet", IMAGE, "--"];
    let mut child = edge
        .kubectl_command(&[&run[..], &["-c", script]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let sent: String = (0..30_000).map(|n| format!("line {n}\n")).collect();
    let mut input = child.stdin.take().unwrap();
    let bytes = sent.clone();
    let writer = std::thread::spawn(move || input.write_all(bytes.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let got = String::from_utf8_lossy(&output.stdout);
    assert!(writer.join().unwrap().is_ok(), "{errors}");
    assert!(got.starts_with(&sent), "{} bytes of {}: {errors}", got.len(), sent.len());
    assert_eq!(output.status.code(), Some(7), "{errors}");
}
