//! A web server for the tests of `models pull`, whose answers each test writes, and a hub made of it.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    /// Where the range begins that is asked for.
    pub fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Ends the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Says nothing more after so many bytes of the body.
    pub stall: Option<usize>,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub fn redirect(to: impl ToString) -> Self {
        Self::new(302).with("location", to)
    }

    /// All of `content`, or the range that is asked for.
    pub fn content(request: &Request, content: &[u8]) -> Self {
        match request.from() {
            Some(from) if from >= content.len() => {
                Self::new(416).with("content-range", format!("bytes */{}", content.len()))
            }
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
                Self { body: content[from..].to_vec(), ..Self::new(206).with("content-range", range) }
            }
            None => Self { body: content.to_vec(), ..Self::new(200) },
        }
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server on a port of its own, until the test process ends.
pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (handler, log): (Arc<Handler>, _) = (Arc::new(handler), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, log) = (handler.clone(), log.clone());
                // A client that goes away is no failure of the server.
                std::thread::spawn(move || while serve(&stream, &*handler, &log).is_some() {});
            }
        });
        Self { url, requests }
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The requests for content.
    pub fn gets(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|r| r.method == "GET").collect()
    }
}

fn serve(stream: &TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) -> Option<()> {
    let request = read(stream)?;
    log.lock().unwrap().push(request.clone());
    let reply = handler(&request);
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    if !reply.headers.iter().any(|(n, _)| n == "content-length" || n == "transfer-encoding") {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut out = stream;
    out.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if request.method == "HEAD" {
        return Some(());
    }
    let end = reply.cut.or(reply.stall).unwrap_or(reply.body.len());
    out.write_all(&reply.body[..end]).ok()?;
    if reply.stall.is_some() {
        std::thread::sleep(Duration::from_secs(30));
    }
    if reply.cut.is_some() || reply.stall.is_some() {
        let _ = stream.shutdown(std::net::Shutdown::Both);
        return None;
    }
    Some(())
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.into(), words.next()?.into());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_lowercase(), value.trim().into());
    }
    Some(Request { method, path, headers })
}

/// The commit that the hub of the tests is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// What a hub says of a large file that stands elsewhere.
pub fn linked(content: &[u8], elsewhere: &str) -> Reply {
    Reply::redirect(elsewhere)
        .with("x-repo-commit", COMMIT)
        .with("x-linked-etag", format!("\"{}\"", sha256(content)))
        .with("x-linked-size", content.len())
}

/// A hub with these files, in any repository and revision, all given out by itself.
pub fn hub(files: BTreeMap<String, Vec<u8>>) -> Server {
    Server::start(move |request| {
        let name = request.path.split("/resolve/").nth(1).and_then(|p| p.split_once('/'));
        match name.and_then(|(_, name)| files.get(name)) {
            // Small files have git's digest.
            Some(content) => Reply::content(request, content)
                .with("x-repo-commit", COMMIT)
                .with("etag", format!("\"{}\"", &sha256(content)[..40])),
            None => Reply::new(404).with("x-error-code", "EntryNotFound"),
        }
    })
}
