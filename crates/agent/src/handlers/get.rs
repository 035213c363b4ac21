//! `httpGet`: one request over a connection of its own, its redirects, and what its answer says.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;
use toono_http::client::{ClientError, Connection};
use toono_podmachine::ProbeOutcome;

use super::{
    MAX_ANSWER_BYTES, Place,
    dial::{self, Target},
};
use crate::join::chain;

/// Redirects that are followed, as by Go's client.
const MAX_REDIRECTS: u32 = 10;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Get {
    pub(super) tls: bool,
    /// The pod itself when there is none.
    pub(super) host: Option<String>,
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    /// The `User-Agent`.
    pub(super) agent: String,
}

/// One step of the way that redirects lead.
#[derive(Debug, Clone)]
struct Step {
    tls: bool,
    target: Target,
    /// With the query.
    path: String,
    headers: HeaderMap,
}

impl Get {
    pub(super) async fn probe(&self, place: &Place, limit: Duration) -> ProbeOutcome {
        let step = match self.first(place) {
            Ok(step) => step,
            Err(error) => return ProbeOutcome::Error(error),
        };
        let url = step.url();
        let asking = async {
            match follow(step).await {
                Ok(response) => judge(response).await,
                Err(error) => ProbeOutcome::Failure(error),
            }
        };
        timeout(limit, asking).await.unwrap_or_else(|_| {
            ProbeOutcome::Failure(format!(
                "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            ))
        })
    }

    /// For a hook: any answer is good.
    pub(super) async fn call(&self, place: &Place) -> Result<(), String> {
        follow(self.first(place)?).await.map(drop)
    }

    fn first(&self, place: &Place) -> Result<Step, String> {
        let target = Target::new(place, self.host.as_deref(), self.port);
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{}", self.path.split('#').next().unwrap_or_default());
        Ok(Step { tls: self.tls, target, path: escape(&path), headers: self.header_map()? })
    }

    fn header_map(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let bad = |_| format!("invalid header {name:?}");
            let name = HeaderName::try_from(name.as_str()).map_err(|_| bad(()))?;
            headers.append(name, HeaderValue::try_from(value).map_err(|_| bad(()))?);
        }
        let set = |headers: &mut HeaderMap, name: HeaderName, value: &str| {
            if !headers.contains_key(&name) {
                headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
            } else if headers.get(&name).is_some_and(HeaderValue::is_empty) {
                // Who gives an empty one wants none.
                headers.remove(&name);
            }
        };
        set(&mut headers, header::USER_AGENT, &self.agent);
        set(&mut headers, header::ACCEPT, "*/*");
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(headers)
    }
}

/// Asks, and goes where it is sent as long as that is the same host.
async fn follow(first: Step) -> Result<Response<Incoming>, String> {
    let mut step = first;
    for _ in 0..=MAX_REDIRECTS {
        let failed = |error: String| format!("Get \"{}\": {error}", step.url());
        let response = step.ask().await.map_err(failed)?;
        match step.redirected(&response) {
            Some(next) => step = next,
            None => return Ok(response),
        }
    }
    Err(format!("Get \"{}\": stopped after {MAX_REDIRECTS} redirects", step.url()))
}

async fn judge(response: Response<Incoming>) -> ProbeOutcome {
    let status = response.status();
    let body = match read(response.into_body()).await {
        Ok(body) => body,
        Err(error) => return ProbeOutcome::Error(error),
    };
    if status.is_success() {
        ProbeOutcome::Success
    } else if status.is_redirection() {
        let body = String::from_utf8_lossy(&body);
        ProbeOutcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
    } else {
        let code = status.as_u16();
        ProbeOutcome::Failure(format!("HTTP probe failed with statuscode: {code}"))
    }
}

/// The beginning of a body.
async fn read(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ANSWER_BYTES
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| chain(&error))?;
        let data = frame.data_ref().map(AsRef::<[u8]>::as_ref).unwrap_or_default();
        let room = (MAX_ANSWER_BYTES - bytes.len()).min(data.len());
        bytes.extend_from_slice(data.get(..room).unwrap_or_default());
    }
    Ok(bytes)
}

