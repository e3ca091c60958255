//! A recipe's login as the registry's client takes it.

use casemate_images::Credentials;

use crate::recipe::RegistryLogin;

pub(super) fn credentials(login: Option<&RegistryLogin>) -> Credentials {
    match login.cloned() {
        None => Credentials::Anonymous,
        Some(RegistryLogin::Basic { username, password }) => {
            Credentials::Basic { username, password }
        }
        Some(RegistryLogin::Aws {
            access_key_id,
            secret_access_key,
            region,
        }) => Credentials::Aws {
            access_key_id,
            secret_access_key,
            region,
        },
        Some(RegistryLogin::Gcp {
            service_account_json,
        }) => Credentials::Gcp {
            service_account_json,
        },
    }
}
