//! The Redis adapter against the contract.

use casemate_catalog::RedisCatalog;
use casemate_catalog::testing::Redis;

pub(crate) async fn open() -> Option<Box<RedisCatalog>> {
    if !Redis::is_wanted() {
        return None;
    }
    let settings = Redis::shared().settings();
    Some(Box::new(RedisCatalog::open(settings).unwrap()))
}

casemate_catalog::catalog_conformance!(open);
