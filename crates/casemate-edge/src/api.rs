//! The API behind the edge, whatever type it has.

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::Service;

use crate::body::{BoxError, EdgeBody, RequestBody};
use crate::connection::Busy;
use crate::refusal::{Format, Refusal};
use crate::target::TargetError;

type Answer = Pin<Box<dyn Future<Output = Response<EdgeBody>> + Send>>;

/// The API's service with its type forgotten.
#[derive(Clone)]
pub(crate) struct Api(Arc<dyn Fn(Request<RequestBody>, Busy) -> Answer + Send + Sync>);

impl Api {
    pub(crate) fn new<A, B>(service: A) -> Self
    where
        A: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
        A: Clone + Send + Sync + 'static,
        A::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Arc::new(move |request, busy| {
            let mut service = service.clone();
            Box::pin(async move {
                let answered = async {
                    poll_fn(|cx| service.poll_ready(cx)).await?;
                    service.call(request).await
                };
                match answered.await {
                    Ok(response) => response.map(|body| EdgeBody::api(body, busy)),
                    Err(never) => match never {},
                }
            })
        }))
    }

    pub(crate) async fn call(
        &self,
        request: Request<RequestBody>,
        busy: Busy,
    ) -> Response<EdgeBody> {
        (self.0)(request, busy).await
    }
}

/// Stands where the API would on an edge without one: 400 `Invalid host`.
#[derive(Debug, Clone, Copy)]
pub struct InvalidHost;

impl<B> Service<Request<B>> for InvalidHost {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let refusal = Refusal::Target(TargetError::InvalidHost);
        ready(Ok(refusal.response(Format::Json, "").map(Full::new)))
    }
}
