//! Requests, with redirects followed by rules: the token stays with the host it is for, and a connection that was
//! encrypted stays so.

use super::env::{Env, Token};
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, header};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};
use url::Url;

const MAX_REDIRECTS: usize = 10;
const CONNECT: Duration = Duration::from_secs(30);
/// Longest silence.
const SILENCE: Duration = Duration::from_secs(60);

/// What went wrong, and whether to try again.
#[derive(Debug)]
pub enum Failure {
    /// It may go better next time, after this long if the server says so.
    Passing(Error, Option<Duration>),
    /// It will not.
    Lasting(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Lasting(e)
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask<'a> {
    /// The headers of the hub's own answer, before it sends one elsewhere.
    Head,
    /// The content, from this byte on.
    From(u64),
    /// A page in one of these formats.
    Page(&'a str),
}

/// An answer that is not an error.
pub struct Answer {
    /// 200, 206 or 416; for [`Ask::Head`] also a redirect.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Where it came from in the end.
    pub url: Url,
    body: Body,
}

impl Answer {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A header's number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.trim().parse().ok()
    }

    /// The content.
    pub fn into_reader(self) -> impl Read {
        self.body.into_with_config().limit(u64::MAX).reader()
    }

    /// A page of at most `limit` bytes.
    ///
    /// # Errors
    /// Longer, cut off, or not text.
    pub fn text(self, limit: u64) -> Result<String> {
        let url = self.url.clone();
        self.body
            .into_with_config()
            .limit(limit)
            .read_to_string()
            .kind(ErrorKind::Environment, || format!("cannot read the answer of {}", shown(&url)))
    }
}

/// Speaks HTTP.
pub struct Client {
    agent: Agent,
    endpoint: Url,
    token: Option<Token>,
}

impl Client {
    /// A client for the places of `env`.
    pub fn new(env: &Env) -> Self {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("atelier/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), endpoint: env.endpoint.clone(), token: env.token.clone() }
    }

    /// Asks, and follows redirects.
    ///
    /// # Errors
    /// No connection, a redirect that is not followed, a status that is an error.
    pub fn ask(&self, url: &Url, ask: Ask<'_>) -> Result<Answer, Failure> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(&url, ask)?;
            let status = response.status().as_u16();
            let next = match status {
                301 | 302 | 303 | 307 | 308 => Some(redirect(&url, response.headers())?),
                _ => None,
            };
            match next {
                // What the hub says of a file stands in its own answer, not in that of the store behind it.
                Some(next) if ask != Ask::Head || same_origin(&url, &next) => url = next,
                _ => return self.judge(url, response),
            }
        }
        Err(Failure::Lasting(
            Error::new(ErrorKind::Environment, format!("{} redirects without end", shown(&url)))
                .hint(format!("after {MAX_REDIRECTS} redirects in a row it is given up")),
        ))
    }

    fn once(&self, url: &Url, ask: Ask<'_>) -> Result<Response<Body>, Failure> {
        let mut bare = url.clone();
        // Neither fails for an address with a host.
        let _ = (bare.set_username(""), bare.set_password(None));
        bare.set_fragment(None);
        let mut request = match ask {
            Ask::Head => self.agent.head(bare.as_str()),
            _ => self.agent.get(bare.as_str()),
        };
        request = request.header(header::ACCEPT_ENCODING, "identity");
        match ask {
            Ask::From(n) if n > 0 => request = request.header(header::RANGE, format!("bytes={n}-")),
            Ask::Page(formats) => request = request.header(header::ACCEPT, formats),
            _ => {}
        }
        if let Some(value) = self.authorization(url)? {
            request = request.header(header::AUTHORIZATION, value);
        }
        request.call().map_err(|e| {
            let text = format!("cannot reach {}", shown(url));
            Failure::Passing(Error::new(ErrorKind::Environment, text).because(e), None)
        })
    }

    /// The token for the hub itself, or what the address itself says.
    fn authorization(&self, url: &Url) -> Result<Option<String>> {
        if !url.username().is_empty() {
            return Ok(Some(basic(url)));
        }
        let Some(Token(token)) = self.token.as_ref().filter(|_| same_origin(url, &self.endpoint)) else {
            return Ok(None);
        };
        if url.scheme() != "https" && !is_loopback(url) {
            return Err(Error::invalid(format!("the token is not sent to {} unencrypted", shown(url)))
                .hint("give HF_ENDPOINT an https address, or unset HF_TOKEN"));
        }
        Ok(Some(format!("Bearer {token}")))
    }

