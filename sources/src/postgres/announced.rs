//! Relations as the log announced them: how their rows look, and under which names they are told.
//!
//! The log announces a relation before the first row of it, and again when it has changed. Not so where the rows of
//! partitions are told as their root's: the server remembers for each partition that it has announced the root, and a
//! root that gets another name or schema changes none of its partitions (PostgreSQL 14 to 18). So names are the
//! catalog's as soon as somebody has looked there.

use std::collections::HashMap;
use std::sync::Arc;

use super::catalog::Present;
use super::checkpoint::ReadState;
use super::decode::Decoder;
use super::definition::digest_of;
use super::pgoutput::{Relation, RelationColumn};
use super::shape::Shape;
use super::wire::WireError;
use crate::feed::{FeedError, Reason, Remedy};

/// A relation, as the log announced it last but for its names.
pub(super) struct Announced {
    oid: u32,
    namespace: String,
    name: String,
    identity: u8,
    columns: Vec<AnnouncedColumn>,
    /// None: it is to be found out, because its names are others than before.
    followed: Option<Followed>,
}

struct AnnouncedColumn {
    identity: bool,
    name: String,
    type_oid: u32,
    type_modifier: i32,
}

enum Followed {
    Captured {
        shape: Arc<Shape>,
        /// What the log told of its columns, to compare with definitions.
        columns: u64,
        /// Whether its table was compared with it.
        is_checked: bool,
    },
    /// It is not captured: the rules leave it out, or it has no key.
    Passed,
}

impl Announced {
    fn new(relation: &Relation<'_>) -> Announced {
        let column = |column: &RelationColumn<'_>| AnnouncedColumn {
            identity: column.identity,
            name: column.name.to_owned(),
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
        };
        Announced {
            oid: relation.oid,
            namespace: relation.namespace.to_owned(),
            name: relation.name.to_owned(),
            identity: relation.identity,
            columns: relation.columns.iter().map(column).collect(),
            followed: None,
        }
    }

    fn relation<'a>(&'a self) -> Relation<'a> {
        let column = |column: &'a AnnouncedColumn| RelationColumn {
            identity: column.identity,
            name: column.name.as_str(),
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
        };
        Relation {
            oid: self.oid,
            namespace: &self.namespace,
            name: &self.name,
            identity: self.identity,
            columns: self.columns.iter().map(column).collect(),
        }
    }
}

impl Decoder {
    /// The log announces how rows of a relation look from here on. What that means for its table is found out when the
    /// first of them is handed out, because what is skipped may be older than what is known.
    pub(super) fn relation(&mut self, relation: &Relation<'_>) -> Result<(), FeedError> {
        let followed = self.followed(relation)?;
        self.relations.insert(relation.oid, Announced { followed: Some(followed), ..Announced::new(relation) });
        Ok(())
    }

    fn followed(&mut self, relation: &Relation<'_>) -> Result<Followed, FeedError> {
        let doing = |error: WireError| error.into_feed("look up columns");
        let is_captured = self.catalog.captures(relation.namespace, relation.name);
        let shape = match is_captured {
            true => self.catalog.shape_in_log(relation).map_err(doing)?,
            false => Err(Reason::new("excluded", "the rules exclude it")),
        };
        Ok(match shape {
            Ok(shape) => Followed::Captured { shape: Arc::new(shape), columns: digest_of(relation), is_checked: false },
            Err(reason) => {
                if is_captured {
                    self.refuse(relation.oid, relation.namespace, relation.name, reason);
                }
                Followed::Passed
            }
        })
    }

    /// The catalog says how relations are called, where the log has reached what it said.
    pub(super) fn name_relations(&mut self, present: &HashMap<u32, Present>) {
        for (oid, now) in present {
            self.name_relation(*oid, &now.namespace, &now.relation);
        }
    }

    /// A relation has this name from here on.
    pub(super) fn name_relation(&mut self, oid: u32, namespace: &str, name: &str) {
        if let Some(announced) = self.relations.get_mut(&oid)
            && (announced.namespace.as_str(), announced.name.as_str()) != (namespace, name)
        {
            (announced.namespace, announced.name) = (namespace.to_owned(), name.to_owned());
            announced.followed = None;
        }
    }

    /// How rows of a relation look; None if they are not handed out.
    pub(super) fn captured(&mut self, relation: u32) -> Result<Option<Arc<Shape>>, FeedError> {
        let is_skipped = self.is_skipping();
        if self.relations.get(&relation).is_some_and(|announced| announced.followed.is_none())
            && let Some(announced) = self.relations.remove(&relation)
        {
            let followed = Some(self.followed(&announced.relation())?);
            self.relations.insert(relation, Announced { followed, ..announced });
        }
        match self.relations.get_mut(&relation).and_then(|announced| announced.followed.as_mut()) {
            Some(Followed::Captured { shape, columns, is_checked }) => {
                let shape = shape.clone();
                if !is_skipped && !std::mem::replace(is_checked, true) {
                    let columns = *columns;
                    self.check(relation, &shape, columns)?;
                }
                let is_stopped = self.tables.get(&relation).is_some_and(|mark| mark.state == ReadState::Stopped);
                Ok((!is_stopped).then_some(shape))
            }
            Some(Followed::Passed) => Ok(None),
            None => Err(FeedError {
                remedy: Remedy::Retry,
                code: "protocol",
                message: format!("the log told of a row of relation {relation}, which it had not described"),
                source: None,
            }),
        }
    }
}
