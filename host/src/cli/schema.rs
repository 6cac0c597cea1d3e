//! `atelier schema`.

use super::args::Schema;
use super::{Studio, say_json};
use crate::schema;
use atelier_sdk::Result;

/// Runs the command.
pub fn run(args: &Schema, studio: &Studio) -> Result<()> {
    let r = &studio.registries;
    let value = match args.engine.as_str() {
        "sampler" => r.sampler(&args.task)?.about.options_schema.clone(),
        "schedule" => r.schedule(&args.task)?.about.options_schema.clone(),
        engine => schema::of(r.engine_task(engine, &args.task)?.1, r),
    };
    say_json(&value)
}
