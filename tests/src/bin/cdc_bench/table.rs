//! The table that is printed.

use std::fmt;

/// One line: what was measured, against what, and whether it is good enough.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) value: String,
    pub(crate) peer: String,
    pub(crate) ratio: String,
    pub(crate) bar: String,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Pass,
    Miss,
    /// Shown for its own sake, or its peer is missing.
    NoBar,
}

impl Verdict {
    pub(crate) fn of(is_good: bool) -> Verdict {
        if is_good { Verdict::Pass } else { Verdict::Miss }
    }
}

#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// A figure that has a peer: `ratio` must be at least `at_least`.
    pub(crate) fn against_peer(&mut self, what: &str, value: String, peer: String, ratio: f64, at_least: f64) {
        self.rows.push(Row {
            what: what.into(),
            value,
            peer,
            ratio: format!("{ratio:.2}"),
            bar: format!(">= {at_least}"),
            verdict: Verdict::of(ratio >= at_least),
        });
    }

    /// A cost that has a peer: `ratio` may be at most `at_most`.
    pub(crate) fn at_most_of_peer(&mut self, what: &str, value: String, peer: String, ratio: f64, at_most: f64) {
        self.rows.push(Row {
            what: what.into(),
            value,
            peer,
            ratio: format!("{ratio:.2}"),
            bar: format!("<= {at_most}"),
            verdict: Verdict::of(ratio <= at_most),
        });
    }

    /// A figure that has a bar of its own.
    pub(crate) fn against_bar(&mut self, what: &str, value: String, bar: &str, is_good: bool) {
        let verdict = Verdict::of(is_good);
        self.rows.push(Row { what: what.into(), value, peer: "-".into(), ratio: "-".into(), bar: bar.into(), verdict });
    }

    /// A figure without a bar.
    pub(crate) fn note(&mut self, what: &str, value: String, peer: &str) {
        let verdict = Verdict::NoBar;
        self.rows.push(Row {
            what: what.into(),
            value,
            peer: peer.into(),
            ratio: "-".into(),
            bar: "-".into(),
            verdict,
        });
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![["what", "measured", "peer", "ratio", "bar", ""].map(String::from)];
        for row in &self.rows {
            let verdict = match row.verdict {
                Verdict::Pass => "pass",
                Verdict::Miss => "MISS",
                Verdict::NoBar => "",
            };
            let cells = [&row.what, &row.value, &row.peer, &row.ratio, &row.bar];
            let [what, value, peer, ratio, bar] = cells.map(String::clone);
            lines.push([what, value, peer, ratio, bar, verdict.into()]);
        }
        let widths: Vec<usize> =
            (0..6).map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
        lines.insert(1, std::array::from_fn(|column| "-".repeat(widths[column].max(3))));
        for line in lines {
            let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(out, "| {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

/// `12,345` for 12345.4.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

pub(crate) fn ms(duration: std::time::Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}
