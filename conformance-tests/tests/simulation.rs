//! Runs of a simulated storage under registries and their caches. `FEAST_REGISTRY_SIMULATION_SEED` runs one seed again.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// So many seeds are run.
const RUNS: u64 = 200;

const SEED: &str = "FEAST_REGISTRY_SIMULATION_SEED";

fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(feast_registry_conformance::simulate(seed));
}

#[test]
fn what_is_acknowledged_and_read_fits_the_journal() {
    if let Ok(seed) = std::env::var(SEED) {
        return run(seed.parse().expect("a number"));
    }
    for seed in 0..RUNS {
        if catch_unwind(AssertUnwindSafe(|| run(seed))).is_err() {
            panic!("seed {seed} fails; {SEED}={seed} runs it again");
        }
    }
}
