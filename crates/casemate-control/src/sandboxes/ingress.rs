//! What a create may say about traffic from outside (`api.md` 3.2.3).

use casemate_types::Ingress;
use casemate_types::ingress::HTTPS_PORTS_MAX;

use super::network::NetworkAsk;

/// Why it is refused. The texts are E2B's where E2B has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngressError {
    #[error("mask request host is not valid: {0}")]
    Mask(String),
    #[error("mask request host '{0}' is not ASCII. Please use ASCII characters only.")]
    MaskNotAscii(String),
    #[error("httpsPorts has {0}, ports from 1 to 65535 except 49983 are allowed")]
    Port(i32),
    #[error("httpsPorts has {0} ports, at most {HTTPS_PORTS_MAX} are allowed")]
    TooManyPorts(usize),
}

/// Stands for the port in a mask.
pub const PORT_VARIABLE: &str = "${PORT}";
const ENVD_PORT: u16 = 49983;
const MASK_BYTES_MAX: usize = 255;

pub(crate) fn check(ask: &NetworkAsk) -> Result<Ingress, IngressError> {
    if let Some(mask) = &ask.mask_request_host {
        check_mask(mask)?;
    }
    let ports = ask.https_ports.iter().map(|port| {
        u16::try_from(*port)
            .ok()
            .filter(|port| *port != 0 && *port != ENVD_PORT)
            .ok_or(IngressError::Port(*port))
    });
    let ports = ports.collect::<Result<Vec<_>, _>>()?;
    if ports.len() > HTTPS_PORTS_MAX {
        return Err(IngressError::TooManyPorts(ports.len()));
    }
    Ok(Ingress {
        allow_public_traffic: ask.allow_public_traffic,
        mask_request_host: ask.mask_request_host.clone(),
        https_ports: (!ports.is_empty()).then_some(ports),
    })
}

/// `host` or `host:port`, where [`PORT_VARIABLE`] may stand for any number.
fn check_mask(mask: &str) -> Result<(), IngressError> {
    if !mask.is_ascii() {
        return Err(IngressError::MaskNotAscii(mask.to_owned()));
    }
    let filled = mask.replace(PORT_VARIABLE, "65535");
    let (host, port) = match filled.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (filled.as_str(), None),
    };
    let letter = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(letter);
    let is_host = host.len() <= MASK_BYTES_MAX && host.split('.').all(label);
    let is_port = |text: &str| {
        text.bytes().all(|c| c.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|p| p > 0)
    };
    if is_host && port.is_none_or(is_port) {
        Ok(())
    } else {
        Err(IngressError::Mask(mask.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn mask(text: &str, expected: Result<(), IngressError>) {
        assert_eq!(check_mask(text), expected, "{text}");
    }

    #[test]
    fn a_mask_is_a_host_with_or_without_a_port() {
        for good in [
            "localhost",
            "localhost:${PORT}",
            "app.example.com:8080",
            "${PORT}.example.com",
            "10.0.0.1",
        ] {
            mask(good, Ok(()));
        }
        for bad in [
            "",
            "a b",
            "a:b",
            "a:0",
            "a:65536",
            "a:${PORT}${PORT}",
            "http://a",
            "a/b",
            "a..b",
            "a\r\nX: y",
            "${HOST}",
        ] {
            mask(bad, Err(IngressError::Mask(bad.into())));
        }
        mask(
            "bücher.de",
            Err(IngressError::MaskNotAscii("bücher.de".into())),
        );
    }

    #[test]
    fn ports_are_ports_and_not_the_agents() {
        let ask = |ports: &[i32]| NetworkAsk {
            https_ports: ports.to_vec(),
            ..NetworkAsk::default()
        };
        let ports = check(&ask(&[1, 443, 65_535])).unwrap().https_ports;
        assert_eq!(ports, Some(vec![1, 443, 65_535]));
        for bad in [0, -1, 49_983, 65_536] {
            assert_eq!(check(&ask(&[443, bad])), Err(IngressError::Port(bad)));
        }
        let many: Vec<i32> = (1..=65).collect();
        assert_eq!(check(&ask(&many)), Err(IngressError::TooManyPorts(65)));
    }
}
