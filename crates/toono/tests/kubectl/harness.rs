//! Steps: a command line and what must come of it. What is wrong is collected, so that one run
//! shows every difference.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::server::{Server, minor_version};

/// A command that has not ended by then never will.
const COMMAND_LIMIT_SECONDS: &str = "60";
/// How long a controller may take over what a step waits for.
const SOON: Duration = Duration::from_secs(30);
/// What `kubectl edit` runs on the object's text.
const EDITOR: &str = "sed -i s/edit-me/edited/";

/// One kubectl and one server.
pub(crate) struct Kubectl<'a> {
    server: &'a Server,
    program: PathBuf,
    minor: u32,
    namespace: Cell<&'static str>,
    checked: RefCell<BTreeSet<String>>,
    wrong: RefCell<Vec<String>>,
}

/// What a command did. Runs of spaces in its lines count as one.
pub(crate) struct Said {
    code: i32,
    pub(crate) out: String,
    err: String,
}

impl<'a> Kubectl<'a> {
    pub(crate) fn new(server: &'a Server, program: PathBuf) -> Self {
        let minor = minor_version(&program);
        let (namespace, checked, wrong) = Default::default();
        let k = Self { server, program, minor, namespace, checked, wrong };
        k.namespace.set("default");
        k.until("get --raw /readyz", &["ok"]);
        k.until("get serviceaccounts -o name", &["serviceaccount/default"]);
        k
    }

    /// The minor version, for what only newer ones know.
    pub(crate) fn minor(&self) -> u32 {
        self.minor
    }

    pub(crate) fn version(&self) -> String {
        format!("kubectl 1.{}", self.minor)
    }

