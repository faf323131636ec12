//! The calls that are measured.

use std::fmt;
use std::sync::Arc;

use anyhow::{Result, ensure};
use feast_registry::Encoded;
use feast_registry::proto::core::FeatureView;
use feast_registry_server::proto::apply_feature_view_request::BaseFeatureView;
use feast_registry_server::proto::{
    ApplyEntityRequest, ApplyFeatureViewRequest, ApplyMaterializationRequest, GetFeatureViewRequest,
    ListFeatureViewsRequest,
};
use prost_types::Timestamp;

use crate::load::Call;
use crate::sample::{PROJECT, Sample, entity};
use crate::server::{Client, Server};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    GetFeatureView {
        allow_cache: bool,
    },
    ListFeatureViews {
        allow_cache: bool,
    },
    Proto,
    /// With one feature more or another one, so that each is a new version. Callers have views of their own.
    ApplyFeatureView,
    /// An hour that was not materialized before.
    ApplyMaterialization,
    /// A new one each time.
    ApplyEntity,
}

impl Operation {
    /// Reads first: they find the data as Feast made it.
    pub(crate) const ALL: [Self; 8] = [
        Self::GetFeatureView { allow_cache: true },
        Self::GetFeatureView { allow_cache: false },
        Self::ListFeatureViews { allow_cache: true },
        Self::ListFeatureViews { allow_cache: false },
        Self::Proto,
        Self::ApplyFeatureView,
        Self::ApplyMaterialization,
        Self::ApplyEntity,
    ];

    pub(crate) fn is_write(self) -> bool {
        matches!(self, Self::ApplyFeatureView | Self::ApplyMaterialization | Self::ApplyEntity)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GetFeatureView { allow_cache: true } => "GetFeatureView, cached",
            Self::GetFeatureView { allow_cache: false } => "GetFeatureView",
            Self::ListFeatureViews { allow_cache: true } => "ListFeatureViews, cached",
            Self::ListFeatureViews { allow_cache: false } => "ListFeatureViews",
            Self::Proto => "Proto",
            Self::ApplyFeatureView => "ApplyFeatureView (schema changed)",
            Self::ApplyMaterialization => "ApplyMaterialization",
            Self::ApplyEntity => "ApplyEntity (new)",
        })
    }
}

impl Call for Operation {
    type Caller = Caller;

    async fn connect(self, server: &Server, sample: &Arc<Sample>, number: usize, count: usize) -> Result<Caller> {
        Caller::connect(server, sample, number, count).await
    }

    async fn make(self, caller: &mut Caller) -> Result<()> {
        caller.call(self).await
    }
}

/// One of several callers, with its own connection and its own share of the feature views.
pub(crate) struct Caller {
    client: Client,
    sample: Arc<Sample>,
    position: usize,
    step: usize,
}

impl Caller {
    /// Caller `number` of `count`.
    async fn connect(server: &Server, sample: &Arc<Sample>, number: usize, count: usize) -> Result<Self> {
        ensure!(count <= sample.views.len(), "{count} callers are more than there are views");
        Ok(Self { client: server.connect().await?, sample: Arc::clone(sample), position: number, step: count })
    }

    /// Makes one call and waits for the answer.
    async fn call(&mut self, operation: Operation) -> Result<()> {
        match operation {
            Operation::GetFeatureView { allow_cache } => {
                let view = self.next_view();
                let name = self.sample.views[view].name.clone();
                let request = GetFeatureViewRequest { name, project: PROJECT.to_owned(), allow_cache };
                let view = self.client.get_feature_view(request).await?.into_inner();
                ensure!(!view.as_bytes().is_empty(), "the view is empty");
            }
            Operation::ListFeatureViews { allow_cache } => {
                let request =
                    ListFeatureViewsRequest { project: PROJECT.to_owned(), allow_cache, ..Default::default() };
                let listed = self.client.list_feature_views(request).await?.into_inner().feature_views.len();
                let expected = self.sample.views.len();
                ensure!(listed == expected, "{listed} of {expected} views are listed");
            }
            Operation::Proto => {
                let size = self.client.proto(()).await?.into_inner().as_bytes().len();
                let least = self.sample.views.len() * self.sample.view_size() / 2;
                ensure!(size > least, "the whole registry is no more than {size} bytes");
            }
            Operation::ApplyFeatureView => {
                let feature = format!("benchmark_feature_{}", self.sample.serial());
                let view = self.next_view();
                apply_view(&mut self.client, self.sample.views[view].with_feature(feature)).await?;
            }
            Operation::ApplyMaterialization => {
                let (view, number) = (self.next_view(), self.sample.serial());
                let request = ApplyMaterializationRequest {
                    project: PROJECT.to_owned(),
                    feature_view: Some(self.sample.views[view].bytes.clone()),
                    start_date: Some(hour(number)),
                    end_date: Some(hour(number + 1)),
                    commit: true,
                };
                self.client.apply_materialization(request).await?;
            }
            Operation::ApplyEntity => {
                let entity = Some(entity(self.sample.serial()));
                let request = ApplyEntityRequest { entity, project: PROJECT.to_owned(), commit: true };
                self.client.apply_entity(request).await?;
            }
        }
        Ok(())
    }

    /// Goes on to the next view of this caller's share: every `step`th, round and round.
    fn next_view(&mut self) -> usize {
        let view = self.position;
        self.position += self.step;
        if self.position >= self.sample.views.len() {
            self.position %= self.step;
        }
        view
    }
}

/// Applies a feature view.
pub(crate) async fn apply_view(client: &mut Client, view: Encoded<FeatureView>) -> Result<()> {
    let request = ApplyFeatureViewRequest {
        project: PROJECT.to_owned(),
        commit: true,
        base_feature_view: Some(BaseFeatureView::FeatureView(view)),
    };
    client.apply_feature_view(request).await?;
    Ok(())
}

/// The start of an hour, counted from 2020 (UTC).
pub(crate) fn hour(number: i64) -> Timestamp {
    Timestamp { seconds: 1_577_836_800 + number * 3600, nanos: 0 }
}
