//! The rows of the kinds that are only asked: who somebody is, and what they may do.

use super::{CREATE_ONLY, ROW, field::At};
use crate::resource::BuiltIn;

const AUTHENTICATION: BuiltIn =
    BuiltIn { group: "authentication.k8s.io", namespaced: false, verbs: CREATE_ONLY, ..ROW };
const AUTHORIZATION: BuiltIn = BuiltIn { group: "authorization.k8s.io", ..AUTHENTICATION };

/// Who asks.
pub static SELF_SUBJECT_REVIEW: BuiltIn = BuiltIn {
    kind: "SelfSubjectReview",
    list_kind: "SelfSubjectReviewList",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    message: "authentication.SelfSubjectReview",
    ..AUTHENTICATION
};

/// Whose token this is.
pub static TOKEN_REVIEW: BuiltIn = BuiltIn {
    kind: "TokenReview",
    list_kind: "TokenReviewList",
    plural: "tokenreviews",
    singular: "tokenreview",
    message: "authentication.TokenReview",
    validate: |object| {
        let root = At::root(object);
        let spec = root.get("spec");
        if spec.get("token").text().is_empty() {
            return vec![spec.get("token").required("")];
        }
        Vec::new()
    },
    ..AUTHENTICATION
};

/// Whether somebody may do something in a namespace.
pub static LOCAL_SUBJECT_ACCESS_REVIEW: BuiltIn = BuiltIn {
    kind: "LocalSubjectAccessReview",
    list_kind: "LocalSubjectAccessReviewList",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    namespaced: true,
    message: "authorization.LocalSubjectAccessReview",
    ..AUTHORIZATION
};

/// Whether who asks may do something.
pub static SELF_SUBJECT_ACCESS_REVIEW: BuiltIn = BuiltIn {
    kind: "SelfSubjectAccessReview",
    list_kind: "SelfSubjectAccessReviewList",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    message: "authorization.SelfSubjectAccessReview",
    ..AUTHORIZATION
};

/// What who asks may do in a namespace.
pub static SELF_SUBJECT_RULES_REVIEW: BuiltIn = BuiltIn {
    kind: "SelfSubjectRulesReview",
    list_kind: "SelfSubjectRulesReviewList",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    message: "authorization.SelfSubjectRulesReview",
    ..AUTHORIZATION
};

/// Whether somebody may do something.
pub static SUBJECT_ACCESS_REVIEW: BuiltIn = BuiltIn {
    kind: "SubjectAccessReview",
    list_kind: "SubjectAccessReviewList",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    message: "authorization.SubjectAccessReview",
    ..AUTHORIZATION
};