    pub(crate) fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.server.port)
    }

    /// Makes a namespace, in which the following commands are.
    pub(crate) fn enter(&self, namespace: &'static str) {
        self.namespace.set(namespace);
        self.is(
            &format!("create namespace {namespace}"),
            &format!("namespace/{namespace} created"),
        );
        self.until("get serviceaccounts -o name", &["serviceaccount/default"]);
    }

    /// Writes a file where commands run.
    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.server.dir.path().join(name)
    }

    /// It succeeds and prints exactly this.
    pub(crate) fn is(&self, line: &str, expected: &str) {
        let said = self.run(line, "");
        self.check(line, &said, said.code == 0 && said.out == expected, &[expected]);
    }

    /// It succeeds and its output has these parts.
    pub(crate) fn says(&self, line: &str, parts: &[&str]) -> String {
        self.fed(line, "", parts)
    }

    /// [`says`](Self::says), with this on its standard input.
    pub(crate) fn fed(&self, line: &str, input: &str, parts: &[&str]) -> String {
        let said = self.run(line, input);
        self.check(line, &said, said.code == 0 && has(&said.out, parts), parts);
        said.out
    }

    /// It succeeds and its output has none of these parts, and has the first.
    pub(crate) fn lacks(&self, line: &str, has_part: &str, parts: &[&str]) {
        let said = self.run(line, "");
        let right = said.code == 0
            && said.out.contains(has_part)
            && !parts.iter().any(|part| said.out.contains(part));
        self.check(line, &said, right, &[&["has", has_part, "and has none of"], parts].concat());
    }

    /// It prints an object with these values at these JSON pointers; `-o json` is added.
    pub(crate) fn holds(&self, line: &str, values: &[(&str, Value)]) -> Value {
        let line = format!("{line} -o json");
        let said = self.run(&line, "");
        let object: Value = serde_json::from_str(&said.out).unwrap_or_default();
        for (pointer, value) in values {
            let found = object.pointer(pointer).cloned().unwrap_or_default();
            let right = said.code == 0 && &found == value;
            let expected = format!("{value} at {pointer}, not {found}");
            self.check(&line, &said, right, &[&expected]);
        }
        object
    }

    /// It fails with this exit code, and its output or its errors have these parts.
    pub(crate) fn ends(&self, line: &str, code: i32, input: &str, parts: &[&str]) {
        let said = self.run(line, input);
        let both = format!("{}\n{}", said.out, said.err);
        self.check(line, &said, said.code == code && has(&both, parts), parts);
    }

    /// It fails, and says this.
    pub(crate) fn fails(&self, line: &str, parts: &[&str]) {
        self.ends(line, 1, "", parts);
    }

    /// Sooner or later it says this.
    pub(crate) fn until(&self, line: &str, parts: &[&str]) {
        let start = Instant::now();
        loop {
            let said = self.run(line, "");
            let right = said.code == 0 && has(&said.out, parts);
            if right || start.elapsed() > SOON {
                return self.check(line, &said, right, parts);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Says of the pods with this label what a node would say once their containers are ready.
    pub(crate) fn make_ready(&self, selector: &str) {
        let status = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}],"containerStatuses":[{"name":"NAME","image":"i","imageID":"i","ready":true,"restartCount":0,"state":{"running":{}}}]}}"#;
        let shown =
            "jsonpath='{range .items[*]}{.metadata.name} {.spec.containers[0].name}{\"\\n\"}{end}'";
        let pods = self.run(&format!("get pods -l {selector} -o {shown}"), "").out;
        for line in pods.lines() {
            let (pod, container) = line.split_once(' ').unwrap();
            let status = status.replace("NAME", container);
            let patch = format!("patch pod {pod} --subresource=status -p '{status}'");
            self.is(&patch, &format!("pod/{pod} patched"));
        }
    }

    /// Says of the pods with this label what a node would say once they have ended well.
    pub(crate) fn finish_pods(&self, selector: &str) {
        let pods = self.run(&format!("get pods -l {selector} -o name"), "").out;
        for pod in pods.lines() {
            let status = r#"{"status":{"phase":"Succeeded"}}"#;
            let patch = format!("patch {pod} --subresource=status -p '{status}'");
            self.is(&patch, &format!("{pod} patched"));
        }
    }

    fn check(&self, line: &str, said: &Said, right: bool, expected: &[&str]) {
        self.checked.borrow_mut().insert(format!("{} {line}", self.namespace.get()));
        if !right {
            let Said { code, out, err } = said;
            let out: String = out.chars().take(3000).collect();
            self.wrong.borrow_mut().push(format!(
                "$ kubectl {line}\nexpected {expected:#?}\ngot ({code})\n{out}\n{err}"
            ));
        }
    }

    /// Runs a command without a check.
    pub(crate) fn run(&self, line: &str, input: &str) -> Said {
        let mut child = Command::new("timeout")
            .arg(COMMAND_LIMIT_SECONDS)
            .arg(&self.program)
            .args(["-n", self.namespace.get()])
            .args(words(line))
            .current_dir(self.server.dir.path())
            .env("KUBECONFIG", self.server.kubeconfig())
            .env("HOME", self.server.dir.path())
            .env("KUBE_EDITOR", EDITOR)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("coreutils and kubectl must be installed");
        // A command that does not read its input has closed it.
        let _ = child.stdin.take().unwrap().write_all(yaml(input).as_bytes());
        let output = child.wait_with_output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: squeezed(&output.stdout),
            err: squeezed(&output.stderr),
        }
    }

    /// How many different commands were checked; fails with all that was wrong.
    pub(crate) fn finish(&self) -> usize {
        let wrong = self.wrong.borrow();
        let (count, text) = (wrong.len(), wrong.join("\n--------\n"));
        assert!(wrong.is_empty(), "{}: {count} steps went wrong:\n{text}", self.version());
        self.checked.borrow().len()
    }
}

/// kubectl takes for JSON what begins with a brace, so YAML must not.
fn yaml(text: &str) -> String {
    let plain = !text.trim_start().starts_with('{') || serde_json::from_str::<Value>(text).is_ok();
    if plain { text.to_owned() } else { format!("# YAML\n{text}") }
}

fn has(text: &str, parts: &[&str]) -> bool {
    parts.iter().all(|part| text.contains(part))
}

/// With one space for each run of spaces or tabs within a line; indentation stays.
fn squeezed(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| {
        let body = line.trim_start();
        let indent = &line[..line.len() - body.len()];
        format!("{indent}{}", body.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

/// The words of a command line; single quotes keep one together.
fn words(line: &str) -> Vec<String> {
    let mut found = vec![];
    let (mut word, mut quoted) = (None::<String>, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => found.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    found.extend(word);
    found
}
