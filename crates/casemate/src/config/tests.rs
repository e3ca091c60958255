use super::guide::{Meaning, NAMES};
use super::*;

fn environment(pairs: &[(&str, &str)]) -> anyhow::Result<(Config, Vec<String>)> {
    from("", pairs)
}

fn from(file: &str, pairs: &[(&str, &str)]) -> anyhow::Result<(Config, Vec<String>)> {
    let mut table = RawConfig::defaults_as_table();
    environment::merge_file(&mut table, file)?;
    let mut warnings = Vec::new();
    let pairs = pairs
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    environment::merge_environment(&mut table, pairs, &mut warnings)?;
    Ok((check(table.try_into()?, &Flags::default())?, warnings))
}

#[track_caller]
fn check_refused(file: &str, pairs: &[(&str, &str)], part: &str) {
    let error = format!("{:#}", from(file, pairs).expect_err("this must be refused"));
    assert!(error.contains(part), "{error:?} does not say {part:?}");
}

#[test]
fn defaults_are_those_of_the_guide() {
    let (config, warnings) = environment(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.data_dir.to_str(), Some("/var/lib/casemate"));
    assert_eq!(config.domain, "localhost:8080");
    assert!(config.domain_is_default && config.metrics == MetricsAccess::Token);
    assert_eq!(config.limits.sandbox_timeout_seconds, 300);
    assert!(warnings.is_empty());
}

#[test]
fn names_of_ours_win_over_the_guides_and_both_over_the_file() {
    let file = "[limits]\nsandboxes_max = 5\nmemory_overcommit = 2\n[log]\nlevel = \"debug\"";
    let (config, _) = from(file, &[]).unwrap();
    assert_eq!(
        (config.limits.sandboxes_max, &*config.log.level),
        (5, "debug")
    );
    let pairs = [
        ("CASEMATE_LIMITS_SANDBOXES_MAX", "7"),
        ("MAX_SANDBOXES", "6"),
    ];
    assert_eq!(from(file, &pairs).unwrap().0.limits.sandboxes_max, 7);
    assert_eq!(from(file, &pairs[1..]).unwrap().0.limits.sandboxes_max, 6);
}

#[test]
fn a_section_may_have_the_character_that_parts_it_from_its_key() {
    let pairs = [
        ("CASEMATE_RATE_LIMITS_CREATES_PER_SECOND", "0.5"),
        ("CASEMATE_WARM_POOL_SIZE", "3"),
    ];
    let (config, _) = from("[rate_limits]\nreads_per_second = 20", &pairs).unwrap();
    let limits = &config.rate_limits;
    assert_eq!(
        (limits.creates_per_second, limits.reads_per_second),
        (0.5, 20.0)
    );
    assert_eq!((limits.changes_per_second, config.warm_pool.size), (0.0, 3));
    let unknown = "CASEMATE_RATE_LIMITS_READS";
    check_refused("", &[(unknown, "1")], "keys of [rate_limits] are");
    check_refused("", &[("CASEMATE_RATE_LIMIT", "1")], "sections are");
    for (key, wrong) in [
        ("creates_per_second", "-1"),
        ("changes_per_second", "nan"),
        ("reads_per_second", "200000"),
        ("creates_burst", "0"),
    ] {
        let file = format!("[rate_limits]\n{key} = {wrong}");
        check_refused(&file, &[], &format!("rate_limits.{key} must be"));
    }
}

#[test]
fn wrong_settings_name_themselves() {
    check_refused("[limit]", &[], "unknown section [limit]");
    check_refused(
        "[limits]\nsandboxes = 3",
        &[],
        "unknown key limits.sandboxes",
    );
    check_refused("[limits]\nsandboxes_max = \"3\"", &[], "sandboxes_max");
    check_refused(
        "",
        &[("CASEMATE_LIMITS_SANDBOXES", "3")],
        "CASEMATE_LIMITS_SANDBOXES",
    );
    check_refused("", &[("MAX_SANDBOXES", "many")], "MAX_SANDBOXES=many");
    check_refused("", &[("MAX_SANDBOXES", "0")], "must be 1 to 2000, got 0");
    check_refused("", &[("API_KEY_SECRET", "short")], "at least 32 bytes");
    check_refused(
        "",
        &[("CASEMATE_SERVER_LISTEN", "8080")],
        "is not ADDRESS:PORT",
    );
    check_refused(
        "",
        &[("CASEMATE_SERVER_DOMAIN", "a b")],
        "is not NAME or NAME:PORT",
    );
    check_refused(
        "",
        &[("CASEMATE_SERVER_METRICS", "open")],
        "neither \"token\" nor \"public\"",
    );
    check_refused(
        "",
        &[("CASEMATE_NETWORK_ALLOW_RANGES", "10.0.0.0/8,x")],
        "\"x\"",
    );
    check_refused(
        "",
        &[("CASEMATE_HISTORY_METRICS_DAYS", "0")],
        "history.metrics_days must be 1 to 365, got 0",
    );
    check_refused("[history]\nmib_max = 1", &[], "must be at least 16, got 1");
}

