//! Telling those who make something of the records what to look at again. It knows keys, and never a text:
//! who is late looks at a record once, however often it changed meanwhile.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Notify;
use toono_wire::pool::Touched;

/// All who follow the records.
#[derive(Debug, Default)]
pub(super) struct Followers(Mutex<Vec<Weak<Pending>>>);

/// Hears of changes of the records.
#[derive(Debug)]
pub(crate) struct Follower(Arc<Pending>);

/// What a follower has not looked at yet. It cannot outgrow the keys that there are.
#[derive(Debug)]
struct Pending {
    touch: Mutex<Touch>,
    notify: Notify,
}

/// What may be another record than it was, be new, or be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Touch {
    /// Any of them.
    All,
    /// The records of these keys.
    Keys(BTreeSet<Arc<str>>),
}

impl Followers {
    /// One more, who is told first that everything is new.
    pub(super) fn follow(&self) -> Follower {
        let notify = Notify::new();
        notify.notify_one();
        let pending = Arc::new(Pending { touch: Mutex::new(Touch::All), notify });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&pending));
        Follower(pending)
    }

    /// Tells all of them.
    pub(super) fn tell(&self, touched: &[Touched]) {
        if touched.is_empty() {
            return;
        }
        let mut followers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| {
            let Some(pending) = follower.upgrade() else { return false };
            touched.iter().for_each(|touched| pending.add(touched));
            true
        });
    }
}

impl Pending {
    fn add(&self, touched: &Touched) {
        let mut touch = self.touch.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *touch, touched) {
            (Touch::All, _) => {}
            (_, Touched::All) => *touch = Touch::All,
            (Touch::Keys(keys), Touched::Keys(more)) => keys.extend(more.iter().cloned()),
        }
        drop(touch);
        self.notify.notify_one();
    }
}

impl Follower {
    /// Completes when there is something to look at. Can be dropped at any time, and loses nothing by it.
    pub(crate) async fn changed(&self) -> Touch {
        loop {
            self.0.notify.notified().await;
            let mut touch = self.0.touch.lock().unwrap_or_else(PoisonError::into_inner);
            let touch = std::mem::replace(&mut *touch, Touch::Keys(BTreeSet::new()));
            if touch != Touch::Keys(BTreeSet::new()) {
                return touch;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn keys(keys: &[&str]) -> Vec<Arc<str>> {
        keys.iter().copied().map(Arc::from).collect()
    }

    #[test]
    fn each_hears_of_everything_once_and_then_of_what_changed() {
        let followers = Followers::default();
        let (a, b) = (followers.follow(), followers.follow());
        assert_eq!(a.changed().now_or_never(), Some(Touch::All));
        followers.tell(&[Touched::Keys(keys(&["x", "y"]))]);
        followers.tell(&[Touched::Keys(keys(&["x", "z"]))]);
        assert_eq!(
            a.changed().now_or_never(),
            Some(Touch::Keys(keys(&["x", "y", "z"]).into_iter().collect()))
        );
        assert_eq!(a.changed().now_or_never(), None);
        assert_eq!(b.changed().now_or_never(), Some(Touch::All), "whoever is late looks once");
        followers.tell(&[Touched::Keys(keys(&["x"])), Touched::All]);
        assert_eq!(b.changed().now_or_never(), Some(Touch::All));
    }
}
