//! Prometheus, with which a test asks what the dashboard and the alert rules ask.

use std::env;
use std::path::PathBuf;

use anyhow::Result;

use super::Folder;
use super::debian::{Release, Unpacked};

/// The folder of `prometheus` and `promtool`: the system's, else that of Debian's package.
pub(super) fn programs(folder: &Folder) -> Result<PathBuf> {
    let has_both = |folder: &PathBuf| ["prometheus", "promtool"].iter().all(|program| folder.join(program).is_file());
    let of_the_system = env::var_os("PATH").and_then(|path| env::split_paths(&path).find(has_both));
    match of_the_system {
        Some(folder) => Ok(folder),
        None => Ok(Unpacked::packages(&folder.path, "prometheus", Release::Own, &["prometheus"])?.root.join("usr/bin")),
    }
}