    fn judge(&self, url: Url, response: Response<Body>) -> Result<Answer, Failure> {
        let status = response.status().as_u16();
        let (parts, body) = response.into_parts();
        if matches!(status, 200 | 206 | 416 | 301 | 302 | 303 | 307 | 308) {
            return Ok(Answer { status, headers: parts.headers, url, body });
        }
        let code = parts.headers.get("x-error-code").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let after = parts.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        Err(self.refused(status, code, &url, after.map(Duration::from_secs)))
    }

    fn refused(&self, status: u16, code: &str, url: &Url, after: Option<Duration>) -> Failure {
        let place = shown(url);
        let is_hub = same_origin(url, &self.endpoint);
        let (kind, text, hint) = match status {
            401 if is_hub && self.token.is_none() => (
                ErrorKind::Environment,
                format!("{place} wants a token (401)"),
                "set HF_TOKEN, or log in with `hf auth login`; the hub also says this of repositories that do not exist",
            ),
            401 => {
                (ErrorKind::Environment, format!("{place} does not accept the token (401)"), "check HF_TOKEN")
            }
            403 => (
                ErrorKind::Environment,
                format!("{place} does not let you have this (403)"),
                "if the repository asks for it, accept its conditions on its page, with the account of HF_TOKEN",
            ),
            404 if code == "RevisionNotFound" => {
                (ErrorKind::NotFound, format!("{place}: there is no such revision (404)"), "check `revision`")
            }
            404 | 410 => (
                ErrorKind::NotFound,
                format!("{place}: there is no such file ({status})"),
                "check the repository, revision and file in the description",
            ),
            429 => (
                ErrorKind::Environment,
                format!("{place} asks to wait: too many requests (429)"),
                "try again later; with HF_TOKEN the hub allows more",
            ),
            408 | 500..=599 => {
                (ErrorKind::Environment, format!("{place} has a failure ({status})"), "try again later")
            }
            _ => (
                ErrorKind::Environment,
                format!("{place} answers with status {status}"),
                "is the address right?",
            ),
        };
        let e = Error::new(kind, text).hint(hint);
        if matches!(status, 408 | 429 | 500..=599) { Failure::Passing(e, after) } else { Failure::Lasting(e) }
    }
}

/// Where a redirect leads, if it may be followed.
fn redirect(from: &Url, headers: &HeaderMap) -> Result<Url> {
    let say = |why: &str| Error::new(ErrorKind::Environment, format!("{} redirects {why}", shown(from)));
    let location = headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
    let location = location.ok_or_else(|| say("without saying where"))?;
    let next = from.join(location).map_err(|e| say("to something that is no address").because(e))?;
    match (from.scheme(), next.scheme()) {
        ("https", "http") => Err(say(&format!("to {}, which is not encrypted", shown(&next)))
            .hint("this is not followed: anybody between could change the file")),
        (_, "http" | "https") => Ok(next),
        (_, other) => Err(say(&format!("to an address of kind `{other}`"))),
    }
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// An address for people: no query, which may carry a signature, and no password.
pub fn shown(url: &Url) -> String {
    let mut plain = url.clone();
    let _ = (plain.set_username(""), plain.set_password(None));
    plain.set_query(None);
    plain.set_fragment(None);
    plain.into()
}

/// Name and password of an address, as RFC 7617 has it.
fn basic(url: &Url) -> String {
    let plain = |text: &str| percent_decoded(text);
    let pair = [plain(url.username()), b":".to_vec(), plain(url.password().unwrap_or_default())].concat();
    format!("Basic {}", base64(&pair))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = text.get(at + 1..at + 3).and_then(|d| u8::from_str_radix(d, 16).ok());
        match code.filter(|_| *byte == b'%') {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        let digit = move |i: usize| char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]);
        let used = chunk.len() + 1;
        (0..4).map(move |i| if i < used { digit(i) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn to(from: &str, location: &str) -> Result<Url> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, location.parse().unwrap());
        redirect(&url(from), &headers)
    }

    #[test]
    fn redirects_stay_encrypted() {
        assert_eq!(to("https://a/b/c", "../d").unwrap().as_str(), "https://a/d");
        assert_eq!(to("http://a/b", "https://c/d").unwrap().as_str(), "https://c/d");
        let e = to("https://a/b", "http://a/b").unwrap_err();
        assert!(e.message().contains("not encrypted"), "{e}");
        assert!(to("https://a/b", "file:///etc/passwd").is_err());
        assert!(redirect(&url("https://a"), &HeaderMap::new()).is_err());
    }

    #[test]
    fn names_and_passwords_of_addresses_are_sent_and_not_shown() {
        // The example of RFC 7617.
        let with = url("https://Aladdin:open%20sesame@x/y?sig=1");
        assert_eq!(basic(&with), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(shown(&with), "https://x/y");
        assert_eq!(base64(b"ab"), "YWI=");
        assert_eq!(base64(b"abc"), "YWJj");
    }
}
