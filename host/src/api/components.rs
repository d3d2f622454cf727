//! Components: uploads, versions, roll-backs.

use cdc_rest::{ComponentName, Problem, Rollback};
use serde::Serialize;

use super::subscriptions::written;
use super::{Api, Outcome, problems};
use crate::components::{ComponentError, Components, Version};

/// A version as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    name: String,
    version: u32,
    world: String,
    size: u64,
    sha256: String,
    uploaded_at: u64,
    imports: Vec<String>,
    exports: Vec<String>,
}

/// A name with its versions.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    #[serde(flatten)]
    current: Shown,
    versions: Vec<Listed>,
    used_by: Vec<String>,
}

/// A version among others.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    version: u32,
    world: String,
    size: u64,
    sha256: String,
    uploaded_at: u64,
    current: bool,
}

fn shown(name: &ComponentName, version: Version) -> Shown {
    Shown {
        name: name.as_str().to_owned(),
        version: version.number,
        world: version.world,
        size: version.size,
        sha256: version.sha256,
        uploaded_at: version.uploaded_ms,
        imports: version.imports,
        exports: version.exports,
    }
}

impl Api {
    async fn with_components<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Components) -> Result<T, ComponentError> + Send + 'static,
    ) -> Result<T, Problem> {
        let components = self.components.clone();
        self.waiting(move || work(&components)).await.map_err(|error| problems::component(&error))
    }

    pub(super) async fn list_components(&self) -> Outcome {
        #[derive(Serialize)]
        struct List {
            components: Vec<Shown>,
            count: usize,
        }
        let components: Vec<Shown> =
            self.components.list().into_iter().map(|(name, version)| shown(&name, version)).collect();
        let count = components.len();
        written(&List { components, count })
    }

    pub(super) async fn show_component(&self, name: ComponentName) -> Outcome {
        let (versions, current) = self.components.versions(&name).map_err(|error| problems::component(&error))?;
        let version = self.components.version(&name, None).map_err(|error| problems::component(&error))?;
        let listed = versions.into_iter().map(|version| Listed {
            current: version.number == current,
            version: version.number,
            world: version.world,
            size: version.size,
            sha256: version.sha256,
            uploaded_at: version.uploaded_ms,
        });
        let used_by = self.subscriptions.users_of(&name).iter().map(|id| id.as_str().to_owned()).collect();
        written(&Named { current: shown(&name, version), versions: listed.collect(), used_by })
    }

    pub(super) async fn show_component_version(&self, name: ComponentName, version: u32) -> Outcome {
        let found = self.components.version(&name, Some(version)).map_err(|error| problems::component(&error))?;
        written(&shown(&name, found))
    }

    pub(super) async fn upload_component(&self, name: ComponentName, bytes: Vec<u8>) -> Outcome {
        #[derive(Serialize)]
        struct Answer {
            #[serde(flatten)]
            version: Shown,
            new: bool,
        }
        let uploaded = {
            let name = name.clone();
            self.with_components(move |components| components.upload(&name, &bytes)).await?
        };
        written(&Answer { version: shown(&name, uploaded.version), new: uploaded.is_new })
    }

    pub(super) async fn roll_back_component(&self, name: ComponentName, body: Vec<u8>) -> Outcome {
        let to = Rollback::parse(&body)?.version;
        let asked = name.clone();
        let version = self.with_components(move |components| components.roll_back(&asked, to)).await?;
        written(&shown(&name, version))
    }

    pub(super) async fn delete_component(&self, name: ComponentName) -> Outcome {
        #[derive(Serialize)]
        struct Deleted {
            deleted: String,
        }
        let users = self.subscriptions.users_of(&name);
        if !users.is_empty() {
            let users: Vec<&str> = users.iter().map(|id| id.as_str()).collect();
            return Err(problems::component_in_use(&name, &users.join(", ")));
        }
        let deleted = name.as_str().to_owned();
        self.with_components(move |components| components.remove(&name)).await?;
        written(&Deleted { deleted })
    }
}
