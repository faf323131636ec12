//! Waiting for somebody else's answer: for one answer, together, and not too many at once.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

type UnderWay<K, T> = HashMap<K, watch::Receiver<Option<T>>>;

/// Questions that are under way, each asked once however many wait for its answer. Whoever stops waiting stops nobody else.
pub(super) struct Questions<K, T>(Mutex<UnderWay<K, T>>);

impl<K, T> Questions<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(HashMap::new())))
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay<K, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a question. If it is not under way, `begin` says how it is asked, or that it is not, and then there is
    /// no answer. Cancel-safe: what was asked is asked to its end.
    pub(super) async fn answer<F>(self: &Arc<Self>, key: K, begin: impl FnOnce() -> Option<F>) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut answered = {
            let mut under_way = self.under_way();
            match under_way.get(&key) {
                Some(answered) => answered.clone(),
                None => {
                    let asked = begin()?;
                    let (sender, answered) = watch::channel(None);
                    under_way.insert(key.clone(), answered.clone());
                    let ended = Ended { questions: Arc::clone(self), key };
                    tokio::spawn(async move {
                        let answer = asked.await;
                        drop(ended);
                        sender.send_replace(Some(answer));
                    });
                    answered
                }
            }
        };
        // It fails when what asked has panicked.
        let answer = answered.wait_for(Option::is_some).await.ok()?;
        (*answer).clone()
    }
}

/// A question that is under way until this is dropped.
struct Ended<K: Eq + Hash, T> {
    questions: Arc<Questions<K, T>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Ended<K, T> {
    fn drop(&mut self) {
        self.questions.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::time::{sleep, timeout};

    #[tokio::test(start_paused = true)]
    async fn a_question_is_asked_once_for_all_who_wait_and_goes_on_without_them() {
        let questions = Questions::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = |key: u32| {
            let (questions, asked) = (Arc::clone(&questions), Arc::clone(&asked));
            async move {
                let begin = || {
                    Some(async move {
                        let number = asked.fetch_add(1, Ordering::SeqCst);
                        sleep(Duration::from_secs(1)).await;
                        number
                    })
                };
                questions.answer(key, begin).await
            }
        };
        // The one that began it stops waiting.
        assert!(timeout(Duration::from_millis(500), ask(1)).await.is_err());
        assert_eq!(tokio::join!(ask(1), ask(1), ask(2)), (Some(0), Some(0), Some(1)));
        assert_eq!(ask(1).await, Some(2), "what is over is asked again");
        assert!(questions.under_way().is_empty());
        assert_eq!(questions.answer(3, || None::<std::future::Ready<usize>>).await, None);
        let panics = || Some(async { panics() });
        assert_eq!(questions.answer(4, panics).await, None);
        assert!(questions.under_way().is_empty(), "a panic is an end too");
    }

    fn panics() -> usize {
        std::panic::resume_unwind(Box::new("on purpose"))
    }
}
