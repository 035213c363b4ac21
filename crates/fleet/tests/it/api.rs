//! An API server in memory, as small as the fleet's use of one: lists, watches that resume,
//! optimistic concurrency, status subresources, deletion with preconditions.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use toono_http::Body;

#[derive(Clone)]
pub(crate) struct MemoryApi {
    store: Arc<Mutex<Store>>,
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct Store {
    revision: u64,
    objects: BTreeMap<String, Value>,
    /// Revision, path of the object, watch line.
    log: Vec<(u64, String, String)>,
    /// Watches are told nothing of what is newer, for now.
    told_until: Option<u64>,
}

impl MemoryApi {
    pub(crate) fn new() -> Self {
        Self { store: Arc::default(), news: watch::channel(0).0 }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, toono_http::BoxError>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// The object at this path.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.store.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn all(&self, prefix: &str) -> Vec<Value> {
        let store = self.store.lock().unwrap();
        store
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(prefix))
            .map(|(_, v)| v.clone())
            .collect()
    }

    pub(crate) fn writes(&self) -> u64 {
        self.store.lock().unwrap().revision
    }

    /// Completes when the object at the path is as wanted.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(Option<&Value>) -> bool) {
        let mut news = self.news.subscribe();
        let seen = tokio::time::timeout(std::time::Duration::from_secs(15), async {
            while !wanted(self.get(path).as_ref()) {
                news.changed().await.unwrap();
            }
        });
        assert!(seen.await.is_ok(), "{path} stayed {:?}", self.get(path));
    }

    /// Stores an object, whatever was there.
    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let mut store = self.store.lock().unwrap();
        let known = store.objects.get(path).cloned();
        let uid = known.as_ref().map(|old| old["metadata"]["uid"].clone());
        store.revision += 1;
        let revision = store.revision;
        object["metadata"]["uid"] = uid
            .or_else(|| Some(object["metadata"]["uid"].clone()).filter(|uid| !uid.is_null()))
            .unwrap_or_else(|| format!("uid-{revision}").into());
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        store.log.push((
            revision,
            path.to_owned(),
            json!({"type": kind, "object": object}).to_string(),
        ));
        store.objects.insert(path.to_owned(), object.clone());
        drop(store);
        self.news.send_replace(revision);
        object
    }

    pub(crate) fn delete(&self, path: &str) -> Option<Value> {
        let mut store = self.store.lock().unwrap();
        let mut object = store.objects.remove(path)?;
        store.revision += 1;
        let revision = store.revision;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        // The object comes first here, as some server might: the order of keys says nothing.
        let line = format!("{{\"object\":{object},\"type\":\"DELETED\"}}");
        store.log.push((revision, path.to_owned(), line));
        drop(store);
        self.news.send_replace(revision);
        Some(object)
    }

    /// Lets watches lag from now on: what they do not tell yet, reads already do.
    pub(crate) fn hold_watches(&self) {
        let mut store = self.store.lock().unwrap();
        store.told_until = Some(store.revision);
    }

    /// Watches catch up.
    pub(crate) fn release_watches(&self) {
        let mut store = self.store.lock().unwrap();
        store.told_until = None;
        self.news.send_replace(store.revision);
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let last = path.rsplit('/').next().unwrap();
        let lists = [
            "nodes",
            "pods",
            "events",
            "services",
            "endpointslices",
            "configmaps",
            "nodepools",
            "secrets",
            "roles",
            "rolebindings",
            "clusterroles",
            "clusterrolebindings",
        ];
        if lists.contains(&last) {
            return match parts.method {
                Method::POST => self.create(&path, body),
                _ if query.contains("watch=true") => self.watch(last.to_owned(), &query),
                _ => self.list(last),
            };
        }
        let object = path.strip_suffix("/status").unwrap_or(&path);
        let status_only = object.len() < path.len();
        let Some(old) = self.get(object) else { return failure(404, "NotFound") };
        match parts.method {
            Method::GET => success(&old),
            Method::PUT => self.update(object, status_only, &old, body),
            Method::PATCH => {
                let mut new = old;
                merge(&mut new, &body);
                success(&self.put(object, new))
            }
            _ => {
                let uid = &body["preconditions"]["uid"];
                if !uid.is_null() && *uid != old["metadata"]["uid"] {
                    return failure(409, "Conflict");
                }
                success(&self.delete(object).unwrap())
            }
        }
    }

    fn create(&self, path: &str, object: Value) -> Response<Body> {
        let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
        if self.get(&path).is_some() {
            return failure(409, "AlreadyExists");
        }
        success(&self.put(&path, object))
    }

    fn update(&self, path: &str, status_only: bool, old: &Value, new: Value) -> Response<Body> {
        let asked = &new["metadata"]["resourceVersion"];
        if !asked.is_null() && *asked != old["metadata"]["resourceVersion"] {
            return failure(409, "Conflict");
        }
        let mut object = if status_only { old.clone() } else { new.clone() };
        object["status"] = if status_only { new["status"].clone() } else { old["status"].clone() };
        success(&self.put(path, object))
    }

    fn list(&self, plural: &str) -> Response<Body> {
        let store = self.store.lock().unwrap();
        let items: Vec<Value> = store
            .objects
            .iter()
            .filter(|(path, _)| is_a(path, plural))
            .map(|(_, object)| {
                // As in Kubernetes, items say no kind.
                let mut object = object.clone();
                object
                    .as_object_mut()
                    .unwrap()
                    .retain(|key, _| key != "kind" && key != "apiVersion");
                object
            })
            .collect();
        success(
            &json!({"metadata": {"resourceVersion": store.revision.to_string()}, "items": items}),
        )
    }

    fn watch(&self, plural: String, query: &str) -> Response<Body> {
        let since = query.split("resourceVersion=").nth(1).unwrap();
        let since: u64 = since.split('&').next().unwrap().parse().unwrap();
        let (store, news) = (self.store.clone(), self.news.subscribe());
        let lines = stream::unfold((since, news), move |(since, mut news)| {
            let (store, plural) = (store.clone(), plural.clone());
            async move {
                loop {
                    let next = {
                        let store = store.lock().unwrap();
                        let until = store.told_until.unwrap_or(u64::MAX);
                        let found = store.log.iter().find(|(at, path, _)| {
                            *at > since && *at <= until && is_a(path, &plural)
                        });
                        found.map(|(at, _, line)| (*at, format!("{line}\n")))
                    };
                    if let Some((at, line)) = next {
                        return Some((line, (at, news)));
                    }
                    news.changed().await.ok()?;
                }
            }
        });
        // In two pieces each: an event may arrive in any portions.
        let pieces = lines.flat_map(|line| {
            let (a, b) = line.split_at(line.len() / 2);
            stream::iter([Bytes::from(a.to_owned()), Bytes::from(b.to_owned())])
        });
        Response::new(toono_http::stream(pieces.map(Ok::<_, toono_http::BoxError>)))
    }
}

fn is_a(path: &str, plural: &str) -> bool {
    path.rsplit('/').nth(1) == Some(plural)
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    for (key, value) in fields {
        merge(&mut target[key.as_str()], value);
    }
}

fn success(value: &Value) -> Response<Body> {
    Response::new(toono_http::full(value.to_string()))
}

fn failure(code: u16, reason: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": reason, "reason": reason, "code": code});
    Response::builder().status(code).body(toono_http::full(status.to_string())).unwrap()
}
