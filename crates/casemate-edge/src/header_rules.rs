//! What changes in a head on its way through: as little as HTTP allows (`api.md` 4.6).
//!
//! Pure. Hop-by-hop fields end here, `Host` stays what the client wrote, nothing is added but
//! what the shared host asks for. `TE: trailers` and `Trailer` stay, else trailers are lost.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, COOKIE, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri, Version};
use hyper::ext::Protocol;

use crate::target::SandboxTarget;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// Fields that end here, beside [`CONNECTION`] and what it names.
const HOP_BY_HOP: [HeaderName; 7] = [
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// How a client asks for a connection of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// `Upgrade: <what>` on HTTP/1.1.
    Http1(HeaderValue),
    /// A WebSocket on a stream of HTTP/2 (RFC 8441).
    Http2WebSocket,
}

impl Upgrade {
    /// What the request asks for, if anything that is passed on. HTTP/2 cleartext by upgrade is
    /// not: the client then gets its answer in HTTP/1.1, as the protocol allows.
    pub(crate) fn asked(request: &Parts) -> Option<Self> {
        if request.version == Version::HTTP_2 {
            let protocol = request.extensions.get::<Protocol>()?;
            let websocket = request.method == Method::CONNECT && protocol.as_str() == "websocket";
            return websocket.then_some(Self::Http2WebSocket);
        }
        let what = request.headers.get(UPGRADE)?;
        let h2c = what.as_bytes().eq_ignore_ascii_case(b"h2c");
        (!h2c && lists(&request.headers, &CONNECTION, "upgrade")).then(|| Self::Http1(what.clone()))
    }
}

/// What the head of a request to a service needs beyond the request itself.
pub(crate) struct Outgoing<'a> {
    pub(crate) host: &'a str,
    pub(crate) target: &'a SandboxTarget,
    /// What the service sees instead of the host.
    pub(crate) mask_host: Option<&'a str>,
    pub(crate) upgrade: Option<&'a Upgrade>,
    /// The connection serves this request only.
    pub(crate) close: bool,
    /// The body's end is known neither from its length nor by its absence.
    pub(crate) unbounded_body: bool,
}

/// Turns a client's head into the one for the service.
pub(crate) fn to_service(request: &mut Parts, outgoing: &Outgoing<'_>) {
    let trailers = lists(&request.headers, &TE, "trailers");
    strip_hop_by_hop(&mut request.headers);
    let headers = &mut request.headers;
    headers.remove(HTTP2_SETTINGS);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    set_host(headers, &request.uri, outgoing);
    join_cookies(headers);
    match outgoing.upgrade {
        Some(Upgrade::Http1(what)) => {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, what.clone());
        }
        Some(Upgrade::Http2WebSocket) => {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, WEBSOCKET);
            headers.insert(WEBSOCKET_KEY, websocket_key());
            request.method = Method::GET;
        }
        None if outgoing.close => {
            headers.insert(CONNECTION, CLOSE);
        }
        None => {}
    }
    if outgoing.unbounded_body && outgoing.upgrade.is_none() {
        // Said aloud: for GET and HEAD the body would otherwise be left out.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    request.uri = origin_form(&request.uri);
    request.version = Version::HTTP_11;
}

/// Turns a service's head into the one for the client.
pub(crate) fn to_client(response: &mut http::response::Parts) {
    strip_hop_by_hop(&mut response.headers);
    response.version = Version::HTTP_11;
}

/// Turns a service's `101` into the head for the client.
pub(crate) fn switched(response: &mut http::response::Parts, upgrade: &Upgrade) {
    let what = response.headers.get(UPGRADE).cloned();
    to_client(response);
    match upgrade {
        Upgrade::Http1(asked) => {
            let what = what.unwrap_or_else(|| asked.clone());
            response.headers.insert(UPGRADE, what);
            response
                .headers
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        Upgrade::Http2WebSocket => {
            response.headers.remove(WEBSOCKET_ACCEPT);
            response.status = http::StatusCode::OK;
        }
    }
}

/// What `Host` says without its port; empty where it says nothing that could be a name.
pub(crate) fn host_name(headers: &HeaderMap) -> &str {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default();
    if let Some((address, _)) = host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        return address;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Bytes of a request head, near enough to what travelled.
pub(crate) fn head_bytes(request: &Parts) -> usize {
    let uri = request.uri.path_and_query().map_or(0, |p| p.as_str().len());
    uri + field_bytes(&request.headers)
}

/// Bytes of header fields, near enough to what travelled.
pub(crate) fn field_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

/// Whether the connection is to end with this message.
pub(crate) fn asks_to_close(headers: &HeaderMap) -> bool {
    lists(headers, &CONNECTION, "close")
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    // Nearly always there is none: one look at each field costs less than a search for each name.
    if headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

fn set_host(headers: &mut HeaderMap, uri: &Uri, outgoing: &Outgoing<'_>) {
    let SandboxTarget {
        sandbox,
        port,
        shared_domain,
    } = outgoing.target;
    // A value that was read from a header or an authority is fit for a header.
    let value = |text: &str| HeaderValue::from_str(text).ok();
    if let Some(mask) = outgoing.mask_host {
        if let Some(host) = value(&mask.replace("${PORT}", &port.to_string())) {
            headers.insert(HOST, host);
        }
        if let Some(asked) = value(outgoing.host) {
            headers.insert(FORWARDED_HOST, asked);
        }
    } else if let Some(domain) = shared_domain {
        if let Some(host) = value(&format!("{port}-{sandbox}.{domain}")) {
            headers.insert(HOST, host);
        }
        if let Some(shared) = value(outgoing.host) {
            headers.insert(FORWARDED_HOST, shared);
        }
    } else if (uri.authority().is_some() || !headers.contains_key(HOST))
        && let Some(host) = value(outgoing.host)
    {
        headers.insert(HOST, host);
    }
}

/// HTTP/2 splits cookies over fields; in HTTP/1.1 they are one.
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
}

/// Whether a list-valued field names `token`.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| {
            let item = item.split(';').next().unwrap_or_default();
            item.trim().eq_ignore_ascii_case(token)
        })
}

/// A nonce of 16 bytes; its answer is not checked, the service is not ours to distrust here.
fn websocket_key() -> HeaderValue {
    let mut nonce = [0u8; 16];
    getrandom::fill(&mut nonce).expect("the kernel's random source answers once booted");
    HeaderValue::from_str(&STANDARD.encode(nonce)).expect("base64 is fit for a header")
}

#[cfg(test)]
mod tests;
