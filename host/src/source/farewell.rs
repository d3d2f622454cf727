//! `cdc source drop`: a source is given up. What it has left in its database goes, and how far it was read is forgotten.
//! What was captured stays.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use cdc_rest::SourceName;
use cdc_sources::FeedError;

use super::audit::Audit;
use super::feeds::Opener;
use super::kept::Kept;
use super::spec::SourceSpec;
use crate::store::{Batch, EmbeddedOptions, EmbeddedStore, OpenError, Retention, Store, StoreError};

/// A source that is to go.
#[derive(Debug)]
pub struct Farewell {
    /// Its name.
    pub name: SourceName,
    /// Its database; none if it is not configured any more and nobody said where it is.
    pub spec: Option<SourceSpec>,
    /// The data folder.
    pub data: PathBuf,
    /// Whether the database is left as it is.
    pub only_here: bool,
}

/// Why a source could not be given up. What was not done can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum FarewellError {
    /// The data folder cannot be used.
    #[error("{0}; a service that runs on the folder has to be stopped first")]
    Open(#[from] OpenError),
    /// Nobody knows such a source.
    #[error("there is no source {name}, neither in the configuration nor in {}", data.display())]
    Unknown {
        /// The name.
        name: SourceName,
        /// Where it was looked for.
        data: PathBuf,
    },
    /// Nobody said where its database is.
    #[error(
        "source {name} is not configured any more; say where its database is with --source URL (it was {url}), or leave \
         that as it is with --only-here"
    )]
    Unconfigured {
        /// The name.
        name: SourceName,
        /// Where it was, without a password.
        url: String,
    },
    /// The database did not do it.
    #[error("the database still keeps what the source left there: {0}; --only-here leaves it so")]
    Database(#[from] FeedError),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Farewell {
    /// Does it, and answers with what was done, for a person.
    pub async fn say(self) -> Result<String, FarewellError> {
        let Self { name, spec, data, only_here } = self;
        let mut options = EmbeddedOptions::new(&data);
        // Nothing is to be dropped for having been opened here.
        options.retention = Retention::unlimited();
        let store = blocking(move || EmbeddedStore::open(options)).await?;
        let (kept, position) = {
            let view = store.view()?;
            (Kept::read(&*view, name.as_str())?, view.position(name.as_str()).filter(|position| !position.is_empty()))
        };
        if spec.is_none() && kept.is_none() && position.is_none() {
            return Err(FarewellError::Unknown { name, data });
        }
        let mut said = String::new();
        if !only_here {
            let Some(mut spec) = spec else {
                let url = kept.map_or_else(String::new, |kept| kept.url);
                return Err(FarewellError::Unconfigured { name, url });
            };
            // An address on the command line brings no names along.
            if let Some(kept) = kept {
                spec.slot = spec.slot.or(kept.slot);
                spec.publication = spec.publication.or(kept.publication);
            }
            let opener = Opener::new(&spec, &data);
            let left = opener.leave().await?;
            said.push_str(&format!("{}: nothing is kept for source {name} any more\n", spec.url));
            if let Some(publication) = left {
                said.push_str(&format!(
                    "{}: the publication {publication} is left, because the source did not make it\n",
                    spec.url
                ));
            }
        }
        let batch = Batch {
            timestamp_ms: store.head().timestamp_ms,
            // An empty position is none.
            positions: vec![(name.as_str().to_owned(), String::new())],
            documents: vec![Kept::removal(name.as_str()), Audit::removal(name.as_str())],
            ..Batch::default()
        };
        blocking(move || {
            let (tell, told) = mpsc::channel();
            store.append(Arc::new(batch), Box::new(move |outcome| drop(tell.send(outcome))))?;
            told.recv().unwrap_or_else(|_| Err(StoreError::Failed("the store gave no answer".into())))?;
            store.close()
        })
        .await?;
        said.push_str(&format!(
            "{}: how far source {name} was read is forgotten; its events and rows stay\n",
            data.display()
        ));
        Ok(said)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
