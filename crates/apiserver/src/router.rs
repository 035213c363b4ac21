//! The way of a request: identify, decide, hand to the verb, the fleet, discovery or a pod.

use http::{Method, Request, Response};
use toono_api::{ApiError, UserInfo};
use toono_http::Body;
use toono_mvcc::Owner;

use crate::{
    access::Asked,
    authenticate::{authenticate, impersonate},
    body, compress, discovery, openapi,
    query::Query,
    reach::{self, Restricted},
    remote,
    request::{ResourcePath, Route},
    resource_metrics, respond,
    server::ApiServer,
    tokens,
    trail::{Decided, Trail},
    verbs,
};

/// Answers any request of the port.
pub(crate) async fn answer(server: &ApiServer, request: Request<Body>) -> Response<Body> {
    let mut trail = Trail::of(&request, ApiServer::now());
    let encodings = compress::accepted(request.headers());
    let mut response = match respond(server, request, &mut trail).await {
        Ok(response) => response,
        Err(error) => respond::error(&error),
    };
    server.inner.metrics.answered(&trail, response.status());
    if let Some(audit) = &server.inner.audit {
        audit.record(&trail, &mut response).await;
    }
    compress::response(encodings, response)
}

async fn respond(
    server: &ApiServer,
    mut request: Request<Body>,
    trail: &mut Trail,
) -> Result<Response<Body>, ApiError> {
    let user = authenticate(server, request.uri().path(), request.extensions(), request.headers())?;
    trail.user = Some(user.clone());
    let acts_as = impersonate(&server.inner.gate, &user, request.headers_mut())?;
    trail.acts_as = acts_as.clone();
    let user = acts_as.unwrap_or(user);
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query());
    let registry = server.registry();
    let route = Route::parse(&registry, &path);
    if let Ok(Route::Resource(at)) = &route {
        trail.leads_to(at, &query);
    }
    let fields = query.text("fieldSelector");
    let asked = Asked::of(request.method(), &path, fields, query.flag("watch"));
    let passed = server.inner.gate.pass(&asked.attributes(&user));
    let reason = passed.as_ref().err().map_or_else(String::new, ToString::to_string);
    trail.decision = Some(Decided { allowed: passed.is_ok(), reason });
    let granted = passed?.map(|owner| Owner::new(owner.name()));
    let owner = request.extensions().get().map(|Restricted(owner)| owner.clone()).or(granted);
    if resource_metrics::handles(&path) {
        let _seat = server.inner.fairness.seat(&server.inner.metrics, &user, trail, 0).await?;
        return resource_metrics::answer(server, request.method(), &path, &query, owner).await;
    }
    // Only now, so that whoever may not ask learns nothing of which paths there are.
    let route = route?;
    if let (Some(owner), Route::Resource(target)) = (&owner, &route) {
        reach::check(server, owner, target, asked.verb())?;
    }
    let under_way = server.inner.metrics.begin(trail);
    let seat = server.inner.fairness.seat(&server.inner.metrics, &user, trail, 0).await?;
    let response = match route {
        Route::Path(path) if path.starts_with("/fleet/") => {
            let handler = server.inner.fleet.get().cloned().ok_or(ApiError::UnknownPath)?;
            request.extensions_mut().insert(user);
            handler(request).await
        }
        Route::Path(path) => special(server, path, &request, &query)?,
        Route::Resource(_) if remote::proxy::handles(&path) => {
            remote::proxy::handle(server, request).await?
        }
        Route::Resource(_) if remote::handles(&path) => {
            remote::handle(&server.inner.remote, request, &user).await
        }
        Route::Resource(target) => {
            resource(server, &user, target, request, (&query, owner)).await?
        }
    };
    drop(seat);
    Ok(if trail.is_long_running() { respond::keeping(response, under_way) } else { response })
}

fn special(
    server: &ApiServer,
    path: &str,
    request: &Request<Body>,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ApiError::MethodNotAllowed);
    }
    if path == "/metrics" {
        return Ok(server.inner.metrics.response());
    }
    discovery::answer(server, path, request.headers(), query)
        .or_else(|| tokens::answer(server, path))
        .or_else(|| openapi::answer(server, path, query, request.headers()))
        .ok_or(ApiError::UnknownPath)
}

async fn resource(
    server: &ApiServer,
    user: &UserInfo,
    target: ResourcePath<'_>,
    request: Request<Body>,
    (query, owner): (&Query, Option<Owner>),
) -> Result<Response<Body>, ApiError> {
    let verb = target.verb(request.method(), query.flag("watch"))?;
    if !query.may_be_old(verb, server.revision()) {
        let current = server.inner.store.current().await;
        current.map_err(|error| ApiError::Unavailable(error.to_string()))?;
    }
    let (parts, body) = request.into_parts();
    let kind = std::sync::Arc::clone(&target.resource);
    let headers = &parts.headers;
    let repeated = Vec::new();
    let mut call = verbs::Call { server, user, target, query, headers, owner, repeated };
    let mut answer = match verb {
        "get" => call.read(),
        "list" => call.list(),
        "watch" => call.watch(),
        "create" => call.create(body::object(headers, body).await?).await,
        "update" => call.update(body::object(headers, body).await?).await,
        "patch" => call.patch(&body::bytes(body).await?).await,
        "delete" => call.delete(&body::object(headers, body).await?.value).await,
        "deletecollection" => {
            call.delete_collection(&body::object(headers, body).await?.value).await
        }
        _ => Err(ApiError::MethodNotAllowed),
    };
    if let (Ok(response), Some(warning)) = (&mut answer, kind.behaviour.warning()) {
        respond::warn(response, &[warning.to_owned()]);
    }
    answer
}
