//! Single requests to the API through the client, and how its refusals travel on to a node.

use http::{Method, Request};
use serde_json::Value;
use toono_api::ApiError;

/// A write that loses a race against another writer is built anew at most this often; each round
/// means that someone else's write succeeded.
pub(crate) const CONFLICT_RETRIES: usize = 8;

/// The API as JSON in, JSON out.
#[derive(Clone)]
pub(crate) struct Calls(pub(crate) kube::Client);

impl Calls {
    pub(crate) async fn get(&self, path: &str) -> Result<Value, kube::Error> {
        self.send(Method::GET, path, None, "").await
    }

    /// The object as text, as the API has it.
    pub(crate) async fn text(&self, path: &str) -> Result<String, kube::Error> {
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.0.request_text(request).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, kube::Error> {
        self.send(Method::POST, path, Some(body), "application/json").await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value, kube::Error> {
        self.send(Method::PUT, path, Some(body), "application/json").await
    }

    pub(crate) async fn merge(&self, path: &str, body: &Value) -> Result<Value, kube::Error> {
        self.send(Method::PATCH, path, Some(body), "application/merge-patch+json").await
    }

    /// A strategic merge patch; the object's text as it now is.
    pub(crate) async fn merge_lists(
        &self,
        path: &str,
        patch: &Value,
    ) -> Result<String, kube::Error> {
        let request = Request::patch(path)
            .header(http::header::CONTENT_TYPE, "application/strategic-merge-patch+json")
            .body(serde_json::to_vec(patch).map_err(kube::Error::SerdeError)?)
            .map_err(kube::Error::HttpError)?;
        self.0.request_text(request).await
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Result<Value, kube::Error> {
        self.send(Method::DELETE, path, Some(options), "application/json").await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        content_type: &str,
    ) -> Result<Value, kube::Error> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        let bytes = match body {
            Some(body) => serde_json::to_vec(body).map_err(kube::Error::SerdeError)?,
            None => Vec::new(),
        };
        let request = request.body(bytes).map_err(kube::Error::HttpError)?;
        self.0.request(request).await
    }
}

/// The HTTP status of an API refusal; none when the API was not reached.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// `GET` the object, let `change` edit it, `PUT` it back, again when someone else was faster.
/// `change` returns false when there is nothing to write. Answers the object as it now is.
pub(crate) async fn modify(
    calls: &Calls,
    path: &str,
    subresource: &str,
    mut change: impl FnMut(&mut Value) -> bool,
) -> Result<Value, kube::Error> {
    let target = format!("{path}{subresource}");
    let mut round = 0;
    loop {
        let mut object = calls.get(path).await?;
        if !change(&mut object) {
            return Ok(object);
        }
        round += 1;
        match calls.put(&target, &object).await {
            Err(error) if code(&error) == Some(409) && round < CONFLICT_RETRIES => {}
            other => return other,
        }
    }
}

/// Why a request of a node or administrator is refused: a `v1.Status` and its code.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) status: Value,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self { code: error.code(), status: error.to_status() }
    }
}

impl From<kube::Error> for Refusal {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self {
                code: if (400..600).contains(&status.code) { status.code } else { 500 },
                status: serde_json::to_value(&*status).unwrap_or_default(),
            },
            other => ApiError::Unavailable(format!("the API did not answer: {other}")).into(),
        }
    }
}

/// RFC 3339 in whole seconds, as Kubernetes writes its times.
pub(crate) fn timestamp() -> String {
    seconds(jiff::Timestamp::now())
}

/// A moment in that form.
pub(crate) fn seconds(moment: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(moment.as_second()).unwrap_or(moment).to_string()
}
