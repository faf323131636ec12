//! What a command prints, and in which form.

use std::io::{ErrorKind, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Row, Width};
use feast_registry::Object;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::DynamicMessage;
use serde_json::Value as Json;

use super::message::{self, Fields};

/// A form for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Protobuf's JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// The bytes that are stored.
    Proto,
}

/// A form for people, and those for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TextFormat {
    /// Text for people.
    Text,
    /// JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

impl TextFormat {
    /// The form for programs, if it is one.
    pub(super) fn of_program(self) -> Option<Format> {
        match self {
            TextFormat::Text => None,
            TextFormat::Json => Some(Format::Json),
            TextFormat::Yaml => Some(Format::Yaml),
        }
    }
}

/// Writes to stdout. That a reader has seen enough, as `head` has, is no error.
pub(super) fn print(bytes: &[u8]) -> Result<()> {
    tell(bytes).map(drop)
}

/// The same; `false` when the reader has seen enough.
pub(super) fn tell(bytes: &[u8]) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("cannot write to stdout"),
    }
}

/// The same, so that whoever waits for it may stop although nobody reads: what is not written by then is left to a thread.
pub(super) async fn tell_apart(bytes: Vec<u8>) -> Result<bool> {
    tokio::task::spawn_blocking(move || tell(&bytes)).await.context("what writes to stdout has failed")?
}

