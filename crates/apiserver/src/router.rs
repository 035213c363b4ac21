//! The way of a request: identify, decide, hand to the verb, the fleet, discovery or a pod.

use http::{Method, Request, Response};
use toono_api::{ApiError, UserInfo};
use toono_http::Body;

use crate::{
    access::{Attributes, Decision, TargetAttributes, access, forbidden},
    authenticate::{authenticate, impersonate},
    body, discovery, openapi,
    query::Query,
    remote,
    request::{ResourcePath, Route},
    respond,
    server::ApiServer,
    verbs,
};

/// Answers any request of the port.
pub(crate) async fn answer(server: &ApiServer, request: Request<Body>) -> Response<Body> {
    match respond(server, request).await {
        Ok(response) => response,
        Err(error) => respond::error(&error),
    }
}

async fn respond(
    server: &ApiServer,
    mut request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let user = authenticate(
        &server.inner.store,
        request.extensions(),
        request.headers(),
        ApiServer::now(),
    )?;
    let user = impersonate(user, request.headers())?;
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query());
    let registry = server.registry();
    let route = match Route::parse(&registry, &path) {
        Ok(route) => route,
        // Whoever may not ask learns nothing of which paths there are.
        Err(error) => {
            permit(&user, request.method(), &path, &Route::Path(&path), &query)?;
            return Err(error);
        }
    };
    permit(&user, request.method(), &path, &route, &query)?;
    match route {
        Route::Path(path) if path.starts_with("/fleet/") => {
            let handler = server.inner.fleet.get().cloned().ok_or(ApiError::UnknownPath)?;
            request.extensions_mut().insert(user);
            Ok(handler(request).await)
        }
        Route::Path(path) => special(server, path, &request, &query),
        Route::Resource(_) if remote::handles(&path) => {
            Ok(remote::handle(&server.inner.remote, request, &user).await)
        }
        Route::Resource(target) => resource(server, &user, target, request, &query).await,
    }
}

fn permit(
    user: &UserInfo,
    method: &Method,
    path: &str,
    route: &Route<'_>,
    query: &Query,
) -> Result<(), ApiError> {
    let lower = method.as_str().to_ascii_lowercase();
    let attributes = match route {
        Route::Path(_) => Attributes { user, verb: &lower, path, target: None },
        Route::Resource(at) => Attributes {
            user,
            verb: at.verb(method, query.flag("watch")).unwrap_or(&lower),
            path,
            target: Some(TargetAttributes {
                group: &at.resource.group,
                plural: &at.resource.plural,
                subresource: at.subresource_name(),
                namespace: at.namespace,
                name: at.name,
            }),
        },
    };
    match access(&attributes) {
        Decision::Allow => Ok(()),
        Decision::Deny => Err(forbidden(&attributes)),
    }
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
    discovery::answer(server, path, request.headers(), query)
        .or_else(|| openapi::answer(server, path, request.headers()))
        .ok_or(ApiError::UnknownPath)
}

async fn resource(
    server: &ApiServer,
    user: &UserInfo,
    target: ResourcePath<'_>,
    request: Request<Body>,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let verb = target.verb(request.method(), query.flag("watch"))?;
    if !query.may_be_old(verb, server.revision()) {
        let current = server.inner.store.current().await;
        current.map_err(|error| ApiError::Unavailable(error.to_string()))?;
    }
    let (parts, body) = request.into_parts();
    let call = verbs::Call { server, user, target, query, headers: &parts.headers };
    match verb {
        "get" => call.read(),
        "list" => call.list(),
        "watch" => call.watch(),
        "create" => call.create(body::object(&parts.headers, body).await?).await,
        "update" => call.update(body::object(&parts.headers, body).await?).await,
        "patch" => call.patch(&body::bytes(body).await?).await,
        "delete" => call.delete(&body::object(&parts.headers, body).await?).await,
        "deletecollection" => {
            call.delete_collection(&body::object(&parts.headers, body).await?).await
        }
        _ => Err(ApiError::MethodNotAllowed),
    }
}
