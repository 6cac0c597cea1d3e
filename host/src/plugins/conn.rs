//! A conversation between host and worker, over pipes.
//!
//! Calls nest: while one side waits for an answer it serves what the other side asks for meanwhile - a sampler in
//! the worker asks the host to denoise, an engine in the worker asks the host for a sampler, which asks the engine
//! to denoise. So one thread on each side is enough, and every call is answered in order.

use super::frame::{self, Frame, Out, Tag};
use atelier_sdk::{Error, ErrorKind, Result, Sampler, Schedule, Session};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// The way to the other side.
pub trait Link: Send + Sync {
    /// Sends a frame.
    ///
    /// # Errors
    /// The other side is gone; the error says why.
    fn send(&self, frame: Out<'_>) -> Result<()>;
    /// Waits for a frame.
    ///
    /// # Errors
    /// The other side is gone or took too long; the error says why.
    fn recv(&self) -> Result<Frame>;
    /// Ends the other side, as far as that can be done.
    fn close(&self) {}
}

/// A lock whose holder may have panicked: what is behind these locks stays whole.
pub fn lock<T: ?Sized>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream each way: the worker's end.
pub struct Pipes<R, W> {
    reader: Mutex<R>,
    writer: Mutex<W>,
}

#[cfg(unix)]
use std::os::fd::AsRawFd as Handle;
#[cfg(not(unix))]
trait Handle {}
#[cfg(not(unix))]
impl<T> Handle for T {}

impl<R: Read + Send, W: Write + Send> Pipes<R, W> {
    /// Over these streams.
    pub fn new(reader: R, writer: W) -> Self {
        Self { reader: Mutex::new(reader), writer: Mutex::new(writer) }
    }
}

impl<R: Read + Send + Handle, W: Write + Send> Link for Pipes<R, W> {
    fn send(&self, frame: Out<'_>) -> Result<()> {
        frame::write(&mut *lock(&self.writer), frame).map_err(|e| gone().because(e))
    }
    fn recv(&self) -> Result<Frame> {
        let mut reader = lock(&self.reader);
        super::soon::readable(&*reader);
        frame::read(&mut *reader).map_err(|e| gone().because(e))
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Internal, "the other side of the plugin boundary is gone")
}

/// What one side keeps for the other.
pub enum Object {
    /// A sampler.
    Sampler(Box<dyn Sampler>),
    /// A schedule.
    Schedule(Box<dyn Schedule>),
    /// An engine with a model loaded.
    Session(Box<dyn Session>),
}

/// A conversation.
pub struct Conn {
    link: Box<dyn Link>,
    turn: Turn,
    objects: Mutex<BTreeMap<u32, Object>>,
    next: AtomicU32,
    /// Whether a worker serves; none on the host's side.
    serving: Option<AtomicBool>,
}

/// How many errors the other side may pass over in one call: in a row, or that it is to stop.
const PATIENCE: u32 = 100;

/// Errors that the other side was given and went on after.
#[derive(Default)]
struct Unheeded {
    in_a_row: u32,
    stops: u32,
}

impl Unheeded {
    /// Counts an answer; gives the end of the patience.
    fn count(&mut self, given: Option<Error>) -> Option<Error> {
        let Some(e) = given else {
            self.in_a_row = 0;
            return None;
        };
        self.in_a_row += 1;
        let stop = e.kind() == ErrorKind::Cancelled;
        self.stops += u32::from(stop);
        if self.in_a_row.max(self.stops) <= PATIENCE {
            return None;
        }
        // Stopping on request is no failure, however the plugin takes it.
        let kind = if stop { ErrorKind::Cancelled } else { ErrorKind::Internal };
        let message = e.message();
        Some(Error::new(
            kind,
            format!("it went on, {PATIENCE} times, after it was given the error: {message}"),
        ))
    }
}

/// Answers what the other side asks for during a call.
pub type Serve<'a> = &'a mut dyn FnMut(Frame) -> Result<Frame>;

impl Conn {
    /// The host's side of a conversation.
    pub fn new(link: Box<dyn Link>) -> Arc<Self> {
        Self::build(link, None)
    }

    /// A worker's side: it asks only while it serves.
    pub fn of_worker(link: Box<dyn Link>) -> Arc<Self> {
        Self::build(link, Some(AtomicBool::new(false)))
    }

    fn build(link: Box<dyn Link>, serving: Option<AtomicBool>) -> Arc<Self> {
        let (turn, objects, next) = (Turn::default(), Mutex::default(), AtomicU32::new(1));
        Arc::new(Self { link, turn, objects, next, serving })
    }

