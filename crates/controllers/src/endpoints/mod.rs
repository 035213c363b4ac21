//! The endpoints of services: slices for pods that a selector selects, the older kind `Endpoints`
//! beside them, and slices for the `Endpoints` that somebody else writes. What of a service's topology keys is not
//! understood is told here, too.

mod kinds;
mod legacy;
mod members;
mod mirror;
mod plan;
mod slices;
mod subsets;
mod topology;
mod write;

use std::sync::Arc;

use kube::Api;

use crate::{context::Context, informer::Informer};
use kinds::{EndpointSlice, Endpoints};

/// The controllers; they share the caches of slices and endpoints.
pub(crate) struct Controllers {
    slices: slices::Controller,
    legacy: legacy::Controller,
    mirror: mirror::Controller,
    topology: topology::Controller,
    slice_cache: Informer<EndpointSlice>,
    endpoints_cache: Informer<Endpoints>,
}

impl Controllers {
    pub(crate) fn new(context: &mut Context) -> Self {
        let mut slice_cache = Informer::new(vec![(crate::informer::Index::Service, by_service)]);
        let mut endpoints_cache = Informer::new(Vec::new());
        Self {
            slices: slices::Controller::new(context, &mut slice_cache),
            legacy: legacy::Controller::new(context, &mut endpoints_cache),
            mirror: mirror::Controller::new(context, &mut slice_cache, &mut endpoints_cache),
            topology: topology::Controller::new(context),
            slice_cache,
            endpoints_cache,
        }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        futures::join!(
            self.slice_cache.run(Api::all(context.client.clone())),
            self.endpoints_cache.run(Api::all(context.client.clone())),
            self.slices.run(&context, &self.slice_cache),
            self.legacy.run(&context, &self.endpoints_cache),
            self.mirror.run(&context, &self.slice_cache, &self.endpoints_cache),
            self.topology.run(&context),
        );
    }
}

fn by_service(slice: &EndpointSlice) -> Vec<Arc<str>> {
    let key = write::service_of(slice);
    key.map(|key| key.to_string().as_str().into()).into_iter().collect()
}
