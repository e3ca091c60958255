//! Whether https is on, and until when its certificate holds.

use std::fs;

use casemate_tls::{Authority, Checked, Files, acme};
use casemate_types::chain;

use super::Finding;
use crate::config::Config;
use crate::config::tls::Certificate;
use crate::data_dir::{DataDir, tls_authority};
use crate::up::certificates::{day, now};

const WHAT: &str = "https";

pub(super) fn look(config: &Config) -> Finding {
    let Some(tls) = &config.tls else {
        let how = "off: SDKs need E2B_API_URL and E2B_SANDBOX_URL (`up --tls local` turns it on)";
        return Finding::good(WHAT, how);
    };
    match &tls.certificate {
        Certificate::Local => local(config),
        Certificate::Files { chain, key } => files(config, Files::new(chain.clone(), key.clone())),
        Certificate::Acme(_) => by_acme(config),
    }
}

fn local(config: &Config) -> Finding {
    let Ok(record) = fs::read_to_string(tls_authority(&config.data_dir)) else {
        return Finding::good(WHAT, "its authority is made by the first start");
    };
    match Authority::read(&record) {
        Ok(authority) if authority.serves(&config.local_names(), now()) => {
            let end = day(authority.not_after());
            Finding::good(WHAT, format!("an authority of our own, until {end}"))
        }
        Ok(_) => Finding::warning(
            WHAT,
            "the authority is for other names, or ends soon: the next start makes another one",
            "Whoever trusts ca.pem must do so again",
        ),
        Err(error) => Finding::fatal(
            WHAT,
            chain(&error),
            "Remove secrets/tls_authority.json to have another one made",
        ),
    }
}

fn files(config: &Config, mut files: Files) -> Finding {
    match files.read() {
        Ok((_, checked)) => held(config, &checked),
        Err(error) => Finding::fatal(WHAT, chain(&error), "Mend tls.certificate and tls.key"),
    }
}

fn by_acme(config: &Config) -> Finding {
    let path = acme::certificate_path(&DataDir::acme(&config.data_dir));
    let (chain, key) = (path.clone(), path);
    match Files::new(chain, key).read() {
        Ok((_, checked)) => held(config, &checked),
        Err(_) => Finding::warning(
            WHAT,
            "no certificate was had by ACME yet",
            "The log of `up` says why, once it was tried",
        ),
    }
}

fn held(config: &Config, checked: &Checked) -> Finding {
    let end = day(checked.validity.not_after);
    if let Err(error) = checked.holds(now()) {
        return Finding::warning(WHAT, error.to_string(), "Clients refuse it: replace it");
    }
    let name = format!("49983-sandbox.{}", config.host());
    if !checked.covers(&name) {
        let found = format!("a certificate until {end}, not for *.{}", config.host());
        return Finding::warning(WHAT, found, "Hosts of sandboxes, as of get_host(), need it");
    }
    Finding::good(WHAT, format!("a certificate until {end}"))
}
