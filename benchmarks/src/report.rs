//! Figures, and the Markdown that they end up in.

use std::fmt::Write;

use anyhow::Result;

use crate::sample::PROJECT;
use crate::setup::{Setup, VIEWS};

/// Markdown in the making, and what went wrong.
pub(crate) struct Report {
    text: String,
    failures: Vec<String>,
}

impl Report {
    /// Begins with what was measured, and where.
    pub(crate) fn new(setup: &Setup) -> Self {
        let mut report = Self { text: String::new(), failures: Vec::new() };
        report.heading("Feast's registry server and this one, side by side");
        for fact in &setup.facts {
            report.line(&format!("- {fact}"));
        }
        report.line(&format!(
            "- project `{PROJECT}`: {VIEWS} feature views of {} bytes each, their sources, 10 entities, 20 feature services; \
             made with Feast, a copy for each server",
            setup.sample.view_size()
        ));
        report.line(&format!(
            "- callers, in a process on the same machine, have a connection each and make the next call when they have \
             the answer; {} round(s) in turns, {} s for each cell; medians, and for ratios also the range",
            setup.rounds,
            setup.cell.as_secs_f64()
        ));
        report.line("");
        report
    }

    pub(crate) fn text(&self) -> &str {
        self.text.trim_end()
    }

    /// What failed, if anything did.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    pub(crate) fn heading(&mut self, heading: &str) {
        self.line(&format!("### {heading}\n"));
    }

    /// A table: column names, then rows. The first column has words, the others have figures.
    pub(crate) fn table(&mut self, columns: &[&str], rows: &[Vec<String>]) {
        let cells = |cells: &[&str]| format!("| {} |", cells.join(" | "));
        self.line(&cells(columns));
        self.line(&format!("|---|{}", "---:|".repeat(columns.len().saturating_sub(1))));
        for row in rows {
            self.line(&cells(&row.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        self.line("");
    }

    /// A figure, or a failure to be reported at the end.
    pub(crate) fn take<T>(&mut self, measured: Result<T>) -> Option<T> {
        measured.inspect_err(|error| self.fail(&format!("{error:#}"))).ok()
    }

    fn fail(&mut self, failure: &str) {
        let failure: String = failure.chars().take(500).collect();
        eprintln!("FAILED: {failure}");
        self.failures.push(failure);
    }

    fn line(&mut self, line: &str) {
        let Ok(()) = writeln!(self.text, "{line}") else { return };
    }
}

/// What two contenders came to in each round; `None` where calls failed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pair {
    rounds: Vec<[Option<f64>; 2]>,
}

impl Pair {
    pub(crate) fn add(&mut self, round: [Option<f64>; 2]) {
        self.rounds.push(round);
    }

    /// The median of one contender.
    pub(crate) fn median(&self, contender: usize) -> Option<f64> {
        median(self.rounds.iter().filter_map(|round| round[contender]).collect())
    }

    /// The figures of one contender, as text.
    pub(crate) fn figure(&self, contender: usize) -> String {
        self.median(contender).map_or_else(|| "failed".to_owned(), number)
    }

    /// How many times the first contender's figure the second one's is: the median of the rounds, and their range.
    pub(crate) fn times(&self) -> String {
        spread(self.ratios(|first, second| second / first))
    }

    /// How many times the second contender's figure the first one's is.
    pub(crate) fn inverse_times(&self) -> String {
        spread(self.ratios(|first, second| first / second))
    }

    fn ratios(&self, ratio: impl Fn(f64, f64) -> f64) -> Vec<f64> {
        self.rounds.iter().filter_map(|[first, second]| Some(ratio((*first)?, (*second)?))).collect()
    }
}

/// Two figures of one round, for the log.
pub(crate) fn both(round: [Option<f64>; 2]) -> [String; 2] {
    round.map(|figure| figure.map_or_else(|| "failed".to_owned(), number))
}

/// The median of figures, and with several of them the range, each as a multiple.
pub(crate) fn spread(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    let (Some(middle), [lowest, .., highest]) = (median(figures.clone()), &figures[..]) else {
        return median(figures).map_or_else(String::new, |only| format!("{}×", number(only)));
    };
    format!("{}× ({}–{})", number(middle), number(*lowest), number(*highest))
}

/// The middle of figures; of an even number, the mean of the two in the middle.
pub(crate) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    let lower = figures[(figures.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// A figure with as many digits as it deserves, and thousands apart.
pub(crate) fn number(figure: f64) -> String {
    if figure < 10.0 {
        return format!("{figure:.*}", if figure < 1.0 { 2 } else { 1 });
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [0.123, 1.26, 9.96, 12.3, 999.6, 12_345.6, 1_234_567.0].map(number);
        assert_eq!(numbers, ["0.12", "1.3", "10.0", "12", "1,000", "12,346", "1,234,567"]);
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let mut pair = Pair::default();
        for round in [[Some(1.0), Some(100.0)], [Some(10.0), Some(500.0)], [Some(2.0), Some(180.0)], [None, Some(9.0)]]
        {
            pair.add(round);
        }
        assert_eq!(pair.median(0), Some(2.0));
        assert_eq!(pair.median(1), Some(140.0));
        assert_eq!(pair.times(), "90× (50–100)");
        assert_eq!(pair.inverse_times(), "0.01× (0.01–0.02)");
    }

    #[test]
    fn what_failed_has_no_ratio() {
        let mut pair = Pair::default();
        pair.add([None, Some(3.0)]);
        assert_eq!((pair.figure(0), pair.figure(1), pair.times()), ("failed".into(), "3.0".into(), String::new()));
    }
}
