//! Records: a table of text, from style documents or from one CSV file.

mod cells;
pub mod codes;
pub mod csv;
pub mod derive;
pub mod html;
pub mod json;
mod pieces;
mod short;
pub mod table;
pub mod text;
pub mod texts;

use crate::definition::{Definition, LayoutKind};
use crate::issue::Issue;
use atelier_sdk::Result;
use std::path::Path;
use table::Table;

/// Reads all records of a data set and makes the derived fields.
///
/// # Errors
/// The folder or file cannot be read at all. Single bad records become issues.
pub fn read(definition: &Definition, records: &Path, issues: &mut Vec<Issue>) -> Result<Table> {
    let mut table = match definition.layout.kind {
        LayoutKind::MyntraJson => json::read(records, issues)?,
        LayoutKind::MyntraCsv => csv::read(records, &definition.layout.id, issues)?,
    };
    for (name, rule) in &definition.derive {
        derive::add(&mut table, name, rule);
    }
    Ok(table)
}
