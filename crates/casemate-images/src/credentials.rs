//! Who a registry is asked as.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// Longest of each part in bytes: a service account's JSON has some 2,400.
const PART_LEN_MAX: usize = 64 * 1024;
/// The user name with which Google's registries take a service account's JSON as the password.
const GCP_USER: &str = "_json_key";

/// What a tenant gave for a registry. Never sent to a mirror or to an alias's target.
#[derive(Clone, Default)]
pub enum Credentials {
    #[default]
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// Amazon ECR: changed for a password of twelve hours at the region's API.
    Aws {
        access_key_id: String,
        secret_access_key: String,
        region: String,
    },
    /// Google's registries: the JSON is the password.
    Gcp {
        service_account_json: String,
    },
}

/// A user and a password, as HTTP has them.
#[derive(Clone)]
pub(crate) struct Login {
    header: HeaderValue,
}

/// What is wrong with credentials, without showing them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongCredentials {
    #[error("a part is longer than {PART_LEN_MAX} bytes")]
    TooLong,
    #[error("the user name is empty, or has a colon or a control character")]
    Username,
    #[error("the password has a control character")]
    Password,
    #[error("the service account is not a JSON object")]
    ServiceAccount,
    #[error("the AWS access key is not 16 to 128 letters and digits")]
    AccessKey,
    #[error("the AWS secret key is empty or not printable")]
    SecretKey,
    #[error("the AWS region is not a few lowercase words with hyphens between")]
    Region,
}

impl Login {
    /// RFC 7617: the name has no colon, and neither has control characters.
    pub(crate) fn new(username: &str, password: &str) -> Result<Self, WrongCredentials> {
        if username.len() > PART_LEN_MAX || password.len() > PART_LEN_MAX {
            return Err(WrongCredentials::TooLong);
        }
        if username.is_empty() || username.contains(|c: char| c == ':' || c.is_control()) {
            return Err(WrongCredentials::Username);
        }
        if password.contains(char::is_control) {
            return Err(WrongCredentials::Password);
        }
        Ok(Self::encoded(username, password))
    }

    /// A service account's JSON has line breaks, which Google's registries take.
    pub(crate) fn gcp(json: &str) -> Result<Self, WrongCredentials> {
        if json.len() > PART_LEN_MAX {
            return Err(WrongCredentials::TooLong);
        }
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json)
            .map_err(|_| WrongCredentials::ServiceAccount)?;
        Ok(Self::encoded(GCP_USER, json))
    }

    fn encoded(username: &str, password: &str) -> Self {
        let text = format!(
            "Basic {}",
            STANDARD.encode(format!("{username}:{password}"))
        );
        let mut header = HeaderValue::try_from(text).expect("base64 is made of visible characters");
        header.set_sensitive(true);
        Self { header }
    }

    /// The value of an `Authorization` header.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(..)",
            Self::Aws { .. } => "Aws(..)",
            Self::Gcp { .. } => "Gcp(..)",
        })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let secret = Credentials::Basic {
            username: "hidden".into(),
            password: "hidden".into(),
        };
        let login = Login::new("hidden", "hidden").unwrap();
        let shown = format!("{secret:?} {login:?} {:?}", login.header());
        assert!(
            !shown.contains("hidden") && !shown.contains("aGlk"),
            "{shown}"
        );
    }

    #[test]
    fn wrong_parts_are_refused() {
        let new = |user: &str, password: &str| Login::new(user, password).map(|_| ()).unwrap_err();
        assert_eq!(new("", "x"), WrongCredentials::Username);
        assert_eq!(new("a:b", "x"), WrongCredentials::Username);
        assert_eq!(new("a", "x\r\n"), WrongCredentials::Password);
        assert_eq!(new("a", &"x".repeat(65537)), WrongCredentials::TooLong);
        assert!(Login::gcp("[]").is_err());
        assert!(Login::gcp("{\n}").is_ok());
    }
}
