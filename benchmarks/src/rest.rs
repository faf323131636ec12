//! Feast's REST registry server and ours: reads side by side, and ours alone on a large registry.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use feast_registry::proto::core::{DataSource, FeatureService, FeatureServiceSpec, FeatureViewProjection};
use feast_registry::proto::core::{FeatureView, FeatureViewSpec};
use feast_registry::{ApplyOptions, Encoded, Kind, Object, RegistryConfig};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ETAG, HOST, HeaderValue, IF_NONE_MATCH};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::cells::Cells;
use crate::load::{self, Call};
use crate::report::{Report, number};
use crate::sample::{PROJECT, Sample};
use crate::server::Server;
use crate::setup::{Setup, VIEWS};

/// Feature views of the large registry, and how many of them a feature service has.
const MANY: usize = 10_000;
const MANY_QUICK: usize = 1000;
const VIEWS_PER_SERVICE: usize = 10;

/// Lists with relationships take Feast's server seconds each, so callers come one at a time.
const CALLERS: [usize; 1] = [1];

pub(crate) async fn measure(setup: &Setup, report: &mut Report) -> Result<()> {
    side_by_side(setup, report).await?;
    large(setup, report).await
}

async fn side_by_side(setup: &Setup, report: &mut Report) -> Result<()> {
    let mut cells = Cells::new(["Feast", "ours"], &Get::ALL, &CALLERS);
    for round in 0..setup.rounds {
        let servers = setup.start_both_rest(VIEWS).await?;
        for index in 0..cells.operations().len() {
            cells.measure(index, round, &servers, setup, report).await;
        }
        for server in servers {
            server.stop().await?;
        }
    }
    cells.report(&format!(", REST ({VIEWS} feature views)"), report);
    Ok(())
}

/// What our server takes for its answers when a project is large, and how much memory.
async fn large(setup: &Setup, report: &mut Report) -> Result<()> {
    let views = if setup.is_quick { MANY_QUICK } else { MANY };
    eprintln!("our REST server on {views} feature views");
    let file = setup.registry(0)?;
    let url = format!("sqlite:///{}", file.display());
    fill(setup, &url, views).await?;
    let folder = file.parent().context("a registry file without a folder")?;
    let server = setup.ours.start_rest(folder, &url).await?;
    let idle = server.memory()?;
    let mut rows = Vec::new();
    for get in Get::ALL {
        let mut caller = get.connect(&server, &setup.sample, 0, 1).await?;
        let size = caller.call(get).await? as f64 / 1e6;
        let work = report.take(load::measure(&server, &setup.sample, get, 1, setup.cell).await);
        let figures = work.map(|work| [Some(1e3 / work.rate), work.cost.map(|cost| cost / 1e3)]).unwrap_or_default();
        let [took, cost] = figures.map(|figure| figure.map_or_else(|| "failed".to_owned(), number));
        eprintln!("{get}: {took} ms, {cost} ms of the processor, {} MB", number(size));
        rows.push(vec![get.to_string(), took, cost, number(size)]);
    }
    report
        .heading(&format!("Our REST server on {views} feature views, their sources and {} services", services(views)));
    report.table(&["call", "ms", "processor time, ms", "answer, MB"], &rows);
    let peak = server.peak_memory().map_or_else(String::new, number);
    report.table(
        &["memory (RSS), MB", ""],
        &[vec!["after the start".to_owned(), number(idle)], vec!["at the most".to_owned(), peak]],
    );
    server.stop().await
}

fn services(views: usize) -> usize {
    views.div_ceil(VIEWS_PER_SERVICE)
}

/// Fills a registry with views, a source for each, and services.
async fn fill(setup: &Setup, url: &str, views: usize) -> Result<()> {
    let registry = feast_registry::open(&RegistryConfig::new(url.parse()?)).await?;
    let samples = &setup.sample.views;
    let numbers: Vec<usize> = (0..views).collect();
    for part in numbers.chunks(VIEWS_PER_SERVICE * 50) {
        let mut objects = Vec::new();
        for number in part {
            let sample = &samples[number % samples.len()];
            // Those of the sample have their own names, which both servers are asked for.
            let name = if *number < samples.len() { sample.name.clone() } else { format!("large_{number:05}") };
            let spec = sample.message.spec.clone().unwrap_or_default();
            let source = DataSource { name: format!("{name}_source"), ..spec.batch_source.clone().unwrap_or_default() };
            objects.push(Object::new(Kind::DataSource, Encoded::new(&source).into_bytes()));
            let spec = FeatureViewSpec { name, batch_source: Some(source), ..spec };
            objects.push(Object::new(
                Kind::FeatureView,
                Encoded::new(&FeatureView { spec: Some(spec), meta: None }).into_bytes(),
            ));
        }
        registry.apply_all(PROJECT, objects.clone(), ApplyOptions::default()).await?;
        let views: Vec<Object> = objects.into_iter().filter(|object| object.kind == Kind::FeatureView).collect();
        let services = views.chunks(VIEWS_PER_SERVICE).map(service).collect::<Result<_>>()?;
        registry.apply_all(PROJECT, services, ApplyOptions::default()).await?;
    }
    registry.close().await?;
    Ok(())
}