/// Tells people something that is not what the command prints.
pub(super) fn note(text: &str) {
    // When stderr is closed there is nobody to tell.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// The same as [`note`], so that whoever waits for it may stop although nobody reads.
pub(super) async fn note_apart(text: String) {
    // That it was told is not what anything depends on.
    drop(tokio::task::spawn_blocking(move || note(&text)).await);
}

/// Tells people what they may not know, in one line.
pub(super) fn warn(text: &str) {
    note(&format!("warning: {text}"));
}

/// Prints one object.
pub(super) fn print_object(object: &Object, format: Format) -> Result<()> {
    match format {
        Format::Proto => print_binary(&object.bytes),
        Format::Json | Format::Yaml => {
            let fields = Fields::of(object)?;
            print_json(&message::to_json(fields.message())?, format)?;
            note_unknown([fields.message()]);
            Ok(())
        }
    }
}

/// Prints objects of one kind: as an array; as bytes, a `feast.core.Registry` with just these.
pub(super) fn print_array(objects: &[Object], format: Format) -> Result<()> {
    if format == Format::Proto {
        return print_binary(&registry_message(objects));
    }
    let all = objects.iter().map(Fields::of).collect::<Result<Vec<_>>>()?;
    let json = all.iter().map(|fields| message::to_json(fields.message())).collect::<Result<Vec<_>>>()?;
    print_json(&Json::Array(json), format)?;
    note_unknown(all.iter().map(Fields::message));
    Ok(())
}

/// Prints objects of many kinds as a `feast.core.Registry` with just these.
pub(super) fn print_registry(objects: &[Object], format: Format) -> Result<()> {
    let bytes = registry_message(objects);
    if format == Format::Proto {
        return print_binary(&bytes);
    }
    let registry = message::decode("Registry", &bytes)?;
    print_json(&message::to_json(&registry)?, format)?;
    note_unknown([&registry]);
    Ok(())
}

/// Objects as they are stored, in a `feast.core.Registry`.
fn registry_message(objects: &[Object]) -> Vec<u8> {
    let mut objects: Vec<&Object> = objects.iter().collect();
    objects.sort_by_key(|object| object.kind.registry_field());
    let mut message = Vec::with_capacity(objects.iter().map(|object| object.bytes.len() + 8).sum());
    for object in objects {
        encode_key(object.kind.registry_field(), WireType::LengthDelimited, &mut message);
        encode_varint(object.bytes.len() as u64, &mut message);
        message.extend_from_slice(&object.bytes);
    }
    message
}

fn print_binary(bytes: &[u8]) -> Result<()> {
    if std::io::stdout().is_terminal() {
        bail!("`-o proto` is binary, which a terminal cannot show; write it to a file, as `> object.pb`");
    }
    print(bytes)
}

/// Prints what programs read.
pub(super) fn print_json(json: &Json, format: Format) -> Result<()> {
    let mut text = match format {
        Format::Yaml => serde_saphyr::to_string(json).context("this has no YAML form; try `-o json`")?,
        _ => serde_json::to_string_pretty(json)?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    print(text.as_bytes())
}

/// JSON has no place for fields that are not known by name.
fn note_unknown<'a>(messages: impl IntoIterator<Item = &'a DynamicMessage>) {
    match messages.into_iter().map(message::unknown_fields).sum() {
        0_usize => {}
        1 => note("note: a field that this version does not know is not shown; `-o proto` has it"),
        count => {
            note(&format!("note: {count} fields that this version does not know are not shown; `-o proto` has them"))
        }
    }
}

/// A table for people. In a terminal it is as wide as that, at most: long cells are cut, and columns at the end that do
/// not fit are left out. Elsewhere everything is there.
pub(super) struct Table {
    titles: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// The room between two columns.
const GAP: u16 = 2;
/// In a terminal, the widest that a column may be which is neither the first nor the last.
const WIDEST: u16 = 32;
/// In a terminal, the narrowest that a column may be which must be cut.
const NARROWEST: u16 = 12;

impl Table {
    /// A table without rows.
    pub(super) fn new(titles: impl Into<Vec<&'static str>>) -> Self {
        Self { titles: titles.into(), rows: Vec::new() }
    }

    /// Adds a row, of as many cells as there are titles.
    pub(super) fn push(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    /// Whether it has no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, each after this much room. A column with nothing in it is left out.
    pub(super) fn render(&self, indent: &str) -> String {
        self.render_to(indent, comfy_table::Table::new().width())
    }

    fn render_to(&self, indent: &str, width: Option<u16>) -> String {
        let mut table = self.arranged();
        if let Some(width) = width {
            fit(&mut table, width.saturating_sub(indent.len() as u16));
        }
        table.lines().map(|line| format!("{indent}{}\n", line.trim_end())).collect()
    }

    fn arranged(&self) -> comfy_table::Table {
        let is_used =
            |column: &usize| self.rows.iter().any(|row| row.get(*column).is_some_and(|cell| !cell.is_empty()));
        let columns: Vec<usize> = (0..self.titles.len()).filter(is_used).collect();
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|column| self.titles[*column]).collect::<Vec<_>>());
        for cells in &self.rows {
            let mut row = Row::new();
            for column in &columns {
                row.add_cell(Cell::new(cells.get(*column).map_or("", String::as_str)));
            }
            row.max_height(1);
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        table
    }
}

/// Makes a table fit: from the left, as many columns as there is room for, the last of them cut to what is left.
fn fit(table: &mut comfy_table::Table, width: u16) {
    let contents = table.column_max_content_widths();
    let last = contents.len().saturating_sub(1);
    let mut left = width;
    for (index, content) in contents.into_iter().enumerate() {
        let wanted = match index {
            0 => content,
            _ if index == last => content,
            _ => content.min(WIDEST),
        };
        // The gap after the last column need not be there.
        let given = wanted.min(left);
        let is_shown = index == 0 || given == wanted || given >= NARROWEST;
        let Some(column) = table.column_mut(index) else { return };
        if is_shown {
            // The first column says which row it is, so it is whole.
            let shown = if index == 0 { wanted } else { given };
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(shown.saturating_add(GAP))));
            left = left.saturating_sub(shown.saturating_add(GAP));
        } else {
            column.set_constraint(ColumnConstraint::Hidden);
            left = 0;
        }
    }
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "OWNER", "DESCRIPTION"]);
        table.push(["driver_statistics".to_owned(), String::new(), "how a driver drives, ".repeat(9)]);
        table.push(["x".to_owned(), String::new(), String::new()]);
        table
    }

    #[test]
    fn a_table_leaves_out_what_is_empty_and_cuts_nothing_in_a_file() {
        let lines: Vec<String> = table().render_to("  ", None).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], "  NAME               DESCRIPTION");
        assert!(lines[1].ends_with(&"how a driver drives, ".repeat(9).trim_end()), "{lines:?}");
        assert_eq!(lines[2], "  x");
    }

    #[test]
    fn a_table_fits_a_terminal_and_keeps_names_whole() {
        let mut table = Table::new(["NAME", "KIND", "TAGS", "DESCRIPTION", "OWNER"]);
        for name in ["driver_statistics", "x"] {
            table.push(
                [name, "feature view", &"a=b, ".repeat(20), &"how it is ".repeat(9), "me@example.com"]
                    .map(str::to_owned),
            );
        }
        for width in [10, 30, 40, 60, 80, 81, 90, 100, 200] {
            let text = table.render_to("  ", Some(width));
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 3, "{width}: {text}");
            assert!(lines[1].starts_with("  driver_statistics"), "{width}: {text}");
            let widest = lines.iter().map(|line| line.chars().count()).max().expect("lines");
            assert!(widest <= usize::from(width.max(19)), "{width}: {widest}\n{text}");
        }
        let text = table.render_to("", Some(70));
        assert!(
            text.starts_with("NAME               KIND          TAGS")
                && text.contains("a=b, a=b, a=b, a=b, a=b, a=b,…"),
            "{text}"
        );
        assert!(!text.contains("OWNER"), "{text}");
        assert!(table.render_to("", Some(150)).contains("me@example.com"));
    }
    #[test]
    fn a_table_shows_names_of_any_length() {
        for length in [usize::from(u16::MAX) - 1, usize::from(u16::MAX), 70_000, 200_000] {
            let mut table = Table::new(["NAME", "KIND", "DESCRIPTION"]);
            table.push(["n".repeat(length), "entity".to_owned(), "d".repeat(length)]);
            for width in [None, Some(10), Some(80), Some(u16::MAX)] {
                assert!(table.render_to("  ", width).contains("nnn"), "{length}, {width:?}");
            }
        }
    }
}
