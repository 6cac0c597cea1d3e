//! The side of the conversation that has the plugin: a process of its own, or a thread.

use super::conn::{Conn, Object, Pipes, unexpected};
use super::frame::{Frame, Tag};
use super::parts::{self, Make};
use super::{engines, log, open, stdio};
use atelier_sdk::describe::PluginDescription;
use atelier_sdk::remote::RemoteLibrary;
use atelier_sdk::{Result, ResultExt, guard};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// The program of a worker process: loads the library and serves the host until that is gone.
///
/// # Errors
/// The pipes cannot be set up. Everything else is told to the host.
pub fn main(copy: &Path, sha256: &str) -> Result<()> {
    let (input, output) = stdio::claim()?;
    stdio::end_with_parent();
    let conn = Conn::of_worker(Box::new(Pipes::new(input, output)));
    log::forward_to(conn.clone());
    match open::library(copy, sha256).and_then(|library| Ok((library, hello(&library)?))) {
        Ok((library, hello)) => {
            conn.tell(hello.out());
            serve(&library, &conn);
        }
        Err(e) => conn.tell(Frame::of_error(&e).out()),
    }
    Ok(())
}

/// What a worker process says first.
#[derive(Serialize, Deserialize)]
pub struct Hello {
    /// How the library was built, as JSON.
    pub build_info: String,
    /// What it brings.
    pub description: PluginDescription,
}

fn hello(library: &RemoteLibrary) -> Result<Frame> {
    let hello = Hello { build_info: library.build_info(), description: library.describe()? };
    let json = serde_json::to_string(&hello).internal("a description that is not JSON")?;
    Ok(Frame { json, ..Frame::new(Tag::Ok) })
}

/// Serves a library until the host is gone.
pub fn serve(library: &RemoteLibrary, conn: &Arc<Conn>) {
    conn.serve_all(&mut |frame| guard("the plugin's worker", || answer(library, conn, &frame)));
}

fn answer(library: &RemoteLibrary, conn: &Arc<Conn>, frame: &Frame) -> Result<Frame> {
    match frame.tag {
        Tag::MakeSampler => {
            let make: Make = frame.parse()?;
            Ok(conn.keep(Object::Sampler(library.sampler(&make.key, &make.options)?)))
        }
        Tag::MakeSchedule => {
            let make: Make = frame.parse()?;
            Ok(conn.keep(Object::Schedule(library.schedule(&make.key, &make.options)?)))
        }
        Tag::Sample | Tag::Sigmas => parts::answer(conn, frame, &mut |other| Err(unexpected(other.tag))),
        _ => engines::answer(library, conn, frame),
    }
}
