//! Bodies, character for character.

use super::*;

fn id() -> SandboxId {
    SandboxId::parse("iabc").unwrap()
}

#[track_caller]
fn check_json(refusal: &Refusal, status: u16, body: &str) {
    let response = refusal.response(Format::Json, "host");
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(
        response.headers()[CONTENT_TYPE],
        "application/json; charset=utf-8"
    );
    assert_eq!(std::str::from_utf8(response.body()).unwrap(), body);
}

#[test]
fn json_bodies_are_upstreams() {
    check_json(
        &Refusal::NotFound(id()),
        502,
        r#"{"sandboxId":"iabc","message":"The sandbox was not found","code":502}"#,
    );
    check_json(
        &Refusal::PortClosed {
            sandbox: id(),
            port: 49983,
        },
        502,
        r#"{"sandboxId":"iabc","message":"The sandbox is running but port is not open","port":49983,"code":502}"#,
    );
    check_json(
        &Refusal::Transitioning(id()),
        409,
        r#"{"sandboxId":"iabc","message":"The sandbox is still transitioning. Try again in a moment.","code":409}"#,
    );
    check_json(
        &Refusal::Interrupted {
            sandbox: id(),
            repeatable: true,
        },
        503,
        r#"{"sandboxId":"iabc","message":"The connection into the sandbox ended before it answered, as when it is paused. The request may have been carried out.","code":503}"#,
    );
    check_json(
        &Refusal::TooManyRequests {
            sandbox: id(),
            limit: 7,
        },
        429,
        r#"{"sandboxId":"iabc","message":"The sandbox has too many concurrent incoming connections (limit: 7)","connectionLimit":7,"code":429}"#,
    );
    check_json(
        &Refusal::TrafficTokenMissing(id()),
        403,
        r#"{"sandboxId":"iabc","message":"Sandbox is secured with traffic access token. Token header 'e2b-traffic-access-token' is missing","code":403}"#,
    );
    check_json(
        &Refusal::TrafficTokenInvalid(id()),
        403,
        r#"{"sandboxId":"iabc","message":"Sandbox is secured with traffic access token. Provided token in header 'e2b-traffic-access-token' is invalid","code":403}"#,
    );
    check_json(
        &Refusal::Reserved { path: "/init" },
        404,
        r#"{"message":"The path '/init' is reserved for the Casemate control plane and is not reachable through the sandbox URL","path":"/init","code":404}"#,
    );
    check_json(
        &Refusal::HeadTooLarge { limit: 5 },
        431,
        r#"{"message":"The request's line and headers are larger than 5 bytes","code":431}"#,
    );
}

#[test]
fn refusals_before_routing_are_plain_text() {
    let response = Refusal::Target(TargetError::MissingHeader).response(Format::Html, "h");
    assert_eq!(response.status(), 400);
    assert_eq!(response.body(), "missing header");
    assert_eq!(
        response.headers()[CONTENT_TYPE],
        "text/plain; charset=utf-8"
    );
}

#[test]
fn pages_say_what_upstreams_say_and_escape_the_host() {
    let cases = [
        (Refusal::NotFound(id()), "Sandbox Not Found"),
        (
            Refusal::PortClosed {
                sandbox: id(),
                port: 3000,
            },
            "no service running on port",
        ),
        (
            Refusal::TrafficTokenMissing(id()),
            "Missing Traffic Access Token",
        ),
        (
            Refusal::TrafficTokenInvalid(id()),
            "Invalid Traffic Access Token",
        ),
    ];
    for (refusal, phrase) in cases {
        let response = refusal.response(Format::Html, "<script>.x");
        let body = std::str::from_utf8(response.body()).unwrap();
        assert!(
            body.starts_with("<html") && body.ends_with("</html>"),
            "{body}"
        );
        assert!(body.contains(phrase) && body.contains("iabc"), "{body}");
        assert!(!body.contains("<script>"), "{body}");
        assert!(body.contains("&lt;script&gt;.x"), "{body}");
    }
}

#[test]
fn the_raw_form_is_a_whole_response() {
    let raw = String::from_utf8(Refusal::HeadTooLarge { limit: 5 }.raw_http1()).unwrap();
    let (head, body) = raw.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
    assert!(head.contains(&format!("content-length: {}", body.len())));
    assert!(head.contains("connection: close"));
}

#[test]
fn what_passes_by_itself_says_when_to_ask_again() {
    let sandbox = id();
    let cases = [
        (Refusal::Unexpected { what: "it broke" }, Some("1")),
        (Refusal::TooManyRequests { sandbox, limit: 5 }, Some("1")),
        (
            Refusal::TeamLimit {
                sandbox: id(),
                message: String::new(),
            },
            None,
        ),
        (Refusal::NotFound(id()), None),
    ];
    for (refusal, expected) in cases {
        let response = refusal.response(Format::Json, "host");
        let found = response.headers().get(RETRY_AFTER);
        let found = found.map(|value| value.to_str().unwrap());
        assert_eq!(found, expected, "{refusal:?}");
    }
}
