//! The audit log: one line of `audit.k8s.io/v1` for each request, at level Metadata. It must never hold
//! what a request or a response says, only what it is about: a log is read by more people than secrets.
//!
//! <https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/>

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use toono_api::UserInfo;
use toono_http::Body;

use crate::trail::Trail;

/// Events that wait for the disk. When there is no place, requests wait for one: an audit log that
/// forgets under load is of no use.
const QUEUE: usize = 4096;
/// Parameters whose values say what happens inside a container, passwords among them.
const HIDDEN_PARAMETERS: &[&str] = &["command"];

/// Where the log goes.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// The file; older ones are beside it with `.1`, `.2` and so on at the end.
    pub path: PathBuf,
    /// A file that has this many bytes is put aside.
    pub max_bytes: u64,
    /// Files that are kept besides the one that is written.
    pub backups: u32,
}

/// Kubernetes' own file size, 100 MB, and enough of them to look back at a bad day.
impl AuditConfig {
    /// The log in this file, with the usual limits.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, max_bytes: 100 * 1024 * 1024, backups: 10 }
    }
}

/// The audit log. Clones write to the same file.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    queue: mpsc::Sender<String>,
}

impl Audit {
    /// Opens the file, and writes to it in a thread of its own.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not be started.
    pub(crate) fn open(config: AuditConfig) -> io::Result<Self> {
        let (queue, lines) = mpsc::channel(QUEUE);
        let log = Log::open(config)?;
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || log.run(lines))?;
        Ok(Self { queue })
    }

    /// Records a request that has been answered, or whose answer has begun. Gives the response the
    /// `Audit-Id` by which it is found in the log.
    pub(crate) async fn record(&self, trail: &Trail, response: &mut Response<Body>) {
        let id = uuid::Uuid::new_v4().to_string();
        let line = event(trail, &id, response.status(), Timestamp::now()).to_string();
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("audit-id", id);
        }
        if self.queue.send(line).await.is_err() {
            tracing::error!("the audit log's writer has ended");
        }
    }
}

fn event(trail: &Trail, id: &str, status: StatusCode, now: Timestamp) -> Value {
    let stage = if trail.is_long_running() { "ResponseStarted" } else { "ResponseComplete" };
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": id,
        "stage": stage,
        "requestURI": visible(&trail.uri),
        "verb": trail.verb,
        "user": trail.user.as_ref().map_or_else(|| json!({}), user),
        "sourceIPs": trail.peer.iter().map(|peer| peer.ip().to_string()).collect::<Vec<_>>(),
        "responseStatus": {"metadata": {}, "code": status.as_u16()},
        "requestReceivedTimestamp": micro_time(trail.received),
        "stageTimestamp": micro_time(now),
    });
    let Some(fields) = event.as_object_mut() else { return event };
    if let Some(other) = &trail.acts_as {
        fields.insert("impersonatedUser".to_owned(), user(other));
    }
    if let Some(agent) = &trail.user_agent {
        fields.insert("userAgent".to_owned(), agent.as_str().into());
    }
    if let Some(target) = &trail.target {
        let mut reference = Map::new();
        for (field, value) in [
            ("resource", &*target.resource.plural),
            ("namespace", &target.namespace),
            ("name", &target.name),
            ("apiGroup", &target.resource.group),
            ("apiVersion", &target.resource.version),
            ("subresource", target.subresource),
        ] {
            if !value.is_empty() {
                reference.insert(field.to_owned(), value.into());
            }
        }
        fields.insert("objectRef".to_owned(), reference.into());
    }
    if let Some(decided) = &trail.decision {
        let decision = if decided.allowed { "allow" } else { "forbid" };
        let annotations = json!({
            "authorization.k8s.io/decision": decision,
            "authorization.k8s.io/reason": decided.reason,
        });
        fields.insert("annotations".to_owned(), annotations);
    }
    event
}

