//! One event as one line for people.
//!
//! Names and values come from whoever writes to the service. A line never hands a terminal anything that steers it:
//! control characters and marks that reorder text are shown as escapes.

use std::fmt::Write;

use serde_json::value::RawValue;

use super::page::{Event, Image};

/// The longest value on a line, in characters; `--json` shows all of it.
const VALUE_CHARS_MAX: usize = 160;

/// Whether lines are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Coloured,
}

/// Writes `#<sequence> <time> <OPERATION> <table> <id>  <what changed>` without an end of line.
pub(super) fn write_line(out: &mut String, event: &Event<'_>, style: Style) {
    let (dim, bold, reset) = match style {
        Style::Plain => ("", "", ""),
        Style::Coloured => ("\x1b[2m", "\x1b[1m", "\x1b[0m"),
    };
    let colour = match (style, &*event.operation) {
        (Style::Plain, _) => "",
        (_, "INSERT") => "\x1b[32m",
        (_, "UPDATE") => "\x1b[33m",
        (_, "DELETE") => "\x1b[31m",
        _ => "\x1b[35m",
    };
    let _ = write!(out, "{dim}#{} ", event.metadata.sequence_number);
    write_time(out, event.timestamp);
    let _ = write!(out, "{reset} {colour}{:<6}{reset} {bold}", shown(&event.operation));
    out.push_str(&shown(&event.table));
    out.push_str(reset);
    let image = event.after.as_ref().or(event.before.as_ref());
    let id = image.and_then(|image| image.get("id"));
    if let Some(id) = id {
        out.push(' ');
        out.push_str(&key(id));
    }
    match (&event.before, &event.after) {
        (Some(before), Some(after)) => write_changes(out, before, after),
        (Some(image), None) | (None, Some(image)) => write_image(out, image),
        (None, None) => {}
    }
}

/// Every member but the id, which the line has already.
fn write_image(out: &mut String, image: &Image<'_>) {
    let members = image.0.iter().filter(|(name, _)| name != "id");
    for (index, (name, value)) in members.enumerate() {
        out.push_str(if index == 0 { "  " } else { ", " });
        let _ = write!(out, "{}: {}", shown(name), cut(value));
    }
}

/// Only the members whose text differs: those of the new image first, then those it lacks.
fn write_changes(out: &mut String, before: &Image<'_>, after: &Image<'_>) {
    let mut separator = "  ";
    let mut change = |name: &str, old: Option<&RawValue>, new: Option<&RawValue>| {
        let text = |value: Option<&RawValue>| value.map_or_else(|| "(none)".to_owned(), cut);
        let _ = write!(out, "{separator}{}: {} → {}", shown(name), text(old), text(new));
        separator = ", ";
    };
    for (name, new) in &after.0 {
        let old = before.get(name);
        if old.map(RawValue::get) != Some(new.get()) {
            change(name, old, Some(new));
        }
    }
    for (name, old) in before.0.iter().filter(|(name, _)| after.get(name).is_none()) {
        change(name, Some(old), None);
    }
    if separator == "  " {
        out.push_str("  (nothing changed)");
    }
}

/// A key without its quotes, where that leaves no doubt what it is.
fn key(value: &RawValue) -> String {
    let plain = |text: &String| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '"');
    match serde_json::from_str::<String>(value.get()).ok().filter(plain) {
        Some(text) => shown(&text),
        None => cut(value),
    }
}

fn cut(value: &RawValue) -> String {
    let text = value.get();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", shown(&text[..end])),
        None => shown(text),
    }
}

/// The text with everything that steers a terminal shown as `\u{…}`.
fn shown(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Between members a value may have been sent with line ends; a line is a line.
            '\n' | '\r' | '\t' => safe.push(' '),
            c if steers(c) => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

/// Writes a time in ms since 1970 as RFC 3339 in UTC.
fn write_time(out: &mut String, timestamp_ms: u64) {
    let (days, ms) = (timestamp_ms / 86_400_000, timestamp_ms % 86_400_000);
    let (year, month, day) = date(days);
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z");
}

/// The Gregorian date of a day since 1970. Counts in eras of 400 years whose years begin in March, so that the leap
/// day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(images: &str, style: Style) -> String {
        let text = format!(
            r#"{{"id":"evt_1","table":"users","timestamp":1699380000001,{images},
               "metadata":{{"sequenceNumber":7,"source":"cdc-engine","schemaVersion":1}}}}"#
        );
        let event: Event<'_> = serde_json::from_str(&text).expect("an event");
        let mut line = String::new();
        write_line(&mut line, &event, style);
        line
    }

    #[test]
    fn an_insert_shows_the_row_and_a_delete_what_it_was() {
        let insert = line(r#""operation":"INSERT","after":{"id":"u 1","name":"Ann","n":1.50}"#, Style::Plain);
        assert_eq!(insert, "#7 2023-11-07T18:00:00.001Z INSERT users \"u 1\"  name: \"Ann\", n: 1.50");
        let delete = line(r#""operation":"DELETE","before":{"id":42,"name":"Ann"}"#, Style::Plain);
        assert_eq!(delete, "#7 2023-11-07T18:00:00.001Z DELETE users 42  name: \"Ann\"");
        let truncate = line(r#""operation":"TRUNCATE""#, Style::Plain);
        assert_eq!(truncate, "#7 2023-11-07T18:00:00.001Z TRUNCATE users");
    }

    #[test]
    fn an_update_shows_only_what_changed() {
        let update = line(
            r#""operation":"UPDATE","before":{"id":"a","name":"Ann","x":1,"y":2},"after":{"id":"a","name":"Bo","x":1,"z":[3]}"#,
            Style::Plain,
        );
        assert_eq!(
            update,
            "#7 2023-11-07T18:00:00.001Z UPDATE users a  name: \"Ann\" → \"Bo\", z: (none) → [3], y: 2 → (none)"
        );
        let same = line(r#""operation":"UPDATE","before":{"id":"a"},"after":{"id":"a"}"#, Style::Plain);
        assert!(same.ends_with(" a  (nothing changed)"), "{same}");
    }

    #[test]
    fn a_row_cannot_steer_the_terminal() {
        let hostile = line(
            "\"operation\":\"INSERT\",\"after\":{\"id\":\"\\u001b[2J\",\"\\u0007\":\"\u{9b}31m\u{202e}x\u{7f}\"}",
            Style::Plain,
        );
        assert!(hostile.ends_with(r#" \u{1b}[2J  \u{7}: "\u{9b}31m\u{202e}x\u{7f}""#), "{hostile}");
        assert!(!hostile.contains(|c: char| c.is_control()), "{hostile:?}");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let image = format!(r#""operation":"INSERT","after":{{"text":"{}"}}"#, "ü".repeat(1_000));
        let cut = line(&image, Style::Plain);
        assert!(cut.ends_with("ü…") && cut.chars().count() < 250, "{cut}");
    }

    #[test]
    fn colour_is_only_for_terminals() {
        let coloured = line(r#""operation":"INSERT","after":{"id":1}"#, Style::Coloured);
        assert!(coloured.contains("\x1b[32mINSERT\x1b[0m"), "{coloured:?}");
    }

    #[test]
    fn times_are_dates_of_the_gregorian_calendar() {
        for (timestamp, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut text = String::new();
            write_time(&mut text, timestamp);
            assert_eq!(text, expected);
        }
        write_time(&mut String::new(), u64::MAX);
    }
}
