//! Model descriptions: `configs/models/<key>.yaml`.

use crate::config::check_version;
use crate::{fsx, yaml};
use atelier_sdk::model::ModelItem;
use atelier_sdk::{Error, ErrorKind, ModelSpec, Result, ResultExt};
use std::path::Path;

/// The newest version of the format that is understood.
pub const SCHEMA_VERSION: u64 = 1;

/// Reads a model description; its paths become absolute or relative to the working directory.
///
/// # Errors
/// Not a description, or one of a newer version.
pub fn read(file: &Path) -> Result<ModelItem> {
    let parse = || -> Result<ModelSpec> {
        let value = yaml::parse(&fsx::read_text("model description", file)?)?;
        check_version("model", &value, SCHEMA_VERSION)?;
        let stray =
            value.as_object().into_iter().flatten().find(|(k, _)| !ModelSpec::FIELDS.contains(&k.as_str()));
        if let Some((field, _)) = stray {
            return Err(Error::invalid(format!("unknown field `{field}`"))
                .hint(format!("there are: {}", ModelSpec::FIELDS.join(", "))));
        }
        let spec: ModelSpec = serde_json::from_value(value)
            .kind(ErrorKind::InvalidRequest, || "not a valid model description".into())?;
        atelier_sdk::key::check("model", &spec.key)?;
        Ok(spec)
    };
    let mut spec = parse().map_err(|e| e.context(format!("in {}", file.display())))?;
    if let (Some(path), Some(folder)) = (&spec.path, file.parent()) {
        spec.path = Some(folder.join(path));
    }
    if let Some(folder) = file.parent() {
        spec.parts.values_mut().for_each(|path| *path = folder.join(&*path));
    }
    Ok(ModelItem { spec, origin: file.display().to_string() })
}
