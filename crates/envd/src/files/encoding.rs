//! Choosing between gzip and nothing by `Accept-Encoding`.

/// How a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
}

/// What a client accepts.
pub struct Accepted {
    /// Best first; unknown encodings and those with `q=0` are not in it.
    wanted: Vec<Wanted>,
    pub identity_refused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Identity,
    Gzip,
    Any,
    Unknown,
}

impl Accepted {
    pub fn read(header: Option<&str>) -> Self {
        let mut entries: Vec<(Wanted, f32)> = header
            .unwrap_or_default()
            .split(',')
            .filter_map(entry)
            .collect();
        let refused = |wanted| entries.iter().any(|(own, q)| *own == wanted && *q <= 0.0);
        let named = entries
            .iter()
            .any(|(own, q)| *own == Wanted::Identity && *q > 0.0);
        let identity_refused = refused(Wanted::Identity) || (refused(Wanted::Any) && !named);
        // Stable: among equals the order of the header counts.
        entries.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        entries.retain(|(_, q)| *q > 0.0);
        let wanted = entries.into_iter().map(|(wanted, _)| wanted).collect();
        Self {
            wanted,
            identity_refused,
        }
    }

    /// `None`: nothing that we have is acceptable.
    pub fn choose(&self) -> Option<Encoding> {
        let identity = (!self.identity_refused).then_some(Encoding::Identity);
        for wanted in &self.wanted {
            match wanted {
                Wanted::Identity => return Some(Encoding::Identity),
                Wanted::Any => return identity.or(Some(Encoding::Gzip)),
                Wanted::Gzip => return Some(Encoding::Gzip),
                Wanted::Unknown => {}
            }
        }
        identity
    }
}

fn entry(text: &str) -> Option<(Wanted, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts
        .next()
        .filter(|name| !name.is_empty())?
        .to_ascii_lowercase();
    let quality = parts
        .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
        .map_or(1.0, |q| q.trim().parse().unwrap_or(1.0));
    let wanted = match name.as_str() {
        "identity" => Wanted::Identity,
        "gzip" => Wanted::Gzip,
        "*" => Wanted::Any,
        _ => Wanted::Unknown,
    };
    Some((wanted, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection() {
        use Encoding::{Gzip, Identity};
        for (header, expected) in [
            (None, Some(Identity)),
            (Some(""), Some(Identity)),
            (Some("gzip"), Some(Gzip)),
            (Some("GZIP"), Some(Gzip)),
            (Some("br"), Some(Identity)),
            (Some("deflate, gzip;q=0.5"), Some(Gzip)),
            (Some("gzip;q=0"), Some(Identity)),
            (Some("gzip;q=0.1, identity;q=0.9"), Some(Identity)),
            (Some("gzip, deflate"), Some(Gzip)),
            (Some("*"), Some(Identity)),
            (Some("*, identity;q=0"), Some(Gzip)),
            (Some("*;q=0"), None),
            (Some("identity;q=0"), None),
            (Some("br, identity;q=0"), None),
            (Some("*;q=0, gzip"), Some(Gzip)),
            (Some("*;q=0, identity"), Some(Identity)),
        ] {
            assert_eq!(Accepted::read(header).choose(), expected, "{header:?}");
        }
    }
}
