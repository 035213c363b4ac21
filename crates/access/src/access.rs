//! The chain of authorizers: masters, nodes, RBAC, and then no.

use std::borrow::Cow;

use k8s_openapi::api::authorization::v1::SubjectRulesReviewStatus;
use toono_api::{ApiError, UserInfo, user::GROUP_MASTERS};

use crate::{
    Graph, Rules,
    attributes::Attributes,
    decision::{Decision, forbidden},
    node::authorize,
};

/// Everything that decisions depend on. Fed with changes of objects, asked with attributes.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// What roles and bindings grant.
    pub rules: Rules,
    /// What nodes run.
    pub graph: Graph,
}

impl Access {
    /// Decides: [`Decision::Allow`] or [`Decision::Deny`]. A refusal's reason is what each authorizer had to
    /// say, a line each.
    #[must_use]
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(GROUP_MASTERS) {
            return Decision::allow("");
        }
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        let authorizers: [&dyn Fn() -> Decision; 2] =
            [&|| authorize::decide(&self.graph, attributes), &|| self.rules.decide(attributes)];
        for authorizer in authorizers {
            match authorizer() {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::Deny { reason: reasons.join("\n").into() }
    }

    /// Lets a request pass that is allowed for every owner.
    ///
    /// # Errors
    /// The refusal, as it is answered.
    pub fn require(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        match self.decide(attributes) {
            Decision::Allow { owner: None, .. } => Ok(()),
            refused => Err(forbidden(attributes, refused.reason())),
        }
    }

    /// What a `SelfSubjectRulesReview` answers.
    #[must_use]
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> SubjectRulesReviewStatus {
        let mut review = self.rules.rules_for(user, namespace);
        if user.node_name().is_some() {
            let unlisted = "node authorizer does not support user rule resolution".to_owned();
            review.incomplete = true;
            review.evaluation_error = Some(match review.evaluation_error {
                None => unlisted,
                Some(other) => format!("[{unlisted}, {other}]"),
            });
        }
        review
    }
}