#[test]
fn https_changes_the_domain_of_whoever_named_none() {
    let local = ("CASEMATE_TLS_MODE", "local");
    let (config, _) = environment(&[local]).unwrap();
    assert_eq!(config.domain, "casemate.localhost:8443");
    assert!(config.domain_is_default);
    assert_eq!(config.https_port(), 8443);
    let names = config.local_names();
    assert_eq!(names.hosts, ["casemate.localhost", "localhost"]);
    assert_eq!(names.addresses.len(), 2);
    let usual = ("CASEMATE_TLS_LISTEN", "0.0.0.0:443");
    let (config, _) = environment(&[local, usual]).unwrap();
    assert_eq!(
        (&*config.domain, config.https_port()),
        ("casemate.localhost", 443)
    );
    assert!(environment(&[]).unwrap().0.tls.is_none());
}

#[test]
fn what_an_authority_is_asked_for_depends_on_what_it_can_look_at() {
    let file = "[server]\ndomain = \"box.example\"\nedge_hosts = [\"10.0.0.1\", \"box\", \"b.example:8\"]\n\
                [tls]\nmode = \"acme\"\nacme_terms_agreed = true";
    let names = |more: &str| {
        let config = from(&format!("{file}\n{more}"), &[]).unwrap().0;
        let Some(Tls {
            certificate: tls::Certificate::Acme(acme),
            ..
        }) = &config.tls
        else {
            panic!("acme was asked for");
        };
        config.acme_names(&acme.challenge)
    };
    assert_eq!(
        names(""),
        [
            "box.example",
            "api.box.example",
            "sandbox.box.example",
            "b.example"
        ]
    );
    let dns = "acme_challenge = \"dns-01\"\nacme_dns_hook = \"/bin/hook\"";
    assert_eq!(names(dns), ["box.example", "*.box.example", "b.example"]);
}

#[test]
fn https_that_cannot_work_is_refused() {
    let refused = |pairs: &[(&str, &str)], part: &str| check_refused("", pairs, part);
    refused(
        &[("CASEMATE_TLS_MODE", "on")],
        "none of off, local, files, acme",
    );
    let local = ("CASEMATE_TLS_MODE", "local");
    refused(
        &[local, ("CASEMATE_TLS_LISTEN", "8443")],
        "tls.listen: \"8443\" is not",
    );
    let one_label = ("CASEMATE_SERVER_DOMAIN", "localhost:8443");
    refused(&[local, one_label], "has one label");
    let files = ("CASEMATE_TLS_MODE", "files");
    refused(&[files], "tls.certificate must be set");
    refused(
        &[files, ("CASEMATE_TLS_CERTIFICATE", "c.pem")],
        "no absolute path",
    );
    let acme = ("CASEMATE_TLS_MODE", "acme");
    refused(&[acme], "tls.acme_terms_agreed must be true");
    let agreed = ("CASEMATE_TLS_ACME_TERMS_AGREED", "true");
    refused(&[acme, agreed], "needs server.domain");
    let domain = ("CASEMATE_SERVER_DOMAIN", "box.example");
    let dns = ("CASEMATE_TLS_ACME_CHALLENGE", "dns-01");
    refused(
        &[acme, agreed, domain, dns],
        "tls.acme_dns_hook must be set",
    );
    let clear = ("CASEMATE_TLS_ACME_DIRECTORY", "http://a.example");
    refused(&[acme, agreed, domain, clear], "is no https URL");
}

