//! Logging in at Amazon ECR: access keys are changed for a user and a password at its API.
//!
//! Requests are signed by AWS's Signature Version 4, as its page "Create a signed AWS API request"
//! says (docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html). The call
//! is `GetAuthorizationToken` of ECR's API of 2015-09-21.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::PullError;
use crate::credentials::{Login, WrongCredentials};
use crate::web::{Ask, FetchError, Url, Web};

const SERVICE: &str = "ecr";
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const JSON: &str = "application/x-amz-json-1.1";
const BODY: &str = "{}";
/// Largest answer in bytes: a token has some 2,500.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Keys of an account, checked.
pub(crate) struct AwsKeys<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    region: &'a str,
}

impl<'a> AwsKeys<'a> {
    /// The region becomes a part of a host's name, the key's id of a header.
    pub(crate) fn new(
        access_key_id: &'a str,
        secret_access_key: &'a str,
        region: &'a str,
    ) -> Result<Self, WrongCredentials> {
        let alphanumeric = |b: u8| b.is_ascii_alphanumeric();
        if !(16..=128).contains(&access_key_id.len()) || !access_key_id.bytes().all(alphanumeric) {
            return Err(WrongCredentials::AccessKey);
        }
        let printable = |b: u8| b.is_ascii_graphic();
        if !(1..=256).contains(&secret_access_key.len())
            || !secret_access_key.bytes().all(printable)
        {
            return Err(WrongCredentials::SecretKey);
        }
        let word = |word: &str| {
            let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            !word.is_empty() && word.bytes().all(lower)
        };
        if region.len() > 32 || !region.split('-').all(word) {
            return Err(WrongCredentials::Region);
        }
        Ok(Self {
            access_key_id,
            secret_access_key,
            region,
        })
    }

    /// Where ECR's API of the region is; China has a domain of its own.
    fn endpoint(&self) -> Option<Url> {
        let domain = match self.region.starts_with("cn-") {
            true => "amazonaws.com.cn",
            false => "amazonaws.com",
        };
        Url::parse(&format!("https://api.ecr.{}.{domain}/", self.region))
    }
}

/// The user and password that ECR gives for these keys; `endpoint` stands in for the region's.
pub(crate) async fn ecr_login(
    web: &Web,
    keys: &AwsKeys<'_>,
    endpoint: Option<&Url>,
) -> Result<Login, PullError> {
    let of_region = || keys.endpoint();
    let url = endpoint
        .cloned()
        .or_else(of_region)
        .ok_or(FetchError::Url)?;
    let date = Timestamp::now().to_zoned(TimeZone::UTC);
    let date = date.strftime("%Y%m%dT%H%M%SZ").to_string();
    let host = url.at.for_header(url.secure);
    let signed = sign(
        keys,
        SERVICE,
        &Signed {
            method: "POST",
            path: "/",
            query: "",
            headers: &[
                ("content-type", JSON),
                ("host", &host),
                ("x-amz-date", &date),
                ("x-amz-target", TARGET),
            ],
            body: BODY.as_bytes(),
            date: &date,
        },
    );
    let header = |text: String| HeaderValue::try_from(text).map_err(|_| FetchError::Url);
    let ask = Ask::post(BODY, JSON)
        .header("x-amz-target", HeaderValue::from_static(TARGET))
        .header("x-amz-date", header(date)?)
        .authorized(Some(header(signed)?));
    let answered = async {
        let reply = web.send(url, ask).await?;
        let status = reply.status();
        Ok::<_, FetchError>((status, reply.read(ANSWER_BYTES_MAX).await?))
    };
    let (status, body) = timeout(web.patience().document, answered)
        .await
        .map_err(|_| FetchError::Slow)??;
    match status {
        StatusCode::OK => login(&body).ok_or(PullError::Token),
        // Wrong keys are a 400 here.
        status if status.is_client_error() => Err(PullError::unauthorized()),
        status => Err(PullError::Refused { status, code: None }),
    }
}

/// The token is `user:password` in base64.
fn login(body: &[u8]) -> Option<Login> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        authorization_data: Vec<Data>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        authorization_token: String,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = &answer.authorization_data.first()?.authorization_token;
    let text = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Login::new(user, password).ok()
}

/// What a signature is about.
struct Signed<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    /// In lower case, sorted, with `host`.
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
    /// `YYYYMMDDTHHMMSSZ`.
    date: &'a str,
}

/// The `Authorization` header of a request.
fn sign(keys: &AwsKeys<'_>, service: &str, request: &Signed<'_>) -> String {
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let mut canonical = format!("{}\n{}\n{}\n", request.method, request.path, request.query);
    for (name, value) in request.headers {
        canonical.push_str(&format!("{name}:{value}\n"));
    }
    canonical.push_str(&format!("\n{names}\n{}", hash(request.body)));

    let day = request.date.get(..8).unwrap_or_default();
    let scope = format!("{day}/{}/{service}/aws4_request", keys.region);
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        request.date,
        hash(canonical.as_bytes())
    );
    let first = format!("AWS4{}", keys.secret_access_key);
    let parts = [day, keys.region, service, "aws4_request", &text];
    let signature = parts
        .iter()
        .fold(first.into_bytes(), |key, part| mac(&key, part.as_bytes()));
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
        keys.access_key_id,
        hex::encode(signature)
    )
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of AWS's documentation: `ListUsers` of IAM on 2015-08-30.
    #[test]
    fn the_published_example_is_signed_as_published() {
        let keys = AwsKeys::new(
            "AKIDEXAMPLE00000",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            "us-east-1",
        );
        let signed = sign(
            &keys.unwrap(),
            "iam",
            &Signed {
                method: "GET",
                path: "/",
                query: "Action=ListUsers&Version=2010-05-08",
                headers: &[
                    (
                        "content-type",
                        "application/x-www-form-urlencoded; charset=utf-8",
                    ),
                    ("host", "iam.amazonaws.com"),
                    ("x-amz-date", "20150830T123600Z"),
                ],
                body: b"",
                date: "20150830T123600Z",
            },
        );
        assert_eq!(
            signed,
            "AWS4-HMAC-SHA256 \
             Credential=AKIDEXAMPLE00000/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn keys_and_regions_are_checked() {
        const KEY: &str = "AKIDEXAMPLE00000";
        let new = |key, secret, region| AwsKeys::new(key, secret, region).map(|_| ());
        assert_eq!(new(KEY, "s", "eu-central-1"), Ok(()));
        assert_eq!(new("short", "s", "eu"), Err(WrongCredentials::AccessKey));
        assert_eq!(
            new("AKIDEXAMPLE0000/", "s", "eu"),
            Err(WrongCredentials::AccessKey)
        );
        assert_eq!(new(KEY, "", "eu"), Err(WrongCredentials::SecretKey));
        assert_eq!(new(KEY, "a\nb", "eu"), Err(WrongCredentials::SecretKey));
        for region in [
            "",
            "-",
            "eu--1",
            "EU-1",
            "x.evil.example",
            "x/y",
            "a@b",
            &"a".repeat(33),
        ] {
            assert_eq!(
                new(KEY, "s", region),
                Err(WrongCredentials::Region),
                "{region}"
            );
        }
        let endpoint = |region| AwsKeys::new(KEY, "s", region).ok()?.endpoint();
        let host = |region| endpoint(region).map(|url| url.at.host().to_string());
        assert_eq!(
            host("eu-west-1").as_deref(),
            Some("api.ecr.eu-west-1.amazonaws.com")
        );
        assert_eq!(
            host("cn-north-1").as_deref(),
            Some("api.ecr.cn-north-1.amazonaws.com.cn")
        );
    }
}
