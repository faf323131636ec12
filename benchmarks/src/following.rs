//! What it costs a server that another one has written: the same database, cached reads at the second one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use feast_registry::proto::core::{FeatureSpecV2, FeatureView};
use feast_registry::{ApplyOptions, Encoded, Kind, Object, RegistryConfig};
use feast_registry_server::proto::{GetFeatureViewRequest, RefreshRequest};

use crate::operation::apply_view;
use crate::report::{Report, median, number};
use crate::sample::PROJECT;
use crate::server::{Client, Server};
use crate::setup::Setup;

/// Feature views in the registry.
const VIEWS: usize = 20_000;
const VIEWS_QUICK: usize = 2000;
/// Writes that are measured, and the pause between two.
const WRITES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(25);
/// Everything is read anew so often.
const REFRESHES: u32 = 5;
/// For so long a write may take to show.
const SHOWS_WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn measure(setup: &Setup, report: &mut Report) -> Result<()> {
    let views = if setup.is_quick { VIEWS_QUICK } else { VIEWS };
    eprintln!("two servers on one SQLite file with {views} feature views");
    let file = setup.registry(0)?;
    let url = format!("sqlite:///{}", file.display());
    fill(setup, &url, views).await?;
    let folder = file.parent().context("a registry file without a folder")?;
    let (one, other) = (folder.join("one"), folder.join("other"));
    for folder in [&one, &other] {
        std::fs::create_dir_all(folder)?;
    }
    let (writes_at, reads_at) = (setup.ours.start(&one, &url).await?, setup.ours.start(&other, &url).await?);
    let (mut writer, mut reader) = (writes_at.connect().await?, reads_at.connect().await?);
    read_cached(&mut reader, &name(0)).await?;

    let refresh = RefreshRequest { project: PROJECT.to_owned() };
    let began = used(&reads_at)?;
    for _ in 0..REFRESHES {
        reader.refresh(refresh.clone()).await?;
    }
    let refreshed = (used(&reads_at)? - began) / REFRESHES;

    let took = WRITES * PAUSE;
    let began = used(&reads_at)?;
    tokio::time::sleep(took).await;
    let idle = used(&reads_at)? - began;
    let began = used(&reads_at)?;
    let until = Instant::now() + took;
    for write in 0..WRITES {
        change(setup, &mut writer, write as usize).await?;
        tokio::time::sleep(PAUSE).await;
    }
    tokio::time::sleep(until.saturating_duration_since(Instant::now()) + Duration::from_secs(1)).await;
    let followed = (used(&reads_at)?.saturating_sub(began).saturating_sub(idle)) / WRITES;

    let mut lags = Vec::new();
    for write in 0..20 {
        let before = read_cached(&mut reader, &name(write)).await?;
        change(setup, &mut writer, write).await?;
        let began = Instant::now();
        while read_cached(&mut reader, &name(write)).await? == before {
            ensure!(began.elapsed() < SHOWS_WITHIN, "a write does not show at the other server");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        lags.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let slowest = lags.iter().copied().fold(0.0, f64::max);

    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    report.heading(&format!(
        "A write of one server, and cached reads of another on the same SQLite file ({views} feature views)"
    ));
    let ratio = millis(refreshed) / millis(followed).max(f64::MIN_POSITIVE);
    report.table(
        &["processor time of the other server", "ms"],
        &[
            vec!["to follow a write".to_owned(), number(millis(followed))],
            vec!["to read everything anew".to_owned(), number(millis(refreshed))],
            vec!["reading anew / following".to_owned(), number(ratio)],
            vec!["a second without writes".to_owned(), number(millis(idle) / took.as_secs_f64())],
        ],
    );
    report.table(
        &["until a write shows at the other server", "ms"],
        &[
            vec!["median".to_owned(), median(lags).map(number).unwrap_or_default()],
            vec!["slowest of 20".to_owned(), number(slowest)],
        ],
    );
    writes_at.stop().await?;
    reads_at.stop().await
}

fn used(server: &Server) -> Result<Duration> {
    server.processor_time().context("this system does not tell the processor time of a process")
}

fn name(number: usize) -> String {
    format!("following_{number:05}")
}

/// Fills a registry as one that embeds it does.
async fn fill(setup: &Setup, url: &str, views: usize) -> Result<()> {
    let registry = feast_registry::open(&RegistryConfig::new(url.parse()?)).await?;
    let samples = &setup.sample.views;
    let numbers: Vec<usize> = (0..views).collect();
    for part in numbers.chunks(500) {
        let objects = part.iter().map(|number| {
            let view = samples[number % samples.len()].named(name(*number));
            Object::new(Kind::FeatureView, view.into_bytes())
        });
        registry.apply_all(PROJECT, objects.collect(), ApplyOptions::default()).await?;
    }
    registry.close().await?;
    Ok(())
}

/// A view gets a feature that it did not have.
async fn change(setup: &Setup, client: &mut Client, number: usize) -> Result<()> {
    let views = &setup.sample.views;
    let mut spec = views[number % views.len()].message.spec.clone().unwrap_or_default();
    spec.name = name(number);
    let feature = format!("feature_{}", setup.sample.serial());
    spec.features.push(FeatureSpecV2 { name: feature, value_type: 4, ..Default::default() });
    apply_view(client, Encoded::new(&FeatureView { spec: Some(spec), meta: None })).await
}

async fn read_cached(client: &mut Client, name: &str) -> Result<Encoded<FeatureView>> {
    let request = GetFeatureViewRequest { name: name.to_owned(), project: PROJECT.to_owned(), allow_cache: true };
    Ok(client.get_feature_view(request).await?.into_inner())
}
