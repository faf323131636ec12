//! The tests that a storage backend of the feature registry must pass, as a library: whoever writes a
//! [`Backend`](feast_registry_core::Backend), in this workspace or elsewhere, runs the same suite as our own backends.
//!
//! # How to run it
//!
//! Add this crate to `[dev-dependencies]`, write a [`Factory`] that makes empty storages, and call the macro once, in a
//! file under `tests/`. Every test of the suite is then a test of its own for `cargo test` and `cargo nextest`. This is
//! the whole of it for [`MemoryBackend`](feast_registry_core::MemoryBackend):
//!
//! ```
#![doc = include_str!("../tests/memory.rs")]
//! ```
//!
//! Whoever has a test runner of another sort calls [`all`] instead: the same tests, in turn. [`tests`] is the list, and
//! [`Test::run`] runs one of them.
//!
//! # What it tests
//!
//! - **The contract** of [`Backend`](feast_registry_core::Backend), word by word: `reads`, `pages`, `names`, `values`,
//!   `expectations`, `writes`, `storage`, and `races` between several handles on one storage.
//! - **Its edges**: that a commit takes place once, whatever others have written since (`exactly_once`); that the `journal` has
//!   every commit once, in order, and that its replay is the state; that a caller may leave wherever a call waits
//!   (`cancellation`); that what has no effect when its deadline is over never has one (`deadlines`); and what happens when
//!   answers are lost, nothing answers, or sessions end (`network`).
//! - **The registry** over the backend ([`Registry`](feast_registry_core::Registry)), where a defect costs a user data:
//!   `objects`, `unknown_fields`, `projects`, `cache`, `contention`.
//! - **Any of these at once** (`histories`): clients do at random what a seed says, and their answers must have one order in
//!   which each operation takes place at a moment between its beginning and its end.
//! - **Several OS processes** on one storage, and processes that are killed: `processes`.
//!
//! What is stored is always well-formed: an object's bytes are a message of its kind that says the name, the project and
//! the time of its key and record, since a backend may keep these nowhere else.
//!
//! A race that did not race fails. Tests of races repeat until calls have overlapped or commits have been refused, and
//! fail when that never happens: a backend, or a machine, on which nothing can collide has proved nothing.
//!
//! That the tests test something is tested too: `tests/flaws/` in this crate runs them on some seventy backends that are each
//! wrong in one way, and every test catches at least one of them.
//!
//! # Exceptions
//!
//! What a backend cannot do by its nature (nothing outlives the process that holds a registry in memory), its factory
//! lists as an [`Exception`], with the reason. These are printed by every run. Nothing else is ever left out: a backend
//! that cannot be opened by another process and does not say so fails.
//!
//! # Interruptions
//!
//! The tests of `network` take the way between a handle and its storage in hand: they hold answers, let everything fall
//! silent, and cut. A storage gives them that power with [`Storage::open_with_link`], which returns a handle and its [`Link`].
//! For whatever is reached over TCP, a proxy is enough; the one of this crate's own tests, `tests/databases/proxy.rs`, knows
//! nothing of what passes through it. Where nothing lies between (memory, a file of this machine), the factory lists the
//! theme as an exception.
//!
//! # Other processes
//!
//! The tests of `processes` start the command of [`Storage::worker`]. It may be any program that opens the storage and
//! calls [`worker`]; the simplest is the test program itself:
//!
//! ```no_run
//! # async fn open_my_storage(path: std::ffi::OsString) -> feast_registry_core::Result<std::sync::Arc<dyn feast_registry_core::Backend>> {
//! #     todo!("{path:?}")
//! # }
//! // In the implementation of `Storage`:
//! fn worker(path: &std::path::Path) -> Option<std::process::Command> {
//!     let mut command = feast_registry_conformance::this_program("worker");
//!     command.env("MY_STORAGE", path);
//!     Some(command)
//! }
//!
//! // Beside `conformance_tests!`. In an ordinary run it has nothing to do and passes.
//! #[test]
//! fn worker() {
//!     feast_registry_conformance::worker(async || open_my_storage(std::env::var_os("MY_STORAGE").unwrap()).await);
//! }
//! ```
//!
//! # Faults
//!
//! [`FaultyBackend`] wraps any backend and fails, delays, holds or refuses calls as it is told, before or after they take
//! effect. It tests what stands on top of a backend; this crate's own `tests/faults.rs` shows it at work, and
//! `tests/simulation.rs` lets whole processes run into hundreds of faults, in a time and with a luck that are simulated.

#![forbid(unsafe_code)]

mod backend;
mod factory;
mod faulty;
mod handle;
mod history;
mod link;
mod list;
mod processes;
mod race;
mod registry;
mod replay;
mod run;
mod sample;
mod simulation;
mod store;
mod wire;
mod worker;

pub use factory::{Exception, Factory, Storage};
pub use faulty::{Calls, Fault, FaultyBackend, Gate, Operation};
pub use link::Link;
pub use list::tests;
pub use run::{Report, Test, all};
pub use worker::{this_program, worker};

#[doc(hidden)]
pub use run::run_one;
#[doc(hidden)]
pub use simulation::simulate;