/// A service that has the first features of views.
fn service(views: &[Object]) -> Result<Object> {
    let projection = |view: &Object| {
        let spec = view.decode::<FeatureView>()?.spec.unwrap_or_default();
        let feature_columns = spec.features.into_iter().take(2).collect();
        Ok(FeatureViewProjection { feature_view_name: spec.name, feature_columns, ..Default::default() })
    };
    let features: Vec<FeatureViewProjection> = views.iter().map(projection).collect::<Result<_>>()?;
    let name = features.first().map(|first| format!("model_of_{}", first.feature_view_name)).unwrap_or_default();
    let spec = FeatureServiceSpec { name, features, ..Default::default() };
    Ok(Object::new(Kind::FeatureService, Encoded::new(&FeatureService { spec: Some(spec), meta: None }).into_bytes()))
}

/// A read over REST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Get {
    View,
    Views,
    ViewsWithRelationships,
    /// The list, by a client who has it. Feast's server answers with all of it again.
    ViewsKnown,
    Search,
    CompleteLineage,
}

impl Get {
    const ALL: [Self; 6] =
        [Self::View, Self::Views, Self::ViewsWithRelationships, Self::ViewsKnown, Self::Search, Self::CompleteLineage];
}

impl fmt::Display for Get {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::View => "one feature view",
            Self::Views => "list of feature views",
            Self::ViewsWithRelationships => "list with relationships",
            Self::ViewsKnown => "list that the client has (`If-None-Match`)",
            Self::Search => "search",
            Self::CompleteLineage => "complete lineage",
        })
    }
}

impl Call for Get {
    type Caller = Caller;

    async fn connect(self, server: &Server, sample: &Arc<Sample>, number: usize, count: usize) -> Result<Caller> {
        let mut caller = Caller {
            client: server.connect_rest().await?,
            sample: Arc::clone(sample),
            position: number,
            step: count,
            known: None,
        };
        if self == Self::ViewsKnown {
            let answer = caller.client.get(&caller.path(self), None).await?;
            caller.known = answer.tag;
        }
        Ok(caller)
    }

    async fn make(self, caller: &mut Caller) -> Result<()> {
        caller.call(self).await.map(drop)
    }
}

/// One of several callers, each of which asks for views of its own.
struct Caller {
    client: Client,
    sample: Arc<Sample>,
    position: usize,
    step: usize,
    /// The tag of the list that it has.
    known: Option<HeaderValue>,
}

impl Caller {
    /// Makes a call and says how many bytes the answer had.
    async fn call(&mut self, get: Get) -> Result<usize> {
        self.position = (self.position + self.step) % self.sample.views.len();
        let answer = self.client.get(&self.path(get), self.known.as_ref()).await?;
        let expected = if self.known.is_some() { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        ensure!(answer.status == expected, "{get} was answered with {}", answer.status);
        ensure!(answer.size > 100 || self.known.is_some(), "{get} was answered with {} bytes", answer.size);
        Ok(answer.size)
    }

    fn path(&self, get: Get) -> String {
        let view = &self.sample.views[self.position].name;
        match get {
            Get::View => format!("/feature_views/{view}?project={PROJECT}"),
            Get::Views | Get::ViewsKnown => format!("/feature_views?project={PROJECT}"),
            Get::ViewsWithRelationships => format!("/feature_views?project={PROJECT}&include_relationships=true"),
            Get::Search => format!("/search?query={view}&projects={PROJECT}"),
            Get::CompleteLineage => format!("/lineage/complete?project={PROJECT}"),
        }
    }
}

/// A connection to a REST server.
pub(crate) struct Client {
    connection: SendRequest<Empty<Bytes>>,
    host: HeaderValue,
}

/// What there is to know of an answer.
pub(crate) struct Answer {
    status: StatusCode,
    tag: Option<HeaderValue>,
    size: usize,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await?;
        // It ends with the connection, of which the next request tells.
        tokio::spawn(async move { drop(driver.await) });
        Ok(Self { connection, host: address.parse()? })
    }

    /// Asks for a path of the API, and reads the answer to its end without keeping it.
    pub(crate) async fn get(&mut self, path: &str, known: Option<&HeaderValue>) -> Result<Answer> {
        let mut request = Request::get(format!("/api/v1{path}")).header(HOST, &self.host);
        if let Some(known) = known {
            request = request.header(IF_NONE_MATCH, known);
        }
        self.connection.ready().await?;
        let response = self.connection.send_request(request.body(Empty::new())?).await?;
        let (status, tag) = (response.status(), response.headers().get(ETAG).cloned());
        let (mut body, mut size) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            size += frame?.data_ref().map_or(0, Bytes::len);
        }
        ensure!(!status.is_server_error() && !status.is_client_error(), "{path} was answered with {status}");
        Ok(Answer { status, tag, size })
    }
}
