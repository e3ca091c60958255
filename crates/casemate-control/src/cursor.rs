//! Page tokens: opaque to clients, bound to team and order.
//!
//! `base64url(tag ‖ text)` with the text `v1 <micros> <id> asc|desc`. The tag makes a token that
//! we did not issue to this team worthless, so nothing behind it re-checks what it says.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use casemate_store::{BuildId, CreatedCursor, Cursor, Order, SnapshotCursor};
use casemate_types::{SandboxId, TeamId, Timestamp};

use crate::keys::Keys;

const TAG_BYTES: usize = 16;
/// A token is some 90 bytes; a longer one is not ours.
const TOKEN_BYTES_MAX: usize = 512;

/// Not a token that was issued to this team for this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the page token was not issued here")]
pub struct InvalidCursor;

pub(crate) fn encode(keys: &Keys, team: &TeamId, order: Order, cursor: &Cursor) -> String {
    let micros = cursor.started_at.as_microsecond();
    let text = format!("v1 {micros} {} {}", cursor.id, order_word(order));
    sign(keys, team, &text)
}

fn sign(keys: &Keys, team: &TeamId, text: &str) -> String {
    let mut bytes = keys.cursor_tag(team, text.as_bytes());
    bytes.extend_from_slice(text.as_bytes());
    URL_SAFE.encode(bytes)
}

pub(crate) fn decode(
    keys: &Keys,
    team: &TeamId,
    order: Order,
    token: &str,
) -> Result<Cursor, InvalidCursor> {
    parse(&verified(keys, team, token)?, order).ok_or(InvalidCursor)
}

/// Of a page of snapshots; the text is `s1 <micros> <build> <tag>`.
pub(crate) fn encode_snapshot(keys: &Keys, team: &TeamId, cursor: &SnapshotCursor) -> String {
    let micros = cursor.created_at.as_microsecond();
    sign(
        keys,
        team,
        &format!("s1 {micros} {} {}", cursor.build, cursor.tag),
    )
}

pub(crate) fn decode_snapshot(
    keys: &Keys,
    team: &TeamId,
    token: &str,
) -> Result<SnapshotCursor, InvalidCursor> {
    parse_snapshot(&verified(keys, team, token)?).ok_or(InvalidCursor)
}

/// Of which list a cursor by creation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    Templates,
    Builds,
}

impl Created {
    fn word(self) -> &'static str {
        match self {
            Self::Templates => "t1",
            Self::Builds => "b1",
        }
    }
}

/// Of a page of templates or builds; the text is `t1 <micros> <id>` or `b1 <micros> <id>`.
pub(crate) fn encode_created(
    keys: &Keys,
    team: &TeamId,
    of: Created,
    cursor: &CreatedCursor,
) -> String {
    let micros = cursor.created_at.as_microsecond();
    sign(keys, team, &format!("{} {micros} {}", of.word(), cursor.id))
}

pub(crate) fn decode_created(
    keys: &Keys,
    team: &TeamId,
    of: Created,
    token: &str,
) -> Result<CreatedCursor, InvalidCursor> {
    parse_created(&verified(keys, team, token)?, of).ok_or(InvalidCursor)
}

/// Of a page of a template's tags or of one's assignments: a moment, and of a tag which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagCursor {
    pub(crate) at: Timestamp,
    pub(crate) tag: String,
}

/// The text is `<of> <micros> <tag>`; `of` is a word for the list, its order included.
pub(crate) fn encode_tag(keys: &Keys, team: &TeamId, of: &str, cursor: &TagCursor) -> String {
    let micros = cursor.at.as_microsecond();
    sign(keys, team, &format!("{of} {micros} {}", cursor.tag))
}

pub(crate) fn decode_tag(
    keys: &Keys,
    team: &TeamId,
    of: &str,
    token: &str,
) -> Result<TagCursor, InvalidCursor> {
    parse_tag(&verified(keys, team, token)?, of).ok_or(InvalidCursor)
}

fn parse_tag(text: &[u8], of: &str) -> Option<TagCursor> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let (version, micros, tag) = (words.next()?, words.next()?, words.next()?);
    if version != of || words.next().is_some() {
        return None;
    }
    Some(TagCursor {
        at: Timestamp::from_microsecond(micros.parse().ok()?).ok()?,
        tag: tag.to_owned(),
    })
}

fn parse_created(text: &[u8], of: Created) -> Option<CreatedCursor> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let (version, micros, id) = (words.next()?, words.next()?, words.next()?);
    if version != of.word() || words.next().is_some() {
        return None;
    }
    Some(CreatedCursor {
        created_at: Timestamp::from_microsecond(micros.parse().ok()?).ok()?,
        id: id.to_owned(),
    })
}

