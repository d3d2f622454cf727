//! A portion of a database's log on its way across the boundary: put together change by change, all texts in one block.

use super::bindings::cdc::engine::store::Span;
use super::bindings::exports::cdc::engine::follow as wit;
use super::texts::Packer;
use super::{Described, FollowAction};

/// Changes that are captured together or not at all.
#[derive(Debug)]
pub struct Portion {
    wit: wit::Portion,
    /// The checkpoint that it goes on from.
    after: Option<String>,
}

/// One change, borrowed from wherever it is kept. A describe or a truncate has no more than a table, an action, and for a
/// truncate its place in the log.
#[derive(Clone, Copy, Debug)]
pub struct FollowChange<'a> {
    /// What [`Portion::table`] answered.
    pub table: u32,
    /// What happened.
    pub action: FollowAction,
    /// The key's columns as text, in key order. In one part it is taken as it stands.
    pub key: &'a [String],
    /// The row, for a replace and a read: a JSON object.
    pub image: Option<&'a str>,
    /// Places (in the table's description) of columns that the image lacks because they did not change.
    pub unchanged: &'a [u32],
    /// The key that the row had, if it has a new one.
    pub previous_key: Option<&'a [String]>,
    /// The whole row before, if the log told it.
    pub before: Option<&'a str>,
    /// What [`Portion::transaction`] answered.
    pub transaction: Option<u32>,
    /// Its place in the source's log.
    pub position: Option<&'a str>,
}

impl Portion {
    /// An empty one. It goes on from the checkpoint `after`: that of the portion before it, or the one that the feed was
    /// opened with; none where the source begins. Should that not be what the log has when its turn comes, it is
    /// refused, because something before it was not captured.
    #[must_use]
    pub fn new(source: &str, after: Option<&str>) -> Self {
        let wit = wit::Portion {
            source: source.to_owned(),
            tables: Vec::new(),
            transactions: Vec::new(),
            details: Vec::new(),
            changes: Vec::new(),
            texts: Vec::new(),
            checkpoint: None,
        };
        Self { wit, after: after.filter(|after| !after.is_empty()).map(str::to_owned) }
    }

    /// Makes room for so many changes, whose texts have so many bytes.
    pub fn reserve(&mut self, changes: usize, text_bytes: usize) {
        self.wit.changes.reserve(changes);
        self.wit.texts.reserve(text_bytes);
    }

    /// Adds a table as it looks in the changes that will name it, and answers its place.
    pub fn table(&mut self, described: Described) -> u32 {
        self.wit.tables.push(described);
        place(self.wit.tables.len())
    }

    /// Adds a transaction, and answers its place.
    pub fn transaction(&mut self, name: &str, committed_at_ms: Option<u64>) -> u32 {
        let name = self.push(|texts| texts.push(name.as_bytes()));
        self.wit.transactions.push(wit::Transaction { name, committed_at: committed_at_ms });
        place(self.wit.transactions.len())
    }

    /// Adds a change, in the order of the source's log.
    pub fn change(&mut self, change: &FollowChange<'_>) {
        let mut packer = Packer::onto(std::mem::take(&mut self.wit.texts));
        let mut optional = |text: Option<&str>| text.map(|text| packer.push(text.as_bytes()));
        let (image, before) = (optional(change.image), optional(change.before));
        let position = optional(change.position);
        let key = packer.key(change.key);
        let previous_key = change.previous_key.map(|key| packer.key(key));
        let detail = (!change.unchanged.is_empty() || previous_key.is_some()).then(|| {
            self.wit.details.push(wit::Detail { unchanged: change.unchanged.to_vec(), previous_key });
            place(self.wit.details.len())
        });
        let (table, action, transaction) = (change.table, change.action, change.transaction);
        self.wit.changes.push(wit::Change { table, action, key, image, before, transaction, position, detail });
        self.wit.texts = packer.into_bytes();
    }

    /// Where the source goes on once the portion is durable: committed with it. An empty one forgets the source's place.
    pub fn set_checkpoint(&mut self, checkpoint: String) {
        self.wit.checkpoint = Some(checkpoint);
    }

    /// The source's name.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.wit.source
    }

    /// The checkpoint that it goes on from.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Whether it goes on from this checkpoint.
    #[must_use]
    pub fn is_from(&self, position: Option<&str>) -> bool {
        self.after.as_deref() == position
    }

    /// How many changes it has, descriptions included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wit.changes.len()
    }

    /// Whether it has no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wit.changes.is_empty()
    }

    pub(super) fn wit(&self) -> &wit::Portion {
        &self.wit
    }

    fn push(&mut self, push: impl FnOnce(&mut Packer) -> Span) -> Span {
        let mut packer = Packer::onto(std::mem::take(&mut self.wit.texts));
        let span = push(&mut packer);
        self.wit.texts = packer.into_bytes();
        span
    }
}

/// The place of what was added last.
fn place(len: usize) -> u32 {
    u32::try_from(len - 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn change<'a>(key: &'a [String], image: Option<&'a str>) -> FollowChange<'a> {
        FollowChange {
            table: 0,
            action: FollowAction::Replace,
            key,
            image,
            unchanged: &[],
            previous_key: None,
            before: None,
            transaction: None,
            position: None,
        }
    }

    fn text(portion: &Portion, span: Span) -> &str {
        let from = span.offset as usize;
        std::str::from_utf8(&portion.wit().texts[from..from + span.length as usize]).unwrap()
    }

    #[test]
    fn keys_are_canonical() {
        let mut portion = Portion::new("s", None);
        for key in [&["a/b%"][..], &["a/b", "50%"], &["", "x"]] {
            let key: Vec<String> = key.iter().map(|&part| part.to_owned()).collect();
            portion.change(&change(&key, None));
        }
        let keys: Vec<&str> = portion.wit().changes.iter().map(|change| text(&portion, change.key)).collect();
        assert_eq!(keys, ["a/b%", "a%2Fb/50%25", "/x"]);
    }

    #[test]
    fn what_few_changes_have_stands_aside() {
        let mut portion = Portion::new("s", Some(""));
        assert_eq!(portion.after(), None);
        let transaction = portion.transaction("7", Some(5));
        let (key, previous) = (["2".to_owned()], ["1".to_owned()]);
        portion.change(&change(&key, Some("{}")));
        portion.change(&FollowChange {
            unchanged: &[3],
            previous_key: Some(&previous),
            transaction: Some(transaction),
            position: Some("0/1"),
            ..change(&key, Some("{}"))
        });
        assert!(portion.wit().changes[0].detail.is_none());
        let last = &portion.wit().changes[1];
        let detail = &portion.wit().details[last.detail.unwrap() as usize];
        assert_eq!(detail.unchanged, [3]);
        assert_eq!(text(&portion, detail.previous_key.unwrap()), "1");
        assert_eq!(text(&portion, last.position.unwrap()), "0/1");
        let transaction = &portion.wit().transactions[last.transaction.unwrap() as usize];
        assert_eq!((text(&portion, transaction.name), transaction.committed_at), ("7", Some(5)));
        assert_eq!(text(&portion, last.image.unwrap()), "{}");
    }
}
