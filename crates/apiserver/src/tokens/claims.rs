//! What a service account's token says, and whether it still holds: its time, for whom it is, and that
//! what it is bound to exists. A token dies with its account, its pod or its secret.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use toono_api::{ObjectHeader, UserInfo};
use toono_mvcc::Key;
use toono_pki::BadJwt;
use toono_store::Store;

use super::ISSUER;

/// Clocks of replicas differ, and whoever is being deleted finishes its work: Kubernetes' own allowance.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
/// The claim that holds what is Kubernetes' own.
const PRIVATE: &str = "kubernetes.io";

/// Why a token is not good, in Kubernetes' words where a client sees them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadToken {
    /// It is none of ours.
    #[error(transparent)]
    Foreign(#[from] BadJwt),
    /// It is signed by us, but says nothing that we would say.
    #[error("the token's claims are not those of a service account")]
    Claims,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYet,
    #[error("token audiences {claimed:?} is invalid for the target audiences {wanted:?}")]
    Audience { claimed: Vec<String>, wanted: Vec<String> },
    /// What it is bound to is gone, is another one by now, or is being deleted.
    #[error("service account token has been invalidated")]
    Invalidated,
}

/// An object that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) name: String,
    /// Empty for a node that was not there when the token of its pod was made.
    pub(crate) uid: String,
}

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) audiences: Vec<String>,
    pub(crate) issued: Timestamp,
    pub(crate) expires: Timestamp,
    /// The time from which its use deserves a warning.
    pub(crate) warn_after: Option<Timestamp>,
    /// An identifier of the token.
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) account: Reference,
    pub(crate) pod: Option<Reference>,
    pub(crate) node: Option<Reference>,
    pub(crate) secret: Option<Reference>,
}

impl Claims {
    /// The claims as a token holds them.
    pub(crate) fn to_json(&self) -> Value {
        let reference = |of: &Reference| match of.uid.as_str() {
            "" => json!({"name": of.name}),
            uid => json!({"name": of.name, "uid": uid}),
        };
        let mut private = json!({"namespace": self.namespace,
            "serviceaccount": reference(&self.account)});
        let bound = [("pod", &self.pod), ("node", &self.node), ("secret", &self.secret)];
        let fields =
            bound.into_iter().filter_map(|(field, of)| Some((field, reference(of.as_ref()?))));
        let warning = self.warn_after.map(|time| ("warnafter", time.as_second().into()));
        for (field, value) in fields.chain(warning) {
            crate::encode::set(&mut private, field, value);
        }
        let issued = self.issued.as_second();
        json!({"iss": ISSUER, "aud": self.audiences, "iat": issued, "nbf": issued,
            "exp": self.expires.as_second(), "jti": self.id, "sub": self.user_name(), PRIVATE: private})
    }

    /// Reads verified claims.
    ///
    /// # Errors
    /// [`BadToken::Claims`] when they are not such as we sign.
    pub(crate) fn of(claims: &Map<String, Value>) -> Result<Self, BadToken> {
        Self::read(claims).ok_or(BadToken::Claims)
    }

    fn read(claims: &Map<String, Value>) -> Option<Self> {
        if claims.get("iss")?.as_str()? != ISSUER {
            return None;
        }
        let time = |value: &Value| Timestamp::from_second(value.as_i64()?).ok();
        let text = |value: &Value| Some(value.as_str()?.to_owned());
        let private = claims.get(PRIVATE)?.as_object()?;
        let reference = |field: &str| match private.get(field) {
            None => Some(None),
            Some(found) => {
                let uid = found.get("uid").map_or(Some(String::new()), text)?;
                Some(Some(Reference { name: text(found.get("name")?)?, uid }))
            }
        };
        let audiences = match claims.get("aud")? {
            Value::String(one) => vec![one.clone()],
            many => many.as_array()?.iter().map(text).collect::<Option<_>>()?,
        };
        let read = Self {
            audiences,
            issued: time(claims.get("nbf")?)?,
            expires: time(claims.get("exp")?)?,
            warn_after: private.get("warnafter").and_then(time),
            id: text(claims.get("jti")?)?,
            namespace: text(private.get("namespace")?)?,
            account: reference("serviceaccount")?.filter(|account| !account.uid.is_empty())?,
            pod: reference("pod")?,
            node: reference("node")?,
            secret: reference("secret")?,
        };
        (claims.get("sub")?.as_str()? == read.user_name()).then_some(read)
    }

