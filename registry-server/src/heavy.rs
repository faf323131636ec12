//! Calls with large requests, which take the processor for long: a message of megabytes is decoded, rules look through it, and JSON is
//! read and written.
//!
//! Each time such a call is polled, the thread first hands its other tasks to another one. So it holds up nobody, wherever in it the
//! time goes. A small call would take longer by that than it takes.

use std::future::poll_fn;
use std::pin::pin;

use tokio::runtime::{Handle, RuntimeFlavor};

/// What a call with a smaller request takes is a few milliseconds.
const HEAVY: u64 = 64 * 1024;

/// As how many objects so many bytes are worked on that are never worked on here.
pub(crate) fn many(bytes: usize) -> usize {
    (bytes / 64).max(1000)
}

/// A call, with a request of so many bytes. It has to be of a task of its own.
pub(crate) async fn call<F: Future>(bytes: u64, call: F) -> F::Output {
    // A runtime of one thread has nobody to hand anything to.
    if bytes < HEAVY || Handle::current().runtime_flavor() != RuntimeFlavor::MultiThread {
        return call.await;
    }
    let mut call = pin!(call);
    poll_fn(|cx| tokio::task::block_in_place(|| call.as_mut().poll(cx))).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// Fault: two entities with 100,000 tags each kept two threads from answering anybody, for seconds.
    #[test]
    fn a_call_with_a_large_request_holds_up_no_other() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let is_answered = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_answered);
        // What it waits for can be done by nobody but the other call.
        let heavy = runtime.spawn(call(HEAVY, async move {
            let began = Instant::now();
            while !seen.load(Ordering::SeqCst) && began.elapsed() < Duration::from_secs(60) {
                thread::sleep(Duration::from_millis(1));
            }
            seen.load(Ordering::SeqCst)
        }));
        runtime.spawn(async move { is_answered.store(true, Ordering::SeqCst) });
        assert!(runtime.block_on(heavy).expect("it ends"), "the other call was answered meanwhile");
    }
}