fn user(user: &UserInfo) -> Value {
    let mut value = json!({"username": &*user.name, "groups": &*user.groups});
    if let Some(fields) = value.as_object_mut().filter(|_| !user.uid.is_empty()) {
        fields.insert("uid".to_owned(), (&*user.uid).into());
    }
    value
}

/// `metav1.MicroTime`.
fn micro_time(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// The path and query without what it must not tell.
fn visible(uri: &str) -> String {
    let Some((path, query)) = uri.split_once('?') else { return uri.to_owned() };
    let parameters: Vec<&str> = query
        .split('&')
        .map(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            let hidden = HIDDEN_PARAMETERS.iter().find(|hidden| **hidden == name);
            hidden.map_or(parameter, |_| "command=REDACTED")
        })
        .collect();
    format!("{path}?{}", parameters.join("&"))
}

/// The file, and its thread.
struct Log {
    config: AuditConfig,
    file: BufWriter<File>,
    bytes: u64,
}

impl Log {
    fn open(config: AuditConfig) -> io::Result<Self> {
        if let Some(dir) = config.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = Self::append(&config)?;
        let bytes = file.metadata()?.len();
        Ok(Self { config, file: BufWriter::new(file), bytes })
    }

    fn append(config: &AuditConfig) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(&config.path)
    }

    fn run(mut self, mut lines: mpsc::Receiver<String>) {
        while let Some(first) = lines.blocking_recv() {
            let mut next = Some(first);
            let mut written = Ok(());
            while let Some(line) = next {
                written = written.and_then(|()| self.write(&line));
                next = lines.try_recv().ok();
            }
            if let Err(error) = written.and_then(|()| self.file.flush()) {
                let path = self.config.path.display();
                tracing::error!(%error, %path, "cannot write the audit log");
            }
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.bytes >= self.config.max_bytes {
            self.put_aside()?;
        }
        self.bytes += u64::try_from(line.len()).unwrap_or(0) + 1;
        self.file.write_all(line.as_bytes())?;
        self.file.write_all(b"\n")
    }

    fn put_aside(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let numbered = |number: u32| {
            let mut name = self.config.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.config.backups).rev() {
            let older = numbered(number);
            if older.exists() {
                fs::rename(older, numbered(number + 1))?;
            }
        }
        if self.config.backups > 0 {
            fs::rename(&self.config.path, numbered(1))?;
        } else {
            fs::remove_file(&self.config.path)?;
        }
        self.file = BufWriter::new(Self::append(&self.config)?);
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn what_runs_in_a_container_is_not_told() {
        assert_eq!(
            visible("/api/v1/namespaces/a/pods/b/exec?command=passwd&command=s3cret&stdin=true"),
            "/api/v1/namespaces/a/pods/b/exec?command=REDACTED&command=REDACTED&stdin=true"
        );
        assert_eq!(visible("/version"), "/version");
    }

    #[tokio::test]
    async fn every_request_has_a_line_and_full_files_are_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.log");
        let config = AuditConfig { path: path.clone(), max_bytes: 2_000, backups: 2 };
        let audit = Audit::open(config).unwrap();
        let request = Request::get("/api/v1/pods?limit=1").body(toono_http::empty()).unwrap();
        let trail = Trail::of(&request, Timestamp::UNIX_EPOCH);
        let mut ids = Vec::new();
        for _ in 0..20 {
            let mut response = Response::new(toono_http::empty());
            audit.record(&trail, &mut response).await;
            ids.push(response.headers()["audit-id"].to_str().unwrap().to_owned());
        }
        drop(audit);
        let newest = ids.last().unwrap().clone();
        let read = || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>()
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while read().last().is_none_or(|event| event["auditID"] != newest.as_str()) {
            assert!(std::time::Instant::now() < deadline, "the last event was not written");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let event = read().pop().unwrap();
        assert_eq!(event["requestURI"], "/api/v1/pods?limit=1");
        assert_eq!(event["requestReceivedTimestamp"], "1970-01-01T00:00:00.000000Z");
        let mut names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2"]);
    }
}
