//! Who asks: client certificates, service accounts' tokens, bootstrap tokens, or nobody; and as whom.
//! What they may do is not decided here, but for whether they may act as others.

mod bootstrap_token;
mod impersonate;

use http::{Extensions, HeaderMap, header};
use toono_api::{ApiError, UserInfo};
use toono_http::PeerCertificates;
use toono_pki::{PkiError, Subject};

pub(crate) use impersonate::impersonate;

use crate::{server::ApiServer, tokens};

/// Marks a request of a part of this process, which is who it says. Nothing from a socket can carry
/// it: extensions are not on the wire.
#[derive(Debug, Clone)]
pub(crate) struct InProcess(pub(crate) UserInfo);

/// Identifies the user of a request.
///
/// A certificate that has expired is good for asking for another one.
///
/// # Errors
/// [`ApiError::Unauthorized`] when a credential is shown that is not good.
pub(crate) fn authenticate(
    server: &ApiServer,
    path: &str,
    extensions: &Extensions,
    headers: &HeaderMap,
) -> Result<UserInfo, ApiError> {
    if let Some(InProcess(user)) = extensions.get() {
        return Ok(user.clone());
    }
    if let Some(certificates) = extensions.get::<PeerCertificates>() {
        let user = |subject: Result<Subject, PkiError>| match subject {
            Ok(subject) => Ok(UserInfo::new(&subject.common_name, subject.organizations)),
            Err(_) => Err(ApiError::Unauthorized),
        };
        if path == toono_wire::path::CERTIFICATE {
            // Not kept for the connection: nothing else may be asked so.
            let leaf = certificates.leaf().ok_or(ApiError::Unauthorized)?;
            return user(toono_pki::subject_of_expired(leaf));
        }
        return certificates.read_once(|chain| {
            let leaf = chain.first().ok_or(ApiError::Unauthorized)?;
            user(toono_pki::subject(leaf))
        });
    }
    match bearer_token(headers) {
        None => Ok(UserInfo::anonymous()),
        Some(token) => match holder(server, token, &[]) {
            Ok(holder) => Ok(holder.user),
            Err(error) => {
                tracing::debug!(%error, "a token is refused");
                Err(ApiError::Unauthorized)
            }
        },
    }
}

/// Whose a token is.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) user: UserInfo,
    /// For whom the token is, of those that were asked about.
    pub(crate) audiences: Vec<String>,
}

/// Tells whose a token is that is for one of the audiences; none are those of this server.
///
/// # Errors
/// Why the token is not good.
pub(crate) fn holder(
    server: &ApiServer,
    token: &str,
    audiences: &[String],
) -> Result<Holder, tokens::BadToken> {
    let inner = &server.inner;
    let audiences = if audiences.is_empty() { inner.issuer.audiences() } else { audiences };
    let now = ApiServer::now();
    let for_us = audiences.iter().any(|audience| inner.issuer.audiences().contains(audience));
    if for_us && let Some(user) = bootstrap_token::user(&inner.store, token, now) {
        // These name no audience, so they are for this server.
        let ours = |audience: &&String| inner.issuer.audiences().contains(audience);
        return Ok(Holder { user, audiences: audiences.iter().filter(ours).cloned().collect() });
    }
    let claims = inner.issuer.verify(token, now)?;
    let audiences = claims.meant_for(audiences)?;
    Ok(Holder { user: claims.user(&inner.store, now)?, audiences })
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
