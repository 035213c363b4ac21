//! A `kube::Client` that calls the router without a socket.

use std::convert::Infallible;

use http::header;
use http_body_util::BodyExt;
use toono_api::UserInfo;
use toono_http::{Body, BoxError};
use toono_mvcc::Owner;

use crate::{authenticate::InProcess, reach::Restricted, router, server::ApiServer};

impl ApiServer {
    /// A client that acts as `user`, in this process. Needs a tokio runtime.
    #[must_use]
    pub fn client(&self, user: UserInfo) -> kube::Client {
        self.client_with(user, None)
    }

    /// As [`ApiServer::client`], for one owner's objects only: the others are not there for it.
    #[must_use]
    pub fn client_of_owner(&self, user: UserInfo, owner: Owner) -> kube::Client {
        self.client_with(user, Some(Restricted(owner)))
    }

    fn client_with(&self, user: UserInfo, restricted: Option<Restricted>) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let server = server.clone();
            let (user, restricted) = (user.clone(), restricted.clone());
            async move {
                let mut request: http::Request<Body> =
                    request.map(|body| body.map_err(BoxError::from).boxed_unsync());
                // Fields are recorded as written by the part's name.
                let name = user.name.rsplit(':').next().unwrap_or_default();
                if let (header::Entry::Vacant(agent), Ok(name)) =
                    (request.headers_mut().entry(header::USER_AGENT), name.parse())
                {
                    agent.insert(name);
                }
                request.extensions_mut().insert(InProcess(user));
                if let Some(restricted) = restricted {
                    request.extensions_mut().insert(restricted);
                }
                Ok::<_, Infallible>(router::answer(&server, request).await)
            }
        });
        kube::Client::new(service, "default")
    }
}
