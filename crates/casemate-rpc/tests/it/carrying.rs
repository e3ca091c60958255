//! Carriers of nodes, asked from another machine.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use casemate_rpc::Wire;
use casemate_rpc::carrier::{
    self, Carrier, CarrierError, FarCarrier, FetchRequest, StoreRequest, Stored,
};
use casemate_rpc::far::{Connect, Purpose};
use casemate_types::{LayerId, Portable};
use tokio::sync::Notify;

/// What it was told comes back; one scope never ends.
#[derive(Default)]
struct Echo {
    begun: Notify,
    given_up: Arc<Notify>,
}

struct GivenUp(Arc<Notify>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl Carrier for Echo {
    async fn store(&self, request: StoreRequest) -> Result<Stored, CarrierError> {
        if request.scope == "never" {
            let _given_up = GivenUp(Arc::clone(&self.given_up));
            self.begun.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(Stored {
            artifact: format!("{} of {}", request.what, request.scope),
            bytes: 7,
            bytes_sent: 3,
        })
    }

    async fn fetch(&self, request: FetchRequest) -> Result<u64, CarrierError> {
        Err(CarrierError::NotThere {
            what: request.what,
            why: request.artifact,
        })
    }
}

/// To a machine that carries, or to none.
struct Cable(Option<Arc<Echo>>);

#[async_trait]
impl Connect for Cable {
    async fn connect(&self, purpose: Purpose) -> io::Result<Box<dyn Wire>> {
        assert_eq!(purpose, Purpose::Carry);
        let (ours, theirs) = tokio::io::duplex(4096);
        let echo = self.0.clone().ok_or(io::ErrorKind::ConnectionRefused)?;
        tokio::spawn(carrier::serve(Box::new(theirs), echo));
        Ok(Box::new(ours))
    }
}

fn store(scope: &str) -> StoreRequest {
    StoreRequest {
        what: Portable::Layer(LayerId::random()),
        scope: scope.into(),
        like: None,
    }
}

#[tokio::test]
async fn a_carrier_far_away_answers_as_one_here() {
    let far = FarCarrier::new(Cable(Some(Arc::default())));
    let request = store("team");
    let stored = far.store(request.clone()).await.unwrap();
    assert_eq!(stored.artifact, format!("{} of team", request.what));
    let fetch = FetchRequest {
        what: request.what.clone(),
        scope: "team".into(),
        artifact: "a-1".into(),
    };
    let missing = CarrierError::NotThere {
        what: request.what,
        why: "a-1".into(),
    };
    assert_eq!(far.fetch(fetch).await, Err(missing));
    let nobody = FarCarrier::new(Cable(None));
    let unreached = nobody.store(store("team")).await;
    assert_eq!(unreached, Err(CarrierError::Unreachable));
}

#[tokio::test]
async fn what_nobody_waits_for_is_given_up_there() {
    let echo = Arc::new(Echo::default());
    let far = FarCarrier::new(Cable(Some(Arc::clone(&echo))));
    let storing = tokio::spawn(async move { far.store(store("never")).await });
    echo.begun.notified().await;
    storing.abort();
    echo.given_up.notified().await;
}
