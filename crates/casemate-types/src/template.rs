//! References to templates: `[namespace/]alias[:tag]` or `<templateID>[:tag]` (`api.md` 1.4).

/// The tag that no tag means.
pub const DEFAULT_TAG: &str = "default";

/// Characters of a whole name that is given to a template or snapshot (`templates.md` 1.2).
pub const NAME_CHARS_MAX: usize = 128;

/// A parsed reference. Parts are trimmed and lower-cased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateRef {
    pub namespace: Option<String>,
    /// An alias or a template id; resolution decides which.
    pub name: String,
    /// [`DEFAULT_TAG`] when none was given.
    pub tag: String,
}

/// Why a text is no template reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateRefError {
    #[error("template reference is empty")]
    Empty,
    #[error("too many '/' in '{0}': expected [namespace/]alias[:tag]")]
    Slashes(String),
    #[error("too many ':' in '{0}': expected [namespace/]alias[:tag]")]
    Colons(String),
    #[error("{what} '{text}' has more than {NAME_CHARS_MAX} characters")]
    Long { what: &'static str, text: String },
    #[error("tag cannot be a UUID: '{0}'")]
    UuidTag(String),
    #[error("invalid {part}: {text} (allowed are a-z, 0-9, '-' and '_'{more})")]
    Characters {
        part: &'static str,
        text: String,
        more: &'static str,
    },
}

impl TemplateRef {
    /// The same for a name that is given away: at most [`NAME_CHARS_MAX`] characters, and no tag
    /// that could be a build's id.
    pub fn parse_new(text: &str) -> Result<Self, TemplateRefError> {
        if text.trim().chars().count() > NAME_CHARS_MAX {
            return Err(TemplateRefError::Long {
                what: "name",
                text: text.trim().to_owned(),
            });
        }
        let reference = Self::parse(text)?;
        no_uuid(&reference.tag)?;
        Ok(reference)
    }

    pub fn parse(text: &str) -> Result<Self, TemplateRefError> {
        let lower = text.trim().to_lowercase();
        if lower.is_empty() {
            return Err(TemplateRefError::Empty);
        }
        let (path, tag) = match lower.split_once(':') {
            None => (lower.as_str(), DEFAULT_TAG),
            Some((_, tag)) if tag.contains(':') => return Err(TemplateRefError::Colons(lower)),
            Some((path, tag)) => (path.trim(), tag.trim()),
        };
        let (namespace, name) = match path.split_once('/') {
            None => (None, path),
            Some((_, name)) if name.contains('/') => return Err(TemplateRefError::Slashes(lower)),
            Some((namespace, name)) => (Some(namespace.trim()), name.trim()),
        };
        check("template ID", name, "")?;
        namespace.map_or(Ok(()), |namespace| check("namespace", namespace, ""))?;
        check("tag", tag, ".")?;
        Ok(Self {
            namespace: namespace.map(Into::into),
            name: name.into(),
            tag: tag.into(),
        })
    }
}

/// A tag that is given to a build: trimmed and lower-cased, at most [`NAME_CHARS_MAX`] characters, and
/// none that could be a build's id.
pub fn parse_new_tag(text: &str) -> Result<String, TemplateRefError> {
    let tag = text.trim().to_lowercase();
    if tag.chars().count() > NAME_CHARS_MAX {
        return Err(TemplateRefError::Long {
            what: "tag",
            text: tag,
        });
    }
    check("tag", &tag, ".")?;
    no_uuid(&tag)?;
    Ok(tag)
}

fn no_uuid(tag: &str) -> Result<(), TemplateRefError> {
    match uuid::Uuid::try_parse(tag) {
        Ok(_) => Err(TemplateRefError::UuidTag(tag.to_owned())),
        Err(_) => Ok(()),
    }
}

fn check(part: &'static str, text: &str, more: &'static str) -> Result<(), TemplateRefError> {
    let fits = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_') || more.contains(c)
    };
    if !text.is_empty() && text.chars().all(fits) {
        return Ok(());
    }
    let more = if more.is_empty() { "" } else { " and '.'" };
    Err(TemplateRefError::Characters {
        part,
        text: text.into(),
        more,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_ref(text: &str, expected: Option<(Option<&str>, &str, &str)>) {
        let found = TemplateRef::parse(text).ok();
        let found = found
            .as_ref()
            .map(|r| (r.namespace.as_deref(), &*r.name, &*r.tag));
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn references_parse_as_specified() {
        check_ref("base", Some((None, "base", "default")));
        check_ref(
            " Team/My-App : V1.2 ",
            Some((Some("team"), "my-app", "v1.2")),
        );
        check_ref(
            "rki5dems9wqfm4r03t7g:x",
            Some((None, "rki5dems9wqfm4r03t7g", "x")),
        );
        for wrong in [
            "", " ", "a/b/c", "a:b:c", "a.b", "/a", "a/", "a:", "ä", "a b", "../x",
        ] {
            check_ref(wrong, None);
        }
    }

    #[test]
    fn names_that_are_given_away_have_bounds() {
        let longest = format!("{}:{}", "a".repeat(100), "b".repeat(27));
        assert!(TemplateRef::parse_new(&format!(" {longest} ")).is_ok());
        let long = format!("{longest}b");
        assert!(TemplateRef::parse(&long).is_ok());
        let error = TemplateRef::parse_new(&long).unwrap_err();
        assert!(matches!(error, TemplateRefError::Long { text, .. } if text == long));
        for tag in [
            "0fe0c5b4-4a2e-4b0c-9d0e-6c5b8f2d7a11",
            "0FE0C5B44A2E4B0C9D0E6C5B8F2D7A11",
        ] {
            let name = format!("a:{tag}");
            assert!(TemplateRef::parse(&name).is_ok());
            let error = TemplateRef::parse_new(&name).unwrap_err();
            assert_eq!(error, TemplateRefError::UuidTag(tag.to_lowercase()));
            assert_eq!(parse_new_tag(tag), Err(error));
        }
        assert_eq!(parse_new_tag(" V1.0-a_b ").as_deref(), Ok("v1.0-a_b"));
        for wrong in ["", " ", "a b", "a:b", "a/b", &"a".repeat(129)] {
            assert!(parse_new_tag(wrong).is_err(), "{wrong:?}");
        }
    }
}
