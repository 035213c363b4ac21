//! The answer to one request of a pod while the link is down.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use toono_api::{ApiError, meta::text_at};
use toono_http::Body;

use super::{
    Api,
    asked::{Asked, Resource},
    credentials, discovery,
    held::{Held, Kind},
    selected::Selected,
    watching,
};
use crate::worker::Node;

/// How refusals begin that are not about the pod.
pub(super) const ALONE: &str =
    "the link to the cluster is down, and this node answers from its own copy";
/// What clients show to people beside a list: it may be less than the cluster has.
const WARNING: &str = "299 - \"the link to the cluster is down: this is what the node has\"";

/// Answers requests.
pub(super) struct Answers {
    node: Arc<Node>,
    held: Arc<Held>,
}

impl Answers {
    pub(super) fn new(api: &Api) -> Self {
        let held = Held::new(api.node.clone(), api.pool.clone(), api.sync.clone());
        Self { node: api.node.clone(), held: Arc::new(held) }
    }

    pub(super) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        self.try_answer(&request).unwrap_or_else(|error| refusal(&error))
    }

    fn try_answer(&self, request: &Request<Body>) -> Result<Response<Body>, ApiError> {
        let who = credentials::authenticate(&self.node, request.headers(), Timestamp::now())?;
        let asked = Asked::read(request);
        if !matches!(asked.verb, "get" | "list" | "watch") {
            return Err(ApiError::Unavailable(format!("{ALONE}: nothing can be written")));
        }
        let selected = Selected::read(&asked)?;
        who.authorize(&self.node, &asked, Some(&selected.fields))?;
        let Some(resource) = &asked.resource else {
            let unknown = || ApiError::Unavailable(format!("{ALONE}, without {}", asked.path));
            return discovery::answer(&asked.path).map(|it| ok(&it)).ok_or_else(unknown);
        };
        let kind = kind_of(resource)?;
        match asked.verb {
            "watch" => watching::answer(self.held.clone(), kind, resource, &asked.query, selected),
            "list" => self.list(kind, resource, &asked, &selected),
            _ => self.get(kind, resource),
        }
    }

    fn get(&self, kind: &'static Kind, resource: &Resource) -> Result<Response<Body>, ApiError> {
        let all = self.held.list(kind, &resource.namespace)?;
        let named =
            |it: &&Value| text_at(it, &["metadata", "name"]) == Some(resource.name.as_str());
        let missing = || {
            let Resource { plural, name, .. } = resource;
            let text = format!("{ALONE}, which does not have {plural} \"{name}\": it may exist");
            ApiError::Unavailable(text)
        };
        all.iter().find(named).map(ok).ok_or_else(missing)
    }

    fn list(
        &self,
        kind: &'static Kind,
        resource: &Resource,
        asked: &Asked,
        selected: &Selected,
    ) -> Result<Response<Body>, ApiError> {
        self.held.check_list(&asked.query)?;
        let mut items = self.held.list(kind, &resource.namespace)?;
        items.retain(|it| selected.matches(it));
        let list = json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": self.held.revision()}, "items": items});
        let mut response = ok(&list);
        let warning = HeaderValue::from_static(WARNING);
        response.headers_mut().insert(header::WARNING, warning);
        Ok(response)
    }
}

fn kind_of(resource: &Resource) -> Result<&'static Kind, ApiError> {
    let Resource { group, version, plural, subresource, .. } = resource;
    let kind = Kind::find(group, version, plural);
    let kind = kind.filter(|_| matches!(subresource.as_str(), "" | "status"));
    let what =
        if subresource.is_empty() { plural.clone() } else { format!("{plural}/{subresource}") };
    kind.ok_or_else(|| ApiError::Unavailable(format!("{ALONE}, which has no {what}")))
}

fn ok(value: &Value) -> Response<Body> {
    json_response(StatusCode::OK, value)
}

fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(toono_http::full(value.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Without `Retry-After`: by it clients ask again ten times before they tell anyone.
fn refusal(error: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_response(status, &error.to_status())
}