impl Step {
    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.target.authority(), self.path)
    }

    async fn ask(&self) -> Result<Response<Incoming>, String> {
        let stream = self.target.connect().await?;
        let tls = if self.tls {
            Some(toono_pki::client_config_unverified().map_err(|error| chain(&error))?)
        } else {
            None
        };
        let endpoint = self.target.endpoint(self.tls);
        let mut connection = Connection::over(stream, &endpoint, tls.as_ref())
            .await
            .map_err(|error| plain(&error))?;
        let mut request = Request::new(toono_http::empty());
        *request.uri_mut() = self.path.parse::<Uri>().map_err(|error| error.to_string())?;
        *request.headers_mut() = self.headers.clone();
        connection.send(request).await.map_err(|error| plain(&error))
    }

    /// The next step, if there is one that is to be followed.
    fn redirected(&self, response: &Response<Incoming>) -> Option<Self> {
        let followed = [
            StatusCode::MOVED_PERMANENTLY,
            StatusCode::FOUND,
            StatusCode::SEE_OTHER,
            StatusCode::TEMPORARY_REDIRECT,
            StatusCode::PERMANENT_REDIRECT,
        ];
        let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
        if followed.contains(&response.status()) { self.towards(location) } else { None }
    }

    fn towards(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        let absolute = if location.starts_with("//") {
            Some(format!("{}:{location}", if self.tls { "https" } else { "http" }))
        } else {
            location.contains("://").then(|| location.to_owned())
        };
        let Some(absolute) = absolute else {
            let path = match location.chars().next() {
                None => self.path.clone(),
                Some('/') => escape(location),
                Some('?') => escape(&format!("{}{location}", before_query(&self.path))),
                Some(_) => {
                    let path = before_query(&self.path);
                    let folder = path.rfind('/').and_then(|at| path.get(..=at)).unwrap_or("/");
                    escape(&format!("{folder}{location}"))
                }
            };
            return Some(Self { path, ..self.clone() });
        };
        let uri: Uri = escape(&absolute).parse().ok()?;
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let tls = uri.scheme_str() == Some("https");
        if host != self.target.host() {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
        let mut headers = self.headers.clone();
        // A host of one's own choice is meant for the first URL and what is relative to it.
        headers.remove(header::HOST);
        Some(Self { tls, target: self.target.with_port(port), path, headers })
    }
}

fn before_query(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

/// What cannot be in a URL as it is, percent-encoded.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic()
            && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
        {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// An error of the client without the address, which the URL has already.
fn plain(error: &ClientError) -> String {
    match error {
        ClientError::Connect { source, .. } => dial::reason(source),
        ClientError::Tls { source, .. } => format!("tls: {}", dial::reason(source)),
        ClientError::TimedOut { .. } => "net/http: TLS handshake timeout".to_owned(),
        ClientError::Request { source, .. } if source.is_incomplete_message() => "EOF".to_owned(),
        ClientError::Request { source, .. } => chain(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> Step {
        let target = Target::alone("10.0.0.1", 8080);
        Step { tls: false, target, path: "/a/b?x=1".to_owned(), headers: HeaderMap::new() }
    }

    #[test]
    fn redirects_stay_at_their_host() {
        for (location, url) in [
            ("/c", Some("http://10.0.0.1:8080/c")),
            ("c d", Some("http://10.0.0.1:8080/a/c%20d")),
            ("?y", Some("http://10.0.0.1:8080/a/b?y")),
            ("http://10.0.0.1/", Some("http://10.0.0.1:80/")),
            ("https://10.0.0.1:1/z?q#f", Some("https://10.0.0.1:1/z?q")),
            ("//10.0.0.1:1", Some("http://10.0.0.1:1/")),
            ("http://example.com/", None),
        ] {
            let next = step().towards(location).map(|step| step.url());
            assert_eq!(next.as_deref(), url, "{location}");
        }
    }

    #[test]
    fn headers_are_completed_and_taken_away() {
        let get = |headers: &[(&str, &str)]| {
            let headers = headers.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect();
            let get = Get {
                tls: false,
                host: None,
                port: 1,
                path: String::new(),
                headers,
                agent: "kube-probe/1.35".to_owned(),
            };
            get.header_map().unwrap()
        };
        let plain = get(&[]);
        assert_eq!(
            (&plain["user-agent"], &plain["accept"]),
            (&HeaderValue::from_static("kube-probe/1.35"), &HeaderValue::from_static("*/*"))
        );
        let own = get(&[("Accept", ""), ("User-Agent", "me"), ("Host", "x")]);
        assert_eq!(
            (own.get("accept"), &own["user-agent"], &own["host"]),
            (None, &HeaderValue::from_static("me"), &HeaderValue::from_static("x"))
        );
    }
}
