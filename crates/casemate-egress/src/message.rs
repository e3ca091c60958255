//! DNS messages as far as a forwarder must understand them: header and question. Pure.
//!
//! Everything after the question is passed on unread, so there is nothing in it to be wrong about.
//! Both sides are hostile: nothing here panics on any bytes.

use std::net::Ipv4Addr;

use casemate_types::network::DomainName;

/// The least a message has.
pub(crate) const HEADER_LEN: usize = 12;
/// A name's longest form on the wire.
const NAME_LEN_MAX: usize = 255;
const LABEL_LEN_MAX: usize = 63;

const CLASS_IN: u16 = 1;
const TYPE_A: u16 = 1;
pub(crate) const TYPE_AAAA: u16 = 28;
pub(crate) const TYPE_SVCB: u16 = 64;
pub(crate) const TYPE_HTTPS: u16 = 65;
const TYPE_IXFR: u16 = 251;
const TYPE_AXFR: u16 = 252;

const FLAG_RESPONSE: u8 = 0x80;
const MASK_OPCODE: u8 = 0x78;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION_DESIRED: u8 = 0x01;
const FLAG_RECURSION_AVAILABLE: u8 = 0x80;

/// The most addresses that are taken from one answer.
const ADDRESSES_MAX: usize = 16;

/// The outcomes that a forwarder says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NotImplemented = 4,
    Refused = 5,
}

/// Why a packet is no question that is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Not even a header, or an answer: answering it could start a loop.
    Silence,
    /// To be answered with this.
    Answer(Vec<u8>),
}

/// A question that may be passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    bytes: Vec<u8>,
    question_end: usize,
}

impl Query {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Unfit> {
        let header = bytes.get(..HEADER_LEN).ok_or(Unfit::Silence)?;
        if header[2] & FLAG_RESPONSE != 0 {
            return Err(Unfit::Silence);
        }
        if header[2] & MASK_OPCODE != 0 {
            return Err(Unfit::Answer(answer(header, &[], Code::NotImplemented)));
        }
        // One question, no answers, no authorities; additional records carry EDNS.
        let unfit = || Unfit::Answer(answer(header, &[], Code::FormatError));
        if header[4..10] != [0, 1, 0, 0, 0, 0] {
            return Err(unfit());
        }
        let question_end = question_end(bytes).ok_or_else(unfit)?;
        let query = Self {
            bytes: bytes.to_vec(),
            question_end,
        };
        // A transfer is no question about a name, and other classes carry nothing but a server's
        // own state.
        if query.class() != CLASS_IN || matches!(query.kind(), TYPE_AXFR | TYPE_IXFR) {
            return Err(Unfit::Answer(query.answered(Code::Refused)));
        }
        Ok(query)
    }

    /// A question of our own for the IPv4 addresses of a name.
    pub(crate) fn addresses_of(name: &DomainName) -> Self {
        let mut bytes = vec![0, 0, FLAG_RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.as_str().split('.') {
            bytes.push(u8::try_from(label.len()).expect("a label of a name has at most 63 bytes"));
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend([TYPE_A, CLASS_IN].map(u16::to_be_bytes).concat());
        let question_end = bytes.len();
        Self {
            bytes,
            question_end,
        }
    }

    /// The name asked for, if it is a host's.
    pub(crate) fn name(&self) -> Option<DomainName> {
        let mut labels = Vec::new();
        let mut rest = self.question();
        while let Some((len, more)) = rest.split_first()
            && *len > 0
        {
            let (label, after) = more.split_at_checked(usize::from(*len))?;
            // A dot within a label would make it two.
            if label.contains(&b'.') {
                return None;
            }
            labels.push(str::from_utf8(label).ok()?);
            rest = after;
        }
        DomainName::parse(&labels.join("."))
    }

    /// Type of record asked for.
    pub(crate) fn kind(&self) -> u16 {
        u16::from_be_bytes([
            self.bytes[self.question_end - 4],
            self.bytes[self.question_end - 3],
        ])
    }

    fn class(&self) -> u16 {
        u16::from_be_bytes([
            self.bytes[self.question_end - 2],
            self.bytes[self.question_end - 1],
        ])
    }

    fn question(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..self.question_end]
    }

    /// The bytes to send on, under another number.
    pub(crate) fn numbered(&self, id: u16) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        bytes
    }