    fn user_name(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.account.name)
    }

    /// Whether this is the token's time.
    ///
    /// # Errors
    /// When it is too early or too late.
    pub(crate) fn check_time(&self, now: Timestamp) -> Result<(), BadToken> {
        // Times are compared as durations: a sum may lie beyond the end of time.
        if now.duration_since(self.expires) >= LEEWAY {
            Err(BadToken::Expired)
        } else if self.issued.duration_since(now) > LEEWAY {
            Err(BadToken::NotYet)
        } else {
            Ok(())
        }
    }

    /// Those of the audiences that the token is for.
    ///
    /// # Errors
    /// When it is for none of them.
    pub(crate) fn meant_for(&self, wanted: &[String]) -> Result<Vec<String>, BadToken> {
        let both: Vec<String> =
            wanted.iter().filter(|one| self.audiences.contains(one)).cloned().collect();
        if both.is_empty() {
            let (claimed, wanted) = (self.audiences.clone(), wanted.to_vec());
            return Err(BadToken::Audience { claimed, wanted });
        }
        Ok(both)
    }

    /// The user whose token it is, as long as all that it is bound to is there.
    ///
    /// # Errors
    /// [`BadToken::Invalidated`].
    pub(crate) fn user(&self, store: &Store, now: Timestamp) -> Result<UserInfo, BadToken> {
        let alive = |plural: &str, namespace: &str, of: &Reference| {
            let key = Key::new("", plural, namespace, &of.name);
            is_alive(store, &key, &of.uid, now)
        };
        let namespaced = [
            ("serviceaccounts", Some(&self.account)),
            ("secrets", self.secret.as_ref()),
            ("pods", self.pod.as_ref()),
        ];
        let all = namespaced
            .into_iter()
            .all(|(plural, of)| of.is_none_or(|of| alive(plural, &self.namespace, of)));
        // The node of a pod only tells where the pod is. A token may outlive it as the pod does.
        let bound_node = self.node.as_ref().filter(|_| self.pod.is_none());
        if !all || !bound_node.is_none_or(|node| alive("nodes", "", node)) {
            return Err(BadToken::Invalidated);
        }
        let account = UserInfo::service_account(&self.namespace, &self.account.name);
        Ok(account.with_uid(&self.account.uid).with_extra(self.extra()))
    }

    fn extra(&self) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::new();
        let mut add = |key: &str, value: &str| {
            if !value.is_empty() {
                extra.insert(key.to_owned(), vec![value.to_owned()]);
            }
        };
        add(CREDENTIAL_ID, &format!("JTI={}", self.id));
        for (reference, name, uid) in
            [(&self.pod, POD_NAME, POD_UID), (&self.node, NODE_NAME, NODE_UID)]
        {
            let Some(reference) = reference else { continue };
            add(name, &reference.name);
            add(uid, &reference.uid);
        }
        extra
    }
}

/// Whether the object is there, is the same one, and is not long past its deletion.
pub(super) fn is_alive(store: &Store, key: &Key, uid: &str, now: Timestamp) -> bool {
    let Ok(Some(entry)) = store.get(key, None) else { return false };
    let Ok(header) = ObjectHeader::parse(&entry.value) else { return false };
    let deletion = header.metadata.deletion_timestamp.as_deref();
    let leaving = deletion.map(|time| time.parse::<Timestamp>());
    let gone = leaving.is_some_and(|time| time.is_ok_and(|time| now.duration_since(time) > LEEWAY));
    header.metadata.uid.as_deref() == Some(uid) && !gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            audiences: vec![ISSUER.to_owned(), "vault".to_owned()],
            issued: Timestamp::from_second(1_000_000).unwrap(),
            expires: Timestamp::from_second(1_003_600).unwrap(),
            warn_after: None,
            id: "1-2".to_owned(),
            namespace: "shop".to_owned(),
            account: Reference { name: "bot".to_owned(), uid: "u1".to_owned() },
            pod: Some(Reference { name: "web".to_owned(), uid: "u2".to_owned() }),
            node: Some(Reference { name: "edge".to_owned(), uid: String::new() }),
            secret: None,
        }
    }

    #[test]
    fn claims_are_read_as_they_were_written() {
        let warned =
            Claims { warn_after: Some(Timestamp::from_second(1_000_600).unwrap()), ..claims() };
        for claims in [claims(), warned] {
            let json = claims.to_json();
            assert_eq!(json["sub"], "system:serviceaccount:shop:bot");
            assert_eq!(json[PRIVATE]["node"], json!({"name": "edge"}));
            assert_eq!(Claims::of(json.as_object().unwrap()), Ok(claims));
        }
    }

    #[test]
    fn a_claim_that_is_missing_or_of_another_kind_makes_them_worthless() {
        let good = claims().to_json();
        for field in ["iss", "aud", "nbf", "exp", "jti", "sub", PRIVATE] {
            for value in
                [json!(null), json!([1]), json!(-1.5), json!({}), json!("other"), json!(i64::MAX)]
            {
                let mut bad = good.clone();
                bad[field] = value.clone();
                let read = Claims::of(bad.as_object().unwrap());
                let harmless = (field == "aud" || field == "jti") && value == "other";
                assert_eq!(read.is_err(), !harmless, "{field}: {value}");
                bad.as_object_mut().unwrap().remove(field);
                assert_eq!(Claims::of(bad.as_object().unwrap()), Err(BadToken::Claims), "{field}");
            }
        }
        let mut unbound = good.clone();
        unbound[PRIVATE]["serviceaccount"]["uid"] = json!("");
        assert_eq!(Claims::of(unbound.as_object().unwrap()), Err(BadToken::Claims));
        let mut other = good;
        other[PRIVATE]["serviceaccount"]["name"] = json!("root");
        assert_eq!(Claims::of(other.as_object().unwrap()), Err(BadToken::Claims));
    }

    #[test]
    fn time_and_audience_are_those_of_the_token() {
        let (claims, at) = (claims(), |second| Timestamp::from_second(second).unwrap());
        for (second, expected) in [
            (999_930, Err(BadToken::NotYet)),
            (999_940, Ok(())),
            (1_003_659, Ok(())),
            (1_003_660, Err(BadToken::Expired)),
        ] {
            assert_eq!(claims.check_time(at(second)), expected, "{second}");
        }
        let forever = Claims { expires: Timestamp::MAX, issued: Timestamp::MIN, ..claims.clone() };
        assert_eq!(forever.check_time(Timestamp::MIN), Ok(()));
        assert_eq!(forever.check_time(Timestamp::MAX), Ok(()));
        let wanted =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(claims.meant_for(&wanted(&["x", "vault"])), Ok(wanted(&["vault"])));
        assert!(matches!(claims.meant_for(&wanted(&["x"])), Err(BadToken::Audience { .. })));
    }
}