#[test]
fn a_public_url_is_scheme_name_and_port() {
    let url = |text: &str| environment(&[("CASEMATE_SERVER_PUBLIC_URL", text)]);
    assert_eq!(url("").unwrap().0.public_url, None);
    for (text, expected) in [
        ("https://box.example", "https://box.example"),
        ("https://box.example:8443/", "https://box.example:8443"),
        ("http://10.0.0.1:80", "http://10.0.0.1:80"),
    ] {
        assert_eq!(url(text).unwrap().0.public_url.as_deref(), Some(expected));
    }
    for wrong in [
        "box.example",
        "ftp://box.example",
        "https://",
        "https://box.example//",
        "https://box.example/api",
        "https://box.example?x",
        "https://me@box.example",
        "https://box.example:port",
        "https://box example",
    ] {
        let pairs = [("CASEMATE_SERVER_PUBLIC_URL", wrong)];
        check_refused("", &pairs, "server.public_url");
    }
}

#[test]
fn members_are_told_where_the_api_servers_are() {
    let cluster = |pairs: &[(&str, &str)]| environment(pairs).unwrap().0.cluster;
    let found = cluster(&[]);
    assert_eq!(found.listen.to_string(), "0.0.0.0:8082");
    assert_eq!(found.health_listen.to_string(), "127.0.0.1:8090");
    assert_eq!((found.address, found.name), (None, None));
    assert_eq!(found.lost_after, Some(Duration::from_secs(600)));
    let found = cluster(&[("CASEMATE_CLUSTER_LOST_AFTER_SECONDS", "0")]);
    assert_eq!(found.lost_after, None);
    let found = cluster(&[("API_URL", "http://api-service:8080, a2:9000,https://b")]);
    assert_eq!(found.api, ["api-service:8082", "a2:9000", "b:8082"]);
    let pairs = [
        ("CASEMATE_CLUSTER_LISTEN", "10.0.0.7:9"),
        ("CASEMATE_CLUSTER_LABELS", "disk=nvme,zone=a=b"),
    ];
    let found = cluster(&pairs);
    assert_eq!(found.address.as_deref(), Some("10.0.0.7:9"));
    assert_eq!(found.labels["disk"], "nvme");
    assert_eq!(found.labels["zone"], "a=b");
    for (name, value, part) in [
        ("CASEMATE_CLUSTER_LISTEN", "8082", "is not ADDRESS:PORT"),
        ("CASEMATE_HEALTH_LISTEN", "x", "health.listen"),
        (
            "CASEMATE_CLUSTER_NAME",
            "Node_1",
            "cannot be a member's name",
        ),
        ("CASEMATE_CLUSTER_ADDRESS", "host", "is not HOST:PORT"),
        ("CASEMATE_CLUSTER_API", "host", "is not HOST:PORT"),
        ("CASEMATE_CLUSTER_LABELS", "=a", "is not NAME=VALUE"),
        (
            "CASEMATE_CLUSTER_LOST_AFTER_SECONDS",
            "59",
            "cluster.lost_after_seconds",
        ),
    ] {
        check_refused("", &[(name, value)], part);
    }
}

#[test]
fn secrets_are_not_printed() {
    let token = environment(&[("JOIN_TOKEN", "casemate-join.x")]).unwrap().0;
    assert!(!format!("{token:?}").contains("casemate-join"));
    let secret = "0123456789abcdef0123456789abcdef";
    let (config, _) = environment(&[("API_KEY_SECRET", secret)]).unwrap();
    assert_eq!(config.api_key_secret.expose(), secret);
    assert!(!format!("{config:?}").contains(secret));
}

#[test]
fn every_name_of_the_guide_has_an_effect_or_a_warning_and_is_documented() {
    let docs = include_str!("../../../../docs/configuration.md");
    for (name, meaning) in NAMES {
        let documented = docs
            .lines()
            .any(|line| line.starts_with(&format!("| `{name}` |")));
        assert!(documented, "{name} is not in docs/configuration.md");
        if let Meaning::Nothing(_) = meaning {
            let (_, warnings) = environment(&[(name, "1")]).unwrap();
            assert_eq!(warnings.len(), 1);
            assert!(warnings[0].starts_with(&format!("{name} has no effect: ")));
        }
    }
}

#[test]
fn every_key_is_documented() {
    let docs = include_str!("../../../../docs/configuration.md");
    for (section, keys) in RawConfig::defaults_as_table() {
        for key in keys.as_table().unwrap().keys() {
            let documented = docs.contains(&format!("`{section}.{key}`"));
            assert!(
                documented,
                "{section}.{key} is not in docs/configuration.md"
            );
        }
    }
}
