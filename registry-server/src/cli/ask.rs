//! Asking whoever sits at the terminal before something is done.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};

use super::text;

/// Has the one at the terminal type a phrase.
///
/// # Errors
/// When there is no terminal, or something else was typed; `otherwise` is what then is so, as "Nothing was deleted".
pub(super) fn ask(phrase: &str, otherwise: &str) -> Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("there is no terminal to ask on; `--yes` skips the question. {otherwise}");
    }
    if confirm(phrase, &mut stdin.lock(), &mut std::io::stderr())? {
        return Ok(());
    }
    bail!("that was not `{}`. {otherwise}", text::clean(phrase))
}

/// Whether the answer is the phrase that was asked for.
fn confirm(phrase: &str, answers: &mut impl BufRead, questions: &mut impl Write) -> Result<bool> {
    write!(questions, "Type `{}` to go on: ", text::clean(phrase)).context("cannot ask")?;
    questions.flush().context("cannot ask")?;
    let mut answer = String::new();
    answers.read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim() == phrase.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_phrase_confirms() {
        for (answer, is_yes) in [("rides\n", true), (" rides ", true), ("Rides\n", false), ("y\n", false), ("", false)]
        {
            let mut question = Vec::new();
            assert_eq!(
                confirm("rides", &mut answer.as_bytes(), &mut question).expect("an answer"),
                is_yes,
                "{answer:?}"
            );
            assert_eq!(question, b"Type `rides` to go on: ");
        }
    }
}
