//! The tests of one backend over a database server: what `cargo xtask test --backend` runs, on one version of the server
//! after the other.

use std::process::Command;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::Project;
use crate::services::Service;

/// A backend, by the server that it is tested on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// PostgreSQL, or what speaks its protocol; not through PgBouncer
    Postgres,
    /// The backend for MySQL, on MariaDB
    Mariadb,
    /// The backend for MySQL, on MySQL or what speaks its protocol
    Mysql,
}

impl Backend {
    /// The one server that its tests need.
    pub(crate) fn service(self) -> Service {
        match self {
            Self::Postgres => Service::Postgres,
            Self::Mariadb => Service::Mariadb,
            Self::Mysql => Service::Mysql,
        }
    }

    /// The test programs of `conformance-tests` that use the server.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["hasty_callers", "lost_answers", "postgres", "postgres_faults", "tls"],
            Self::Mariadb => &["hasty_callers", "lost_answers", "mysql", "mysql_edges", "mysql_tables"],
            Self::Mysql => &["hasty_callers", "lost_answers", "mysql", "mysql_edges", "mysql_tables", "mysql_tls"],
        }
    }

    /// Picks, in these programs, the tests that use this server and no other.
    fn filter(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["--skip", "pgbouncer", "--skip", "mariadb", "--skip", "mysql"],
            Self::Mariadb => &["mariadb"],
            Self::Mysql => &["--skip", "mariadb", "--skip", "postgres"],
        }
    }

    /// Runs the tests. By `cargo test`, which tells tests that nobody asked for from those that are ignored; and with the features
    /// that the whole workspace asks of its dependencies, so that what all tests have built is not built once more.
    pub(crate) fn tests(self, project: &Project) -> Command {
        let mut tests = project.cargo("test --workspace --no-fail-fast");
        for program in self.programs() {
            tests.args(["--test", program]);
        }
        tests.arg("--").args(self.filter());
        tests
    }

    /// Fails if a test program had nothing to run: then its tests have other names than they are picked by.
    pub(crate) fn check_closing_lines(self, closing: &[String]) -> Result<()> {
        let programs = self.programs().len();
        ensure!(closing.len() == programs, "of {programs} test programs {} ran a test", closing.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test program that is in no list would run on the default versions alone, and nobody would notice.
    #[test]
    fn each_test_program_is_run_on_the_servers_that_it_uses() {
        let folder = Project::here().root.join("conformance-tests/tests");
        let mut programs = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let Ok(source) = std::fs::read_to_string(&path) else { continue };
            let name = path.file_stem().unwrap().to_str().unwrap();
            let on_both = source.contains("on_each_server!(");
            for (backend, service) in
                [(Backend::Postgres, "\"POSTGRES\""), (Backend::Mariadb, "\"MARIADB\""), (Backend::Mysql, "\"MYSQL\"")]
            {
                let uses = source.contains(service) || (on_both && backend != Backend::Postgres);
                assert_eq!(backend.programs().contains(&name), uses, "{name} on {backend:?}");
                programs += usize::from(uses);
            }
        }
        let listed: usize = Backend::value_variants().iter().map(|backend| backend.programs().len()).sum();
        assert_eq!(programs, listed, "each program that is listed is there");
    }

    #[test]
    fn a_program_that_ran_nothing_is_no_pass() {
        let line = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out".to_owned();
        let mut closing = vec![line; Backend::Mysql.programs().len()];
        assert!(Backend::Mysql.check_closing_lines(&closing).is_ok());
        closing.pop();
        assert!(Backend::Mysql.check_closing_lines(&closing).is_err());
    }
}
