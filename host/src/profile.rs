//! What a command spends its time on, as a trace that browsers show (`chrome://tracing`, <https://ui.perfetto.dev>) and
//! as a table.
//!
//! Spans come by `tracing` from whatever is linked in: operations, layers, networks, steps. A plugin library has a copy
//! of `tracing` of its own, in a process of its own; of its work only loading and running as wholes are seen here.

use crate::fsx;
use atelier_sdk::{Result, ResultExt};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The target of spans that belong to a profile; operations have the same (`atelier_ops::PROFILE`).
pub const TARGET: &str = "atelier::profile";

/// Rows of the table.
const ROWS: usize = 20;

/// A span that is over. Times are nanoseconds since the profile began.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// What was done.
    pub name: &'static str,
    /// On which thread.
    pub thread: u64,
    /// From when on.
    pub begin: u64,
    /// Until when.
    pub end: u64,
    /// Shapes and the like.
    pub fields: Map<String, Value>,
}

impl Span {
    fn length(&self) -> u64 {
        self.end.saturating_sub(self.begin)
    }
}

/// Keeps the spans of a profile. Copies keep them together.
#[derive(Debug, Clone)]
pub struct Recorder {
    origin: Instant,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Recorder {
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What is known of a span while it lasts.
struct Open {
    thread: u64,
    begin: u64,
    fields: Map<String, Value>,
}

impl<S> Layer<S> for Recorder
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields(Map::new());
        attributes.record(&mut fields);
        // Last, so that what it takes to get here is not part of the span.
        span.extensions_mut().insert(Open { thread: thread(), begin: self.now(), fields: fields.0 });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let end = self.now();
        let Some(span) = context.span(&id) else { return };
        let open = span.extensions_mut().remove::<Open>();
        let Some(Open { thread, begin, fields }) = open else { return };
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.push(Span { name: span.name(), thread, begin, end, fields });
    }
}

/// A number for this thread.
fn thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// The fields of a span as JSON.
struct Fields(Map<String, Value>);

impl Fields {
    fn insert(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().into(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.insert(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }
}

/// A profile of a command, and the file it goes to.
#[derive(Debug)]
pub struct Profile {
    path: PathBuf,
    recorder: Recorder,
}

impl Profile {
    /// Begins now.
    pub fn new(path: &Path) -> Self {
        let recorder = Recorder { origin: Instant::now(), spans: Arc::default() };
        Self { path: path.into(), recorder }
    }

    /// What keeps its spans.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Looks whether its file can be written, before anything takes long.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(&self) -> Result<()> {
        fsx::folder_for(&self.path)
    }

    /// Writes the trace, and gives the table of what took longest.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self) -> Result<String> {
        let spans = self.recorder.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let text = serde_json::to_string(&trace(&spans)).internal("a trace that is not JSON")?;
        fsx::write_atomic(&self.path, text.as_bytes())?;
        Ok(format!("{}profile: {}", table(&spans), self.path.display()))
    }
}

/// In the format of Chrome's trace viewer: complete events, times in microseconds.
fn trace(spans: &[Span]) -> Value {
    let micros = |nanos: u64| nanos as f64 / 1000.0;
    let event = |span: &Span| {
        json!({
            "name": span.name, "cat": "atelier", "ph": "X", "pid": 1, "tid": span.thread,
            "ts": micros(span.begin), "dur": micros(span.length()), "args": span.fields,
        })
    };
    let process = json!({"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "atelier"}});
    let events: Vec<Value> = std::iter::once(process).chain(spans.iter().map(event)).collect();
    json!({"traceEvents": events, "displayTimeUnit": "ms"})
}

/// Spans of one name.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Share {
    count: u64,
    /// Time that no span inside of them had, in nanoseconds.
    own: u64,
}

/// Each name's share of the time. On one thread a span belongs to the shortest one around it.
fn shares(spans: &[Span]) -> HashMap<&'static str, Share> {
    let mut order: Vec<&Span> = spans.iter().collect();
    order.sort_by_key(|span| (span.thread, span.begin, Reverse(span.end)));
    let mut found: HashMap<&'static str, Share> = HashMap::new();
    let mut close = |(span, inside): (&Span, u64)| {
        let share = found.entry(span.name).or_default();
        share.count += 1;
        share.own += span.length().saturating_sub(inside);
    };
    let mut around: Vec<(&Span, u64)> = Vec::new();
    for span in order {
        let is_over = |outer: &Span| outer.thread != span.thread || outer.end <= span.begin;
        while let Some(outer) = around.pop_if(|(outer, _)| is_over(outer)) {
            close(outer);
        }
        if let Some((_, inside)) = around.last_mut() {
            *inside += span.length();
        }
        around.push((span, 0));
    }
    around.into_iter().for_each(close);
    found
}

fn table(spans: &[Span]) -> String {
    let mut shares: Vec<_> = shares(spans).into_iter().collect();
    shares.sort_by_key(|(name, share)| (Reverse(share.own), *name));
    let all = shares.iter().map(|(_, share)| share.own).sum::<u64>().max(1) as f64;
    let mut text = format!("{:>12} {:>7} {:>8} {:>12}  span\n", "own time", "share", "calls", "each");
    for (name, share) in shares.iter().take(ROWS) {
        let seconds = share.own as f64 / 1e9;
        let each = 1000.0 * seconds / share.count.max(1) as f64;
        let percent = 100.0 * share.own as f64 / all;
        // Writing to a text does not fail.
        let _ =
            writeln!(text, "{seconds:>10.3} s {percent:>5.1} % {:>8} {each:>9.3} ms  {name}", share.count);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    fn span(name: &'static str, thread: u64, begin: u64, end: u64) -> Span {
        Span { name, thread, begin, end, fields: Map::new() }
    }

    #[test]
    fn time_belongs_to_the_innermost_span() {
        // In the order in which spans end.
        let spans = [
            span("conv", 1, 10, 30),
            span("conv", 1, 30, 40),
            span("layer", 1, 5, 45),
            span("conv", 2, 20, 25),
            span("run", 1, 0, 100),
        ];
        let found = shares(&spans);
        assert_eq!(found["run"], Share { count: 1, own: 60 });
        assert_eq!(found["layer"], Share { count: 1, own: 10 });
        assert_eq!(found["conv"], Share { count: 3, own: 35 });
        let text = table(&spans);
        assert!(text.lines().nth(1).is_some_and(|line| line.ends_with("run")), "{text}");
    }

    #[test]
    fn spans_of_the_target_are_kept_with_their_fields() {
        let profile = Profile::new(Path::new("unused"));
        let subscriber = tracing_subscriber::registry().with(profile.recorder());
        tracing::subscriber::with_default(subscriber, || {
            let outer = tracing::trace_span!(target: TARGET, "outer", shape = ?[2, 3], n = 4usize);
            drop(tracing::trace_span!(target: TARGET, "inner"));
            drop(outer);
        });
        let spans = profile.recorder.spans.lock().unwrap();
        let [inner, outer] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!((inner.name, outer.name), ("inner", "outer"));
        assert!(outer.begin <= inner.begin && inner.end <= outer.end, "{spans:?}");
        assert_eq!(Value::Object(outer.fields.clone()), json!({"shape": "[2, 3]", "n": 4}));
        let trace = trace(&spans);
        assert_eq!(trace["traceEvents"][2]["ph"], "X");
        assert_eq!(trace["traceEvents"][2]["args"]["n"], 4);
    }
}
