//! The command line of a program that has another name than `feast-registry`, and other backends.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, StyledStr, TypedValueParser};
use clap::{Arg, Command};
use feast_registry::Schemes;

use super::location::{REGISTRY, has_default};

/// The name that help has as it is written.
const NAME: &str = "feast-registry";

/// Puts the name of the program into all help, and examples of its schemes to `--registry`.
pub(super) fn adapt(command: Command, name: &str, schemes: &Schemes) -> Command {
    let renamed = |text: Option<&StyledStr>| text.map(|text| of_program(&text.to_string(), name, schemes));
    let mut command = command;
    if name != NAME || !has_default(schemes) {
        let (about, long_about) = (renamed(command.get_about()), renamed(command.get_long_about()));
        let after_help = renamed(command.get_after_help());
        // An empty text is as good as none.
        command = command.about(about.unwrap_or_default());
        if let Some(text) = long_about {
            command = command.long_about(text);
        }
        if let Some(text) = after_help {
            command = command.after_help(text);
        }
    }
    let adapted = |arg: Arg| {
        let (help, long_help) = (renamed(arg.get_help()), renamed(arg.get_long_help()));
        let arg = match help {
            Some(text) => arg.help(text),
            None => arg,
        };
        match (arg.get_id() == REGISTRY, long_help) {
            (true, long_help) => {
                let urls = schemes.examples().collect::<Vec<_>>().join("\n  ");
                let long_help = format!("{}\n\nA URL is one of these kinds:\n  {urls}", long_help.unwrap_or_default());
                arg.long_help(long_help).value_parser(Url(schemes.examples().collect())).hide_possible_values(true)
            }
            (false, Some(text)) => arg.long_help(text),
            (false, None) => arg,
        }
    };
    command.mut_args(adapted).mut_subcommands(|command| adapt(command, name, schemes))
}

/// A text of help, as it is true of a program of this name that opens these URLs.
fn of_program(text: &str, name: &str, schemes: &Schemes) -> String {
    let text = text.replace(NAME, name);
    match has_default(schemes) {
        true => text,
        false => without_default(&text, schemes.examples().next().unwrap_or_default()),
    }
}

/// A text of help, without what is only true where a registry is opened that nobody has named.
fn without_default(text: &str, example: &str) -> String {
    text.replace(EXPLAINED, &format!("as {example}"))
        .replace("serve ./registry.db on port", "serve what FEAST_REGISTRY_URL names on port")
        .replace(
            "sqlite:///registry.db (of `run`: the feature_store.yaml of the folder)",
            "of `run`, the feature_store.yaml of the folder",
        )
        .replace("\n  sqlite:///registry.db", "")
        .replace(";\nsqlite:///registry.db", "")
        .replace("; sqlite:///registry.db", "")
}

/// What help says of URLs where there is SQLite.
const EXPLAINED: &str = "sqlite:///registry.db is in the working folder, sqlite:////var/lib/feast/registry.db is not";

/// Takes any text; examples of URLs are for completions.
#[derive(Debug, Clone)]
struct Url(Vec<&'static str>);

impl TypedValueParser for Url {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(|example| PossibleValue::new(*example))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;

    fn every_help(command: &mut Command) -> String {
        let mut all = format!("{}\n", command.render_long_help());
        for command in command.get_subcommands_mut() {
            all += &every_help(command);
        }
        all
    }

    /// The schemes of this build have SQLite, so its own help is taken apart, as a program without it does.
    #[test]
    fn help_without_sqlite_speaks_of_no_file_of_its_own() {
        let mut command = Cli::new(NAME, "1.2.3").command();
        command.build();
        let help = without_default(&every_help(&mut command), "mystore:///registry");
        let is_example = |line: &str| Schemes::default().examples().any(|example| example == line.trim());
        let left: Vec<&str> = help.lines().filter(|line| line.contains("registry.db") && !is_example(line)).collect();
        assert_eq!(left, [""; 0]);
        assert!(help.contains("as mystore:///registry"), "{help}");
    }

    #[test]
    fn help_has_the_name_of_the_program_and_its_schemes() {
        let mut command = Cli::new("my-registry", "1.2.3").command();
        command.build();
        let help = every_help(&mut command);
        assert!(help.contains("my-registry serve -c feature_store.yaml"), "{help}");
        assert!(help.contains("my-registry completions bash > "), "{help}");
        let left: Vec<&str> = help.lines().filter(|line| line.contains(NAME)).collect();
        assert_eq!(left, [""; 0]);
        for example in Schemes::default().examples() {
            assert!(help.contains(example), "{example} is not in\n{help}");
        }
    }
}
