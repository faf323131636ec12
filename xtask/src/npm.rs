//! Programs that their makers publish with npm, each installed under `target/`, once.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::Project;
use crate::steps::{in_path, run};

/// Installs a package, as `name@version`, and says where a file of it is.
pub(crate) fn install(project: &Project, package: &str, file: &str) -> Result<PathBuf> {
    let folder = project.root.join("target/npm").join(package);
    let name = package.rsplit_once('@').map_or(package, |(name, _)| name);
    let path = folder.join("node_modules").join(name).join(file);
    if !path.is_file() {
        ensure!(in_path("npm"), "npm is needed to install {package}");
        std::fs::create_dir_all(&folder)?;
        run(project.command("npm").args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(package))?;
        ensure!(path.is_file(), "{package} was installed, but there is no {}", path.display());
    }
    Ok(path)
}