/// The text of a token that was issued to this team.
fn verified(keys: &Keys, team: &TeamId, token: &str) -> Result<Vec<u8>, InvalidCursor> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(InvalidCursor);
    }
    let bytes = URL_SAFE.decode(token).map_err(|_| InvalidCursor)?;
    let (tag, text) = bytes.split_at_checked(TAG_BYTES).ok_or(InvalidCursor)?;
    if !keys.cursor_fits(team, text, tag) {
        return Err(InvalidCursor);
    }
    Ok(text.to_vec())
}

fn parse_snapshot(text: &[u8]) -> Option<SnapshotCursor> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let (version, micros) = (words.next()?, words.next()?);
    let (build, tag) = (words.next()?, words.next()?);
    if version != "s1" || words.next().is_some() {
        return None;
    }
    Some(SnapshotCursor {
        created_at: Timestamp::from_microsecond(micros.parse().ok()?).ok()?,
        build: BuildId::parse(build).ok()?,
        tag: tag.to_owned(),
    })
}

fn parse(text: &[u8], order: Order) -> Option<Cursor> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let (version, micros) = (words.next()?, words.next()?);
    let (id, word) = (words.next()?, words.next()?);
    if version != "v1" || word != order_word(order) || words.next().is_some() {
        return None;
    }
    Some(Cursor {
        started_at: Timestamp::from_microsecond(micros.parse().ok()?).ok()?,
        id: SandboxId::parse(id).ok()?,
    })
}

fn order_word(order: Order) -> &'static str {
    match order {
        Order::NewestFirst => "desc",
        Order::OldestFirst => "asc",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::RootSecret;

    const TEAM: &str = "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162";
    const OTHER: &str = "1b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162";

    #[test]
    fn a_token_of_snapshots_is_none_of_sandboxes() {
        let keys = Keys::derive(&RootSecret::new(vec![1; 32]).unwrap());
        let team = TeamId::parse(TEAM).unwrap();
        let cursor = SnapshotCursor {
            created_at: Timestamp::from_microsecond(1_764_093_229_123_456).unwrap(),
            build: BuildId::random(),
            tag: "v1.2".into(),
        };
        let token = encode_snapshot(&keys, &team, &cursor);
        assert_eq!(decode_snapshot(&keys, &team, &token), Ok(cursor));
        let other = TeamId::parse(OTHER).unwrap();
        assert_eq!(decode_snapshot(&keys, &other, &token), Err(InvalidCursor));
        let created = CreatedCursor {
            created_at: Timestamp::from_microsecond(1_764_093_229_123_456).unwrap(),
            id: "base00000000000000000".into(),
        };
        let of_templates = encode_created(&keys, &team, Created::Templates, &created);
        let decode_as = |of, token: &str| decode_created(&keys, &team, of, token);
        assert_eq!(
            decode_as(Created::Templates, &of_templates),
            Ok(created.clone())
        );
        for wrong in [&of_templates, &token] {
            assert_eq!(decode_as(Created::Builds, wrong), Err(InvalidCursor));
        }
        let of_tag = TagCursor {
            at: created.created_at,
            tag: "v1.2".into(),
        };
        let tag_token = encode_tag(&keys, &team, "g1", &of_tag);
        assert_eq!(decode_tag(&keys, &team, "g1", &tag_token), Ok(of_tag));
        for (of, token) in [("g2", &tag_token), ("s1", &token), ("t1", &of_templates)] {
            let wrong = decode_tag(&keys, &other, of, token);
            assert_eq!(wrong, Err(InvalidCursor), "{of}");
        }
        assert_eq!(
            decode_tag(&keys, &team, "g2", &tag_token),
            Err(InvalidCursor)
        );
        let as_sandbox = decode(&keys, &team, Order::NewestFirst, &token);
        assert_eq!(as_sandbox, Err(InvalidCursor));
    }

    #[test]
    fn a_token_comes_back_for_its_team_and_order_only() {
        let keys = Keys::derive(&RootSecret::new(vec![1; 32]).unwrap());
        let (team, other) = (TeamId::parse(TEAM).unwrap(), TeamId::parse(OTHER).unwrap());
        let cursor = Cursor {
            started_at: Timestamp::from_microsecond(1_764_093_229_123_456).unwrap(),
            id: SandboxId::random(),
        };
        let token = encode(&keys, &team, Order::NewestFirst, &cursor);
        let decode = |team: &TeamId, order, token: &str| decode(&keys, team, order, token);
        assert_eq!(decode(&team, Order::NewestFirst, &token), Ok(cursor));
        assert_eq!(
            decode(&team, Order::OldestFirst, &token),
            Err(InvalidCursor)
        );
        assert_eq!(
            decode(&other, Order::NewestFirst, &token),
            Err(InvalidCursor)
        );
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let wrong = String::from_utf8(bytes).unwrap();
            assert_eq!(
                decode(&team, Order::NewestFirst, &wrong),
                Err(InvalidCursor),
                "{at}"
            );
        }
        for wrong in ["x", "====", "bm90IG91cnM=", &"A".repeat(4096)] {
            assert_eq!(decode(&team, Order::NewestFirst, wrong), Err(InvalidCursor));
        }
    }
}
