//! Work that takes the processor and waits for nothing, as long as its caller likes: sorting a long list, following lineage
//! through thousands of views.
//!
//! On the threads that answer calls it would hold up all others. So it has threads of its own, on half of the processors, and
//! waits there for earlier work until its deadline. Work on few objects is done at once: to hand it over would take longer.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};

/// Work on so many objects takes a few milliseconds at the most.
const FEW: usize = 200;

/// On how many objects there may be work, that is done or waits: whoever waits has a list of them in memory.
const MOST: usize = 4_000_000;

/// Where such work is done.
#[derive(Debug)]
pub(crate) struct Compute {
    places: Arc<Semaphore>,
    objects: Arc<Semaphore>,
}

impl Compute {
    pub(crate) fn new() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        let places = Arc::new(Semaphore::new((processors / 2).max(1)));
        Self { places, objects: Arc::new(Semaphore::new(MOST)) }
    }

    /// Does work on so many objects. If its caller leaves, or the deadline is over, before it has begun, it is not done; after
    /// that it goes on to its end, and has its place until then.
    ///
    /// # Errors
    /// Those of the work; `DeadlineExceeded` when the deadline is over first, and `Overloaded` when too much waits already.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        objects: usize,
        deadline: &Deadline,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if objects <= FEW {
            return work();
        }
        // What is alone has room, however large it is.
        let objects = u32::try_from(objects.min(MOST)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.objects).try_acquire_many_owned(objects).map_err(|_| {
            Error::new(
                ErrorKind::Overloaded,
                "too many large requests wait for a processor in this process; nothing was done: try again later",
            )
        })?;
        const WHAT: &str = "a processor that works on earlier large requests";
        let place = deadline.wait_for(WHAT, Arc::clone(&self.places).acquire_owned()).await?;
        let place = place.map_err(|error| Error::internal("no place to work").with_source(error))?;
        let job = tokio::task::spawn_blocking(move || {
            let _held = (place, room);
            work()
        });
        match deadline.wait_for("a large request to be worked on", job).await? {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(Error::internal("the work was broken off").with_source(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Fault: sixty requests for lineage held up all other calls for 17 s, whatever their deadlines.
    #[tokio::test]
    async fn few_work_at_once_and_who_leaves_before_has_nothing_done() {
        let compute = Arc::new(Compute::new());
        let (at_once, most, done) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..60 {
            let (compute, at_once, most, done) =
                (Arc::clone(&compute), Arc::clone(&at_once), Arc::clone(&most), Arc::clone(&done));
            let patience = if number % 2 == 0 { Duration::from_millis(1) } else { Duration::from_secs(60) };
            callers.spawn(async move {
                let work = move || {
                    most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    done.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                };
                (number, compute.run(FEW + 1, &Deadline::after(patience), work).await)
            });
        }
        // Meanwhile this thread has time for others.
        let began = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        while let Some(caller) = callers.join_next().await {
            let (number, result) = caller.expect("no panic");
            if number % 2 == 1 {
                result.expect("who waits is served");
            } else if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
            }
        }
        let places = available_parallelism().map_or(1, usize::from).div_ceil(2);
        assert!(most.load(Ordering::SeqCst) <= places, "{most:?} at once");
        assert!(done.load(Ordering::SeqCst) < 40, "{done:?} were done of 60, half of which nobody waited for");
    }

    /// Fault: four thousand searches among 50,000 objects waited with 2 MB each, until there was no memory.
    #[tokio::test]
    async fn who_would_wait_with_too_many_objects_is_refused() {
        let compute = Arc::new(Compute::new());
        let deadline = || Deadline::after(Duration::from_secs(60));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let first = Arc::clone(&compute);
        let first = tokio::spawn(async move {
            let work = move || {
                began.send(()).expect("it is waited for");
                held.recv().expect("it is let go");
                Ok(())
            };
            // More than there is room for.
            first.run(2 * MOST, &deadline(), work).await
        });
        has_begun.await.expect("it has begun");
        let refused = compute.run(FEW + 1, &Deadline::after(Duration::from_secs(60)), || Ok(())).await;
        assert_eq!(refused.expect_err("there is no room").kind(), ErrorKind::Overloaded);
        compute.run(FEW, &Deadline::after(Duration::from_secs(60)), || Ok(())).await.expect("few need none");
        release.send(()).expect("it is waited for");
        first.await.expect("no panic").expect("it is done");
        compute.run(2 * MOST, &Deadline::after(Duration::from_secs(60)), || Ok(())).await.expect("there is room again");
    }

    #[tokio::test]
    async fn a_panic_is_its_callers() {
        let compute = Arc::new(Compute::new());
        let broken = Arc::clone(&compute);
        let panicked = tokio::spawn(async move {
            broken
                .run(FEW + 1, &Deadline::after(Duration::from_secs(60)), || -> Result<()> { panic!("a defect") })
                .await
        });
        assert!(panicked.await.expect_err("a panic").is_panic());
        compute
            .run(FEW + 1, &Deadline::after(Duration::from_secs(60)), || Ok(()))
            .await
            .expect("its place is free again");
    }
}
