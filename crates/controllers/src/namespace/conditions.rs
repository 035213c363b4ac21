//! What a namespace waits for, in its conditions: Kubernetes' types, reasons and texts.

use super::content::Left;
use crate::kinds::Condition;

const DISCOVERY: &str = "NamespaceDeletionDiscoveryFailure";
const PARSING: &str = "NamespaceDeletionGroupVersionParsingFailure";
const CONTENT: &str = "NamespaceDeletionContentFailure";
const REMAINING: &str = "NamespaceContentRemaining";
const FINALIZERS: &str = "NamespaceFinalizersRemaining";

/// Brings a namespace's conditions to what is left; whether that changed anything.
pub(super) fn update(conditions: &mut Vec<Condition>, left: &Left) -> bool {
    let mut changed = false;
    for condition in current(left) {
        changed |= condition.set(conditions);
    }
    changed
}

fn current(left: &Left) -> [Condition; 5] {
    let discovery = match &left.undiscovered {
        Some(why) => Condition::new(DISCOVERY, true, "DiscoveryFailed", why.clone()),
        None => good(DISCOVERY, "ResourcesDiscovered", "All resources successfully discovered"),
    };
    let parsing = good(PARSING, "ParsedGroupVersions", "All legacy kube types successfully parsed");
    let content = if left.undeleted.is_empty() {
        let message = "All content successfully deleted, may be waiting on finalization";
        good(CONTENT, "ContentDeleted", message)
    } else {
        let mut failures = left.undeleted.clone();
        failures.sort_unstable();
        let message = format!(
            "Failed to delete all resource types, {} remaining: {}",
            failures.len(),
            failures.join(", ")
        );
        Condition::new(CONTENT, true, "ContentDeletionFailed", message)
    };
    let remaining = if left.objects.is_empty() {
        good(REMAINING, "ContentRemoved", "All content successfully removed")
    } else {
        let all = sorted(
            left.objects.iter().map(|(kind, n)| format!("{kind} has {n} resource instances")),
        );
        let message = format!("Some resources are remaining: {all}");
        Condition::new(REMAINING, true, "SomeResourcesRemain", message)
    };
    let finalizers = if left.finalizers.is_empty() {
        let message = "All content-preserving finalizers finished";
        good(FINALIZERS, "ContentHasNoFinalizers", message)
    } else {
        let all = sorted(
            left.finalizers.iter().map(|(name, n)| format!("{name} in {n} resource instances")),
        );
        let message = format!("Some content in the namespace has finalizers remaining: {all}");
        Condition::new(FINALIZERS, true, "SomeFinalizersRemain", message)
    };
    [discovery, parsing, content, remaining, finalizers]
}

fn good(type_: &str, reason: &str, message: &str) -> Condition {
    Condition::new(type_, false, reason, message.to_owned())
}

fn sorted(texts: impl Iterator<Item = String>) -> String {
    let mut texts: Vec<_> = texts.collect();
    texts.sort_unstable();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_is_left_and_change_only_with_it() {
        let mut left = Left::default();
        left.objects.insert("pods.".to_owned(), 2);
        left.objects.insert("shops.example.com".to_owned(), 1);
        left.finalizers.insert("example.com/keep".to_owned(), 1);
        let mut conditions = Vec::new();
        assert!(update(&mut conditions, &left));
        assert!(!update(&mut conditions, &left));
        let messages: Vec<_> = conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.message.as_deref().unwrap()))
            .collect();
        assert_eq!(
            messages[3..],
            [
                (
                    REMAINING,
                    "True",
                    "Some resources are remaining: pods. has 2 resource instances, shops.example.com has 1 resource instances"
                ),
                (
                    FINALIZERS,
                    "True",
                    "Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances"
                ),
            ]
        );
        assert!(update(&mut conditions, &Left::default()));
        assert!(conditions.iter().all(|condition| condition.status == "False"));
        assert_eq!(conditions.len(), 5);
    }
}
