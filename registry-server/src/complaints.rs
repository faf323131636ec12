//! Log lines that would be true many times a second, said now and then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How often one is said.
const SAYS_EVERY: Duration = Duration::from_secs(10);

/// Something that may have to be said of many calls or connections at once.
#[derive(Debug, Default)]
pub(crate) struct Complaint(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaint {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(State { last: None, unsaid: 0 }))
    }

    /// Says it, unless it was said a moment ago. `say` is given words for how often it was left unsaid since, or none.
    pub(crate) fn say(&self, say: impl FnOnce(&str)) {
        let unsaid = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.last.is_some_and(|last| last.elapsed() < SAYS_EVERY) {
                state.unsaid += 1;
                return;
            }
            state.last = Some(Instant::now());
            std::mem::take(&mut state.unsaid)
        };
        match unsaid {
            0 => say(""),
            unsaid => say(&format!(" (and {unsaid} times more since the last such line)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_line_now_and_then_that_says_how_many_there_were() {
        let complaint = Complaint::new();
        let mut said = Vec::new();
        for _ in 0..35 {
            complaint.say(|more| said.push(more.to_owned()));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let more = " (and 9 times more since the last such line)";
        assert_eq!(said, ["", more, more, more]);
    }
}