    /// Asks the other side, and serves it until it answers.
    ///
    /// # Errors
    /// The answer, or why there is none. A side that goes on whatever errors it is given is ended.
    pub fn call(&self, request: Out<'_>, serve: Serve<'_>) -> Result<Frame> {
        let _turn = self.turn.take();
        if self.serving.as_ref().is_some_and(|s| !s.load(Ordering::Acquire)) {
            return Err(Error::internal("the plugin asked the host for something after it had answered"));
        }
        let mut unheeded = Unheeded::default();
        self.link.send(request)?;
        loop {
            let frame = self.link.recv()?;
            match frame.tag {
                Tag::Ok => return Ok(frame),
                Tag::Err => return Err(frame.error()),
                // What may be asked for although it is not there.
                Tag::Input => drop(self.serve(frame, serve)?),
                _ => {
                    let given = self.serve(frame, serve)?;
                    if let Some(e) = unheeded.count(given) {
                        self.link.close();
                        return Err(e);
                    }
                }
            }
        }
    }

    /// Asks the other side for something during which it has nothing to ask.
    ///
    /// # Errors
    /// As for [`Self::call`].
    pub fn ask(&self, request: Out<'_>) -> Result<Frame> {
        self.call(request, &mut |frame| Err(unexpected(frame.tag)))
    }

    /// Tells the other side something that has no answer.
    pub fn tell(&self, frame: Out<'_>) {
        // A side that is gone needs to be told nothing.
        let _ = self.link.send(frame);
    }

    /// Serves the other side until it is gone.
    pub fn serve_all(&self, serve: Serve<'_>) {
        while let Ok(frame) = self.link.recv() {
            self.set_serving(true);
            let (reply, _) = self.reply(frame, serve);
            // A thread of the plugin that is still asking is served first, and one that comes later is refused.
            let _turn = self.turn.take();
            self.set_serving(false);
            if reply.is_some_and(|reply| self.link.send(reply.out()).is_err()) {
                return;
            }
        }
    }

    fn set_serving(&self, on: bool) {
        if let Some(serving) = &self.serving {
            serving.store(on, Ordering::Release);
        }
    }

    /// Gives the error with which the other side was answered, if it was one.
    fn serve(&self, frame: Frame, serve: Serve<'_>) -> Result<Option<Error>> {
        let (reply, error) = self.reply(frame, serve);
        reply.map_or(Ok(()), |reply| self.link.send(reply.out()))?;
        Ok(error)
    }

    /// The answer to a frame, if it has one, and the error that it is.
    fn reply(&self, frame: Frame, serve: Serve<'_>) -> (Option<Frame>, Option<Error>) {
        match frame.tag {
            Tag::Drop => {
                let object = lock(&self.objects).remove(&frame.object);
                // Outside the lock: this runs plugin code.
                drop(object);
                (None, None)
            }
            _ => match serve(frame) {
                Ok(reply) => (Some(reply), None),
                Err(e) => (Some(Frame::of_error(&e)), Some(e)),
            },
        }
    }

    /// Keeps an object for the other side: the answer that names it.
    pub fn keep(&self, object: Object) -> Frame {
        // Not the next free one: an object in use is not in the table.
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.objects).insert(id, object);
        Frame { object: id, ..Frame::new(Tag::Ok) }
    }

    /// Uses an object that the other side names. It is not there meanwhile: no object is in two calls at once.
    ///
    /// # Errors
    /// There is none, or what `f` gives.
    pub fn with<R>(&self, id: u32, f: impl FnOnce(&mut Object) -> Result<R>) -> Result<R> {
        let taken = lock(&self.objects).remove(&id);
        let mut object =
            taken.ok_or_else(|| Error::internal(format!("there is no object {id}, or it is in use")))?;
        let result = f(&mut object);
        lock(&self.objects).insert(id, object);
        result
    }
}

/// The error for a frame that does not belong here.
pub fn unexpected(tag: Tag) -> Error {
    Error::internal(format!("{tag:?} was asked for at a wrong time"))
}

/// A lock that the thread which has it may take again. A plugin may call from several threads; each has its turn.
#[derive(Default)]
struct Turn {
    owner: Mutex<Option<(ThreadId, u32)>>,
    free: Condvar,
}

struct Taken<'a>(&'a Turn);

impl Turn {
    fn take(&self) -> Taken<'_> {
        let me = thread::current().id();
        let mut owner = lock(&self.owner);
        loop {
            match *owner {
                Some((other, _)) if other != me => {
                    owner = self.free.wait(owner).unwrap_or_else(PoisonError::into_inner);
                }
                mine => {
                    *owner = Some((me, mine.map_or(0, |(_, depth)| depth) + 1));
                    return Taken(self);
                }
            }
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut owner = lock(&self.0.owner);
        *owner = owner.and_then(|(me, depth)| (depth > 1).then_some((me, depth - 1)));
        self.0.free.notify_one();
    }
}