    /// An answer of our own, without records.
    pub(crate) fn answered(&self, code: Code) -> Vec<u8> {
        answer(&self.bytes[..HEADER_LEN], self.question(), code)
    }

    /// An answer of our own that tells the asker to ask again over TCP.
    pub(crate) fn answered_truncated(&self) -> Vec<u8> {
        let mut bytes = self.answered(Code::NoError);
        bytes[2] |= FLAG_TRUNCATED;
        bytes
    }

    /// Makes a name server's answer to `numbered(id)` ours, if it is one. Names are compared without
    /// case: some servers normalise it.
    pub(crate) fn adopt(&self, id: u16, mut reply: Vec<u8>) -> Option<Vec<u8>> {
        let header = reply.get(..HEADER_LEN)?;
        if header[..2] != id.to_be_bytes() || header[2] & FLAG_RESPONSE == 0 {
            return None;
        }
        if header[2] & MASK_OPCODE != 0 {
            return None;
        }
        // A server that could not read the question may leave it out.
        if reply.len() == HEADER_LEN && header[3] & 0x0f != 0 && header[4..6] == [0, 0] {
            return Some(self.answered(Code::ServerFailure));
        }
        if header[4..6] != [0, 1] {
            return None;
        }
        let end = question_end(&reply)?;
        if !reply[HEADER_LEN..end].eq_ignore_ascii_case(self.question()) {
            return None;
        }
        reply[..2].copy_from_slice(&self.bytes[..2]);
        Some(reply)
    }
}

/// Where the question ends, if it is a plain one: labels, no pointers, type and class.
fn question_end(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER_LEN;
    loop {
        let label = usize::from(*bytes.get(at)?);
        at += 1 + label;
        if label > LABEL_LEN_MAX || at - HEADER_LEN > NAME_LEN_MAX {
            return None;
        }
        if label == 0 {
            break;
        }
    }
    let end = at + 4;
    (end <= bytes.len()).then_some(end)
}

/// Whether an answer was cut: the question is to be asked again over TCP.
pub(crate) fn is_truncated(reply: &[u8]) -> bool {
    reply
        .get(2)
        .is_some_and(|flags| flags & FLAG_TRUNCATED != 0)
}

/// Whether an answer says that no server knew one.
pub(crate) fn is_failure(reply: &[u8]) -> bool {
    let code = reply.get(3).map(|flags| flags & 0x0f);
    code == Some(Code::ServerFailure as u8)
}

/// The IPv4 addresses in an adopted answer, as far as it can be read. Aliases before them belong to
/// the question: whoever answers follows them.
pub(crate) fn addresses(reply: &[u8]) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let (Some(header), Some(mut at)) = (reply.get(..HEADER_LEN), question_end(reply)) else {
        return found;
    };
    if header[3] & 0x0f != Code::NoError as u8 {
        return found;
    }
    for _ in 0..u16::from_be_bytes([header[6], header[7]]) {
        let Some((kind, data, end)) = record(reply, at) else {
            break;
        };
        if kind == [TYPE_A, CLASS_IN]
            && let Ok(octets) = <[u8; 4]>::try_from(data)
            && found.len() < ADDRESSES_MAX
        {
            found.push(octets.into());
        }
        at = end;
    }
    found
}

/// Type and class, data, and end of the record at `at`.
fn record(bytes: &[u8], mut at: usize) -> Option<([u16; 2], &[u8], usize)> {
    loop {
        let label = usize::from(*bytes.get(at)?);
        match label {
            0 => break at += 1,
            // A pointer ends a name.
            0xc0.. => break at += 2,
            _ => at += 1 + label,
        }
    }
    let [k1, k2, c1, c2, _, _, _, _, l1, l2] = *bytes.get(at..)?.first_chunk()?;
    let data = at + 10;
    let end = data + usize::from(u16::from_be_bytes([l1, l2]));
    let kind = [[k1, k2], [c1, c2]].map(u16::from_be_bytes);
    Some((kind, bytes.get(data..end)?, end))
}

fn answer(header: &[u8], question: &[u8], code: Code) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + question.len());
    bytes.extend_from_slice(&header[..2]);
    let kept = header[2] & (MASK_OPCODE | FLAG_RECURSION_DESIRED);
    bytes.push(FLAG_RESPONSE | kept);
    bytes.push(FLAG_RECURSION_AVAILABLE | code as u8);
    bytes.extend_from_slice(&[0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(question);
    bytes
}

#[cfg(test)]
mod tests;
