//! Which tokens a pod's volumes want.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::api::core::v1::{Pod, PodSpec, ServiceAccountTokenProjection};

/// What a token lasts when the pod does not say: the API's own default.
const DEFAULT_SECONDS: i64 = 3600;
/// The account of a pod that names none.
const DEFAULT_ACCOUNT: &str = "default";

/// One token; volumes that want the same share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    pub(super) account: String,
    /// The server's own when it is none.
    pub(super) audience: Option<String>,
    pub(super) seconds: i64,
}

/// What a pod wants, and all of the pod that the server must be told. It is kept while the pod lives, so it is small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wants {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) tokens: Vec<Wanted>,
}

impl Wants {
    /// The tokens of a pod's volumes.
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut tokens = BTreeSet::new();
        if let Some(spec) = &pod.spec {
            let projected = spec.volumes.iter().flatten().filter_map(|it| it.projected.as_ref());
            let sources = projected.flat_map(|it| it.sources.iter().flatten());
            let sources = sources.filter_map(|it| it.service_account_token.as_ref());
            tokens = sources.map(|it| Wanted::by(spec, it)).collect();
        }
        let meta = &pod.metadata;
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            tokens: tokens.into_iter().collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Where a token is asked for.
    pub(super) fn path(&self, wanted: &Wanted) -> String {
        let Self { namespace, .. } = self;
        format!("/api/v1/namespaces/{namespace}/serviceaccounts/{}/token", wanted.account)
    }
}

impl Wanted {
    /// What a source of a projected volume wants.
    pub(crate) fn by(spec: &PodSpec, source: &ServiceAccountTokenProjection) -> Self {
        let account = spec.service_account_name.clone().filter(|name| !name.is_empty());
        Self {
            account: account.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned()),
            audience: source.audience.clone().filter(|audience| !audience.is_empty()),
            seconds: source.expiration_seconds.unwrap_or(DEFAULT_SECONDS),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token of {} for {} s", self.account, self.seconds)?;
        self.audience.iter().try_for_each(|audience| write!(f, " and {audience}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_that_want_the_same_token_share_it() {
        let source = |source: serde_json::Value| serde_json::json!({"serviceAccountToken": source});
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "d"},
            "spec": {"containers": [], "serviceAccountName": "bot", "volumes": [
                {"name": "a", "projected": {"sources": [source(serde_json::json!({"path": "t", "expirationSeconds": 3607}))]}},
                {"name": "b", "projected": {"sources": [
                    source(serde_json::json!({"path": "u", "expirationSeconds": 3607, "audience": ""})),
                    source(serde_json::json!({"path": "v", "audience": "vault"})),
                    {"configMap": {"name": "m"}}]}}]}}))
        .unwrap();
        let wants = Wants::of(&pod);
        let of_bot = |audience: Option<&str>, seconds| Wanted {
            account: "bot".to_owned(),
            audience: audience.map(str::to_owned),
            seconds,
        };
        assert_eq!(wants.tokens, [of_bot(None, 3607), of_bot(Some("vault"), 3600)]);
        assert_eq!(wants.path(&wants.tokens[0]), "/api/v1/namespaces/d/serviceaccounts/bot/token");
        let plain = serde_json::json!({"spec": {"containers": []}});
        assert!(Wants::of(&serde_json::from_value(plain).unwrap()).is_empty());
    }
}
