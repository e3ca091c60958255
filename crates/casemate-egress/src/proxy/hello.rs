//! The name in a TLS hello. Pure, and strict: what could be read in two ways is refused, because the
//! server behind might read it the other way. No bytes make it panic.

use casemate_types::network::DomainName;

/// Largest hello with all its records, bytes. Those of browsers with keys against quantum computers
/// have some 2000.
pub(super) const HELLO_BYTES_MAX: usize = 16 * 1024;

/// Most records of one hello. Clients need one, those that hide the name from simple filters two or
/// three. All of it is read again for each, so that a hello in small pieces costs the others time.
const RECORDS_MAX: usize = 16;
/// Most extensions. Browsers send some 20, the made-up ones that keep servers tolerant (GREASE)
/// among them. Each is compared with all before it.
const EXTENSIONS_MAX: usize = 64;

const RECORD_HEADER_LEN: usize = 5;
const RECORD_HANDSHAKE: u8 = 22;
const HANDSHAKE_HEADER_LEN: usize = 4;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const RANDOM_LEN: usize = 32;
const SESSION_LEN_MAX: usize = 32;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_OF_HOST: u8 = 0;
/// A hello with one of these says its real name where it cannot be seen: the encrypted hello of
/// today and of its draft.
const EXTENSIONS_HIDING: [u16; 2] = [0xfe0d, 0xffce];

/// Why bytes are no hello with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// At least so many bytes from the begin are needed to tell.
    More(usize),
    /// No TLS, no hello, none that is whole within the limits, or one with two meanings.
    NotAHello,
    /// It names no host.
    Nameless,
    /// Its real name is encrypted.
    Hidden,
}

/// The name in a hello, from the first bytes of a connection. What follows the hello in records of
/// their own (early data) is not looked at.
pub(super) fn server_name(bytes: &[u8]) -> Result<DomainName, Unfit> {
    let hello = hello(bytes)?;
    named(&hello)
}

/// The message's body, put together from its records.
fn hello(bytes: &[u8]) -> Result<Vec<u8>, Unfit> {
    let mut message = Vec::new();
    let mut at = 0;
    for _ in 0..RECORDS_MAX {
        let record = at + RECORD_HEADER_LEN;
        let Some(&[kind, major, minor, high, low]) = bytes.get(at..record) else {
            return Err(more(bytes, at, record));
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if kind != RECORD_HANDSHAKE || major != 3 || minor > 4 || len == 0 {
            return Err(Unfit::NotAHello);
        }
        at = record + len;
        let part = bytes.get(record..at);
        message.extend_from_slice(part.ok_or_else(|| more(bytes, record, at))?);
        let Some((&[kind, a, b, c], body)) = message.split_first_chunk::<HANDSHAKE_HEADER_LEN>()
        else {
            continue;
        };
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind != HANDSHAKE_CLIENT_HELLO || len > HELLO_BYTES_MAX || body.len() > len {
            return Err(Unfit::NotAHello);
        }
        if body.len() == len {
            return Ok(body.to_vec());
        }
    }
    Err(Unfit::NotAHello)
}

/// Needs bytes up to `end`; within the limit, and if what is there of a record may be one.
fn more(bytes: &[u8], record: usize, end: usize) -> Unfit {
    let begins_wrong = bytes.get(record).is_some_and(|b| *b != RECORD_HANDSHAKE);
    let is_header = end - record == RECORD_HEADER_LEN;
    if end > HELLO_BYTES_MAX || (is_header && begins_wrong) {
        Unfit::NotAHello
    } else {
        Unfit::More(end)
    }
}

fn named(body: &[u8]) -> Result<DomainName, Unfit> {
    let mut extensions = extensions(body).ok_or(Unfit::NotAHello)?;
    let mut seen = Vec::new();
    let mut name = None;
    while !extensions.0.is_empty() {
        let extension = extensions.u16().zip(extensions.long());
        let (kind, data) = extension.ok_or(Unfit::NotAHello)?;
        if seen.len() == EXTENSIONS_MAX || seen.contains(&kind) {
            return Err(Unfit::NotAHello);
        }
        if EXTENSIONS_HIDING.contains(&kind) {
            return Err(Unfit::Hidden);
        }
        if kind == EXTENSION_SERVER_NAME {
            name = Some(host(data).ok_or(Unfit::NotAHello)?);
        }
        seen.push(kind);
    }
    let name = name.ok_or(Unfit::Nameless)?;
    let text = str::from_utf8(name).map_err(|_| Unfit::Nameless)?;
    DomainName::parse(text).ok_or(Unfit::Nameless)
}

/// What stands before them is only passed over; nothing stands behind them.
fn extensions(body: &[u8]) -> Option<Reader<'_>> {
    let mut body = Reader(body);
    let version = body.u16()?;
    body.take(RANDOM_LEN)?;
    let session = body.short()?;
    let ciphers = body.long()?;
    let compressions = body.short()?;
    let extensions = body.long()?;
    let is_one = version >> 8 == 3
        && session.0.len() <= SESSION_LEN_MAX
        && !ciphers.0.is_empty()
        && ciphers.0.len().is_multiple_of(2)
        && !compressions.0.is_empty()
        && body.0.is_empty();
    is_one.then_some(extensions)
}

/// The one name of a list with nothing else in it.
fn host(mut data: Reader<'_>) -> Option<&[u8]> {
    let mut list = data.long()?;
    let kind = list.u8()?;
    let name = list.long()?;
    let is_one = kind == NAME_OF_HOST && list.0.is_empty() && data.0.is_empty();
    is_one.then_some(name.0)
}

/// Reads from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// What a length of one byte stands before.
    fn short(&mut self) -> Option<Self> {
        let len = usize::from(self.u8()?);
        self.take(len).map(Self)
    }

    /// What a length of two bytes stands before.
    fn long(&mut self) -> Option<Self> {
        let len = usize::from(self.u16()?);
        self.take(len).map(Self)
    }
}

#[cfg(test)]
mod tests;
