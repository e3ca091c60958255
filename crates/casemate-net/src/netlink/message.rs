//! One message: header, family header, attributes. Everything is padded to four bytes.

pub(super) const HEADER_LEN: usize = 16;
const ATTR_LEN: usize = 4;
/// Marks an attribute that holds attributes.
const NESTED: u16 = 1 << 15;
/// What is left of an attribute's kind without the nested and byte order marks.
const KIND_MASK: u16 = 0x3fff;

/// Flags of the message header.
pub(crate) mod flag {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const CREATE: u16 = 0x400;
}

/// A message to be sent; the socket numbers it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// `family` is the fixed header that follows the netlink header (`ifinfomsg` and the like).
    pub(crate) fn new(kind: u16, flags: u16, family: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        let mut message = Self { bytes };
        message.raw(family);
        message
    }

    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // Names, addresses and numbers: far below the 64 KiB of an attribute. Lists are cut by
        // whoever builds them.
        let len = u16::try_from(ATTR_LEN + value.len()).expect("an attribute's value is short");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value)
    }

    pub(crate) fn attr_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A text with the closing zero that the kernel expects.
    pub(crate) fn attr_text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// An attribute that holds what `fill` adds.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; ATTR_LEN]);
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).expect("a nest is below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    /// Bytes as they are, padded: a fixed header inside a nest.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// The finished bytes under the number `seq`.
    pub(super) fn numbered(mut self, seq: u32) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).expect("a message is below 4 GiB");
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
        self.bytes
    }
}

/// A received attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attr<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

impl Attr<'_> {
    pub(crate) fn u32(&self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.value.try_into().ok()?))
    }

    pub(crate) fn ipv4(&self) -> Option<std::net::Ipv4Addr> {
        Some(<[u8; 4]>::try_from(self.value).ok()?.into())
    }

    /// A text up to its closing zero.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.value.split(|b| *b == 0).next()?).ok()
    }
}

/// The attributes in `bytes`; a cut one ends the walk.
pub(crate) fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = Attr<'_>> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & KIND_MASK;
        let value = bytes.get(ATTR_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Attr { kind, value })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_can_be_walked() {
        let mut message = Message::new(16, flag::CREATE, &[1, 2, 3]);
        message.attr_text(3, "eth0").nest(18, |m| {
            m.raw(&[9; 4]).attr_u32(7, 77);
        });
        let bytes = message.numbered(5);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()), 48);
        let found: Vec<Attr<'_>> = attrs(&bytes[HEADER_LEN + 4..]).collect();
        assert_eq!(found[0].text(), Some("eth0"));
        assert_eq!(found[1].kind, 18);
        let inner: Vec<Attr<'_>> = attrs(&found[1].value[4..]).collect();
        assert_eq!(inner[0].u32(), Some(77));
    }

    #[test]
    fn cut_attributes_end_the_walk() {
        assert_eq!(attrs(&[]).count(), 0);
        assert_eq!(attrs(&[8, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attrs(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(attrs(&[4, 0, 1, 0, 255, 255, 1, 0]).count(), 1);
    }
}
