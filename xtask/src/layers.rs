//! Who knows whom, against who may.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::workspace::{Package, Workspace};

/// `layers.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    crates: BTreeMap<String, Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    layer: u8,
    may_use: Vec<String>,
    must_not: Vec<String>,
}

/// Every violation, in words. The rules are checked as well: an edge that they allow may not go up.
pub fn check(rules: &Rules, workspace: &Workspace) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, rule) in &rules.crates {
        if !workspace
            .packages
            .iter()
            .any(|package| package.name == *name)
        {
            violations.push(format!("layers.toml: {name} is no crate of this workspace"));
        }
        for used in &rule.may_use {
            match rules.crates.get(used) {
                None => violations.push(format!("layers.toml: {name} may use {used}: unknown")),
                Some(other) if other.layer > rule.layer => violations.push(format!(
                    "layers.toml: {name} (layer {}) may use {used} (layer {}): that goes up",
                    rule.layer, other.layer
                )),
                Some(_) => {}
            }
        }
    }
    for package in &workspace.packages {
        match rules.crates.get(&package.name) {
            None => violations.push(format!("{} has no layer in layers.toml", package.name)),
            Some(rule) => violations.extend(edges(package, rule, workspace)),
        }
    }
    violations
}

fn edges(package: &Package, rule: &Rule, workspace: &Workspace) -> Vec<String> {
    let is_ours = |name: &str| {
        workspace
            .packages
            .iter()
            .any(|package| package.name == name)
    };
    let mut violations = Vec::new();
    for used in package.dependencies() {
        if rule.must_not.iter().any(|name| name == used) {
            violations.push(format!("{} must not know {used}", package.name));
        } else if is_ours(used) && !rule.may_use.iter().any(|name| name == used) {
            violations.push(format!(
                "{} uses {used}, which no rule allows",
                package.name
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    const RULES: &str = r#"
        [crates.low]
        layer = 0
        may_use = []
        must_not = ["axum"]
        [crates.high]
        layer = 1
        may_use = ["low"]
        must_not = []
    "#;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
        };
        Package {
            name: name.to_owned(),
            manifest_path: format!("/w/{name}/Cargo.toml").into(),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    #[track_caller]
    fn check_violations(rules: &str, packages: Vec<Package>, expected: &[&str]) {
        let rules = toml::from_str(rules).unwrap();
        assert_eq!(check(&rules, &Workspace { packages }), expected);
    }

    #[test]
    fn an_edge_down_that_is_named_is_fine_and_tests_may_use_more() {
        let low = package(
            "low",
            &[
                ("serde", None),
                ("high", Some("dev")),
                ("axum", Some("dev")),
            ],
        );
        check_violations(RULES, vec![low, package("high", &[("low", None)])], &[]);
    }

    #[test]
    fn an_edge_that_nobody_allowed_is_named() {
        let low = package("low", &[("high", None), ("axum", Some("build"))]);
        let expected = [
            "low uses high, which no rule allows",
            "low must not know axum",
        ];
        check_violations(RULES, vec![low, package("high", &[])], &expected);
    }

    #[test]
    fn rules_and_workspace_must_name_the_same_crates() {
        let expected = [
            "layers.toml: high is no crate of this workspace",
            "new has no layer in layers.toml",
        ];
        check_violations(
            RULES,
            vec![package("low", &[]), package("new", &[])],
            &expected,
        );
    }

    #[test]
    fn a_rule_that_goes_up_is_a_violation_of_its_own() {
        let rules = RULES.replace(
            "layer = 0\n        may_use = []",
            "layer = 0\n        may_use = [\"high\", \"none\"]",
        );
        let expected = [
            "layers.toml: low (layer 0) may use high (layer 1): that goes up",
            "layers.toml: low may use none: unknown",
        ];
        check_violations(
            &rules,
            vec![package("low", &[]), package("high", &[])],
            &expected,
        );
    }
}
