//! A module's manifest: what its author says about it. The loader needs the schema of its configuration.

use serde::Deserialize;
use serde_json::Value;

use crate::schema::Checker;

/// Largest manifest, in bytes. One that is written by hand has a few thousand.
const LARGEST: usize = 1 << 20;

/// The part of a manifest that the loader uses. Other keys are for other readers.
#[derive(Deserialize)]
struct Manifest {
    schema: Option<Value>,
}

/// The schema of a module's configuration, compiled; `None` if the manifest has none.
///
/// # Errors
/// What is wrong with the manifest, as the end of a sentence that says whose it is.
pub(crate) fn configuration_schema(manifest: &[u8]) -> Result<Option<Checker>, String> {
    if manifest.len() > LARGEST {
        return Err(format!("its manifest is larger than {LARGEST} bytes"));
    }
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|error| format!("its manifest is broken: {error}"))?;
    let Some(schema) = manifest.schema else { return Ok(None) };
    Checker::new(schema).map(Some).map_err(|error| format!("the schema in its manifest {error}"))
}
