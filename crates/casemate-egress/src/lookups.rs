//! What names led to a moment ago: a page asks for its parts over many connections at once, and each
//! of them needs the same addresses.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use casemate_types::network::DomainName;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Names kept at once; at one more, all are forgotten. Each takes some 400 bytes.
const NAMES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Lookups(RefCell<HashMap<DomainName, (Instant, Found)>>);

type Found = Rc<OnceCell<Vec<Ipv4Addr>>>;

impl Lookups {
    /// The addresses of a name: those of a lookup that began less than `kept` ago, else of a new
    /// one. Who comes while it is under way waits for it. Nothing found is not kept.
    ///
    /// # Cancel safety
    /// Whoever else waits goes on with a lookup that is dropped.
    pub(crate) async fn get(
        &self,
        name: &DomainName,
        kept: Duration,
        look: impl Future<Output = Vec<Ipv4Addr>>,
    ) -> Vec<Ipv4Addr> {
        let found = self.found(name, kept);
        let addresses = found.get_or_init(|| look).await.clone();
        if addresses.is_empty() {
            self.0.borrow_mut().remove(name);
        }
        addresses
    }

    pub(crate) fn forget(&self) {
        self.0.borrow_mut().clear();
    }

    fn found(&self, name: &DomainName, kept: Duration) -> Found {
        let mut names = self.0.borrow_mut();
        match names.get(name) {
            Some((begun, found)) if begun.elapsed() < kept => Rc::clone(found),
            _ => {
                if names.len() >= NAMES_MAX {
                    names.clear();
                }
                let found = Found::default();
                names.insert(name.clone(), (Instant::now(), Rc::clone(&found)));
                found
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_lookup_serves_all_for_a_while() {
        let (lookups, kept) = (Lookups::default(), Duration::from_secs(5));
        let name = |text: &str| DomainName::parse(text).unwrap();
        let looked = RefCell::new(0);
        let get = async |text: &str, found: &[Ipv4Addr]| {
            let look = async {
                *looked.borrow_mut() += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
                found.to_vec()
            };
            lookups.get(&name(text), kept, look).await
        };
        let found = [Ipv4Addr::new(198, 51, 100, 1)];
        let both = tokio::join!(get("a.com", &found), get("a.com", &[]));
        assert_eq!(
            (&*both.0, &*both.1, *looked.borrow()),
            (&found[..], &found[..], 1)
        );
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(get("a.com", &[]).await, found);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(get("a.com", &[]).await.is_empty(), "asked again");
        assert_eq!(get("a.com", &found).await, found, "nothing is not kept");
        lookups.forget();
        for number in 0..2 * NAMES_MAX {
            get(&format!("a{number}.com"), &found).await;
        }
        assert!(lookups.0.borrow().len() <= NAMES_MAX);
    }
}
