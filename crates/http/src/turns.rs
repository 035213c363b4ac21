//! Turns for work that is done while it is polled: of many tasks that could go on, a few at once do.
//!
//! A runtime polls what can go on in the order in which it was woken. Thousands of TLS handshakes that can go
//! on at once would each be polled before a request that comes after them. Here they wait for turns of their
//! own instead, so what they delay others by is a few polls, however many they are. A turn lasts one poll:
//! who waits for the network holds none, so slow peers take nothing from others.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use tokio::sync::Semaphore;

/// Who may go on.
#[derive(Debug)]
pub(crate) struct Turns(Semaphore);

impl Turns {
    /// So many at once.
    pub(crate) fn new(at_once: usize) -> Self {
        Self(Semaphore::new(at_once))
    }

    /// Completes as `work` does, which is polled in its turns only. First come, first served.
    pub(crate) async fn take<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        loop {
            // The semaphore is never closed; if it were, the work would go on without turns.
            let turn = self.0.acquire().await.ok();
            let polled = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
            drop(turn);
            match polled {
                Poll::Ready(output) => return output,
                Poll::Pending => until_woken().await,
            }
        }
    }
}

/// Until something wakes this task: what it was polled for has its waker.
async fn until_woken() {
    let mut asleep = false;
    poll_fn(|_| if std::mem::replace(&mut asleep, true) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tokio::sync::{Notify, oneshot};

    use super::*;

    #[tokio::test]
    async fn who_waits_for_something_else_holds_no_turn() {
        let turns = Arc::new(Turns::new(1));
        let (answer, asked) = oneshot::channel();
        let first = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(asked).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(turns.take(async { 7 }).await, 7, "the first waits for its answer");
        answer.send(8).unwrap();
        assert_eq!(first.await.unwrap(), Ok(8));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_more_are_polled_at_once_than_there_are_turns() {
        let turns = Arc::new(Turns::new(2));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let go = Arc::new(Notify::new());
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (turns, now, most, go) = (turns.clone(), now.clone(), most.clone(), go.clone());
                tokio::spawn(async move {
                    let woken = go.notified();
                    let work = async {
                        woken.await;
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_micros(200));
                        now.fetch_sub(1, Ordering::SeqCst);
                    };
                    turns.take(work).await;
                })
            })
            .collect();
        for task in tasks {
            while !task.is_finished() {
                go.notify_waiters();
                tokio::task::yield_now().await;
            }
            task.await.unwrap();
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }
}
