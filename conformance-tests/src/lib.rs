//! The tests that a storage backend of the feature registry must pass, as a library: whoever writes a
//! [`Backend`](feast_registry_core::Backend), in this workspace or elsewhere, runs the same suite as our own backends.
//!
//! # How to run it
//!
//! Add this crate to `[dev-dependencies]`, and a file under `tests/` that Cargo takes for a program of its own:
//!
//! ```toml
//! [[test]]
//! name = "memory"
//! harness = false
//! ```
//!
//! Its `main` calls [`run`] with a [`Suite`]: a name, and a [`Factory`] that makes empty storages. Every test of the suite is
//! then a test of its own for `cargo test` and `cargo nextest`. This is the whole of it for
//! [`MemoryBackend`](feast_registry_core::MemoryBackend):
//!
//! ```no_run
#![doc = include_str!("../tests/memory.rs")]
//! ```
//!
//! `cargo test --test memory -- durability` runs one theme. One program may have several suites, as for several ways to
//! configure a backend; the name of each is in the names of its tests.
//!
//! The last lines of a run say what passed, what failed and what was excepted:
//!
//! ```text
//! memory: excepted storage::only_auto_removes: no mode makes memory, so none of them keeps what is in it — unproven: if no
//! project is left in it and the backend was made with SchemaMode::Auto
//! memory: 107 passed, 0 failed, 12 excepted
//! ```
//!
//! nextest shows nothing of what it lists and of tests that pass; it counts exceptions as skipped, and names them with
//! `--final-status-level skip`. For badges and tables, and for CI that
//! is to know what was skipped, set `FEAST_REGISTRY_CONFORMANCE_REPORT` to the path of a file: see [`run`].
//!
//! Whoever has a test runner of another sort calls [`all`] instead: the same tests, in turn. [`tests`] is the list, and
//! [`Test::run`] runs one of them. Other processes then are a program that [`Factory::worker`] names.
//!
//! # When a test fails
//!
//! Its message begins with the promise that is broken, in the words of the documentation ([`Test::promise`]). The plainest
//! tests come first in the list; when another one fails, those of `reads`, `values`, `expectations` and `writes` are run, and
//! if one of them fails too, the message says which: begin there.
//!
//! # What it tests
//!
//! - **The contract** of [`Backend`](feast_registry_core::Backend), word by word: `reads`, `pages`, `names`, `values`,
//!   `expectations`, `writes`, `storage`, and `races` between several handles on one storage.
//! - **Its edges**: that a commit takes place once, whatever others have written since (`exactly_once`); that the `journal` has
//!   every commit once, in order, and that its replay is the state; that a caller may leave wherever a call waits
//!   (`cancellation`); that what has no effect when its deadline is over never has one (`deadlines`); that reads wait for no writer (`waiting`), nothing
//!   blocks (`blocking`), the declared `limits` are so, and calls before a preparation and after a closing end well (`lifetime`); and what happens when
//!   answers are lost, nothing answers, or sessions end (`network`).
//! - **The registry** over the backend ([`Registry`](feast_registry_core::Registry)), where a defect costs a user data:
//!   `objects`, `unknown_fields`, `projects`, `cache`, `contention`.
//! - **Any of these at once** (`histories`): clients do at random what a seed says, and their answers must have one order in
//!   which each operation takes place at a moment between its beginning and its end.
//! - **Durability**: what was acknowledged outlives a `kill -9` of its writer, though no other process has the storage open:
//!   `durability`.
//! - **Several OS processes** at once on one storage, some of which are killed: `processes`.
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
//! lists as an [`Exception`], with the reason. Such tests are ignored tests: every run names them, with the promise that stays
//! unproven. Nothing else is ever left out: a backend that cannot be opened by another process and does not say so fails.
//!
//! A store that one process at a time has open (an embedded one, with a lock) excepts `processes` and proves the rest, its
//! durability too; within a process it hands out its one handle again, as [`Storage::open`] says.
//!
//! That a server is not to be had on some machine is no exception, since it says nothing of the backend:
//! [`Suite::left_out`] is for that.
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
//! The tests of `durability` and `processes` start workers: the same program again, which [`run`] lets do what the tests say. A
//! storage tells how it is found ([`Storage::address`]), and the factory opens it there ([`Factory::open_at`]):
//!
//! ```
//! # use std::sync::Arc;
//! # use feast_registry_conformance::{Exception, Factory, Storage};
//! # use feast_registry_core::{Backend, MemoryBackend, Result, config::SchemaMode};
//! # struct MyFactory;
//! # struct MyStorage { path: String }
//! # fn open(path: &str, mode: SchemaMode) -> Result<Arc<dyn Backend>> { Ok(Arc::new(MemoryBackend::new())) }
//! # #[async_trait::async_trait]
//! impl Factory for MyFactory {
//! #   async fn create(&self) -> Arc<dyn Storage> { Arc::new(MyStorage { path: String::new() }) }
//! #   fn exceptions(&self) -> Vec<Exception> { Vec::new() }
//!     async fn open_at(&self, address: &str) -> Result<Arc<dyn Backend>> {
//!         open(address, SchemaMode::Auto)
//!     }
//!     // …
//! }
//!
//! # #[async_trait::async_trait]
//! impl Storage for MyStorage {
//! #   async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>> { open(&self.path, mode) }
//! #   async fn remove(&self) {}
//!     fn address(&self) -> Option<String> {
//!         Some(self.path.clone())
//!     }
//!     // …
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
mod durability;
mod factory;
mod faulty;
mod handle;
mod history;
mod link;
mod list;
mod process;
mod processes;
mod race;
mod registry;
mod replay;
mod report;
mod run;
mod sample;
mod shown;
mod simulation;
mod store;
mod suite;
mod wire;
mod worker;
mod written;

// Its Rust is compiled as doctests of examples/redb, which has a backend for it.
#[cfg_attr(not(doctest), doc = include_str!("../writing-a-backend.md"))]
#[cfg_attr(doctest, doc = "The page for authors.")]
pub mod writing_a_backend {}

pub use factory::{Exception, Factory, Storage};
pub use faulty::{Calls, Fault, FaultyBackend, Gate, Operation};
pub use link::Link;
pub use list::tests;
pub use run::{Report, Test, all};
pub use suite::{Suite, run};
pub use worker::worker;

#[doc(hidden)]
pub use simulation::simulate;

/// The examples of the README are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
