//! `feast-registry self-test`.

use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use feast_registry::proto::core::{DataSource, Entity, EntitySpecV2, FeatureSpecV2, FeatureView, FeatureViewSpec};
use feast_registry::{Encoded, RegistryConfig};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use prost_types::Timestamp;
use tonic::transport::Channel;

use super::client::{Address, call};
use super::private::{PrivateFolder, PrivateServer};
use super::{Cli, output};
use crate::ServeOptions;
use crate::proto::apply_feature_view_request::BaseFeatureView;
use crate::proto::{
    ApplyDataSourceRequest, ApplyEntityRequest, ApplyFeatureViewRequest, ApplyMaterializationRequest,
    GetFeatureViewRequest,
};

const PROJECT: &str = "self_test";
const VIEW: &str = "driver_hourly_stats";
/// What was materialized: a day, in seconds since 1970.
const MATERIALIZED: (i64, i64) = (1_767_225_600, 1_767_312_000);
const WITHIN: Duration = Duration::from_secs(10);

/// Prove that the registry works here, in about a second.
///
/// It serves a registry in a temporary SQLite file on a socket, calls it as Feast's SDK does (applies an entity, a data source and a feature
/// view, records a materialization, reads all of it back), stops it, opens the file again and reads once more. It touches no other registry,
/// needs no network, and removes what it has made.
#[derive(Debug, Args)]
pub(crate) struct SelfTest {}

impl SelfTest {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let began = Instant::now();
        let folder = PrivateFolder::new()?;
        let file = folder.path().join("registry.db");
        let path = percent_encode(file.as_os_str().as_bytes(), NON_ALPHANUMERIC);
        let config = RegistryConfig::new(format!("sqlite:///{path}").parse()?);
        for step in [Step::Write, Step::Read] {
            let registry = cli.schemes.open(&config).await.context("SQLite")?;
            let socket = folder.listen()?;
            let address = socket.address();
            let server = PrivateServer::start(registry, socket, ServeOptions::default());
            let channel = Address { server: &address, ca: None, within: WITHIN }.connect().await?;
            let started = Instant::now();
            step.run(&channel).await?;
            let milliseconds = started.elapsed().as_secs_f64() * 1e3;
            output::print(format!("{}: ok, {milliseconds:.0} ms\n", step.name()).as_bytes())?;
            drop(channel);
            server.stop().await?;
        }
        let seconds = began.elapsed().as_secs_f64();
        output::print(format!("{} {} works: {seconds:.1} s\n", cli.name, cli.whole_version()).as_bytes())
    }
}

/// What is done with a server.
#[derive(Clone, Copy)]
enum Step {
    Write,
    Read,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Write => "apply, materialize and read back",
            Self::Read => "read back from the file, opened again",
        }
    }

    async fn run(self, channel: &Channel) -> Result<()> {
        if matches!(self, Self::Write) {
            write(channel).await?;
        }
        let request = GetFeatureViewRequest { name: VIEW.to_owned(), project: PROJECT.to_owned(), allow_cache: false };
        let stored: FeatureView = of(channel, "GetFeatureView", request).await?;
        let intervals = stored.meta.map(|meta| meta.materialization_intervals).unwrap_or_default();
        let seconds = |time: &Option<Timestamp>| time.as_ref().map(|time| time.seconds);
        let found: Vec<_> = intervals.iter().map(|one| (seconds(&one.start_time), seconds(&one.end_time))).collect();
        ensure!(
            found == [(Some(MATERIALIZED.0), Some(MATERIALIZED.1))] && stored.spec == view().spec,
            "what was read is not what was written: {found:?}"
        );
        Ok(())
    }
}

async fn write(channel: &Channel) -> Result<()> {
    let project = || PROJECT.to_owned();
    let spec = EntitySpecV2 { name: "driver".to_owned(), join_key: "driver_id".to_owned(), ..Default::default() };
    let entity = Some(Encoded::new(&Entity { spec: Some(spec), meta: None }));
    let request = ApplyEntityRequest { entity, project: project(), commit: true };
    let () = of(channel, "ApplyEntity", request).await?;
    let data_source = Some(Encoded::new(&source()));
    let request = ApplyDataSourceRequest { data_source, project: project(), commit: true };
    let () = of(channel, "ApplyDataSource", request).await?;
    let base_feature_view = Some(BaseFeatureView::FeatureView(Encoded::new(&view())));
    let request = ApplyFeatureViewRequest { project: project(), commit: true, base_feature_view };
    let () = of(channel, "ApplyFeatureView", request).await?;
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let request = ApplyMaterializationRequest {
        feature_view: Some(Encoded::new(&view())),
        project: project(),
        start_date: time(MATERIALIZED.0),
        end_date: time(MATERIALIZED.1),
        commit: true,
    };
    of(channel, "ApplyMaterialization", request).await
}

fn source() -> DataSource {
    DataSource { name: "driver_stats".to_owned(), timestamp_field: "event_timestamp".to_owned(), ..Default::default() }
}

fn view() -> FeatureView {
    let feature = FeatureSpecV2 { name: "conv_rate".to_owned(), value_type: 5, ..Default::default() };
    let spec = FeatureViewSpec {
        name: VIEW.to_owned(),
        project: PROJECT.to_owned(),
        entities: vec!["driver".to_owned()],
        features: vec![feature],
        batch_source: Some(source()),
        online: true,
        ..Default::default()
    };
    FeatureView { spec: Some(spec), meta: None }
}

/// The answer of one of Feast's methods.
async fn of<Q, A>(channel: &Channel, method: &str, request: Q) -> Result<A>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let path = format!("/feast.registry.RegistryServer/{method}").parse()?;
    let answer = call(channel, path, request).await;
    answer.map_err(|status| anyhow!("{method} failed: {}", status.message()))
}
