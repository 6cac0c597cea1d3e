//! The dataset workshop: from a raw fashion data set to a training set that can be trusted.
//!
//! ```text
//! definition (YAML) ─┐
//! records ──▶ Table ─┼─▶ filter ─▶ rows ─▶ photos, measured ─┬─▶ analyze: report, figures
//! images  ──▶ Found ─┘                                       └─▶ prepare: split, captions, squares ─▶ check
//! ```

mod analyze;
mod captions;
mod check;
mod definition;
mod demo;
mod draw_lots;
mod engine;
mod figures;
mod filter;
mod images;
mod issue;
mod params;
mod photos;
mod prepare;
mod records;
mod source;
mod split;
mod stats;

atelier_sdk::export_plugin! {
    task &params::ANALYZE;
    task &params::PREPARE;
    task &params::CHECK;
    task &params::DEMO;
    engine engine::ENGINE;
}
