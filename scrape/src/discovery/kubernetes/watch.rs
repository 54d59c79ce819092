//! Objects of one kind, listed in pages and watched from there on.
//!
//! ```text
//! API ─▶ page, line ─▶ raw (borrowed) ─▶ objects (pure) ─▶ Told ─▶ who keeps them
//! ```
//!
//! While a page is read the next one is on its way. Only what is kept leaves here: the text of a page is gone before
//! the one after the next is asked for.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use super::objects::{Facts, Key, Maker, key};
use super::raw::{self, Line, Object, Page, Status};

/// Objects of a page.
const PAGE: usize = 500;
/// More than this no page takes: an object is a mebibyte and a half at most, and nearly all are kilobytes.
const PAGE_BYTES: usize = 256 << 20;
/// Nor what a watch tells of one object.
const LINE_BYTES: usize = 16 << 20;
/// A page that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the API is asked to let a watch last; one that says nothing much longer is dead.
const LASTS: Duration = Duration::from_secs(290);
/// A watch that ends sooner, without a word, is not begun again at once.
const SHORT: Duration = Duration::from_secs(1);

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Node,
    Pod,
    Service,
    Endpoints,
    Slice,
    Ingress,
    Namespace,
}

impl Kind {
    /// What its objects' keys begin with.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Node => "node",
            Kind::Pod => "pod",
            Kind::Service => "svc",
            Kind::Endpoints => "endpoints",
            Kind::Slice => "endpointslice",
            Kind::Ingress => "ingress",
            Kind::Namespace => "namespace",
        }
    }

    fn path(self, namespace: &str) -> String {
        let (group, plural) = match self {
            Kind::Node => ("/api/v1", "nodes"),
            Kind::Pod => ("/api/v1", "pods"),
            Kind::Service => ("/api/v1", "services"),
            Kind::Endpoints => ("/api/v1", "endpoints"),
            Kind::Slice => ("/apis/discovery.k8s.io/v1", "endpointslices"),
            Kind::Ingress => ("/apis/networking.k8s.io/v1", "ingresses"),
            Kind::Namespace => ("/api/v1", "namespaces"),
        };
        match namespace.is_empty() {
            true => format!("{group}/{plural}"),
            false => format!("{group}/namespaces/{namespace}/{plural}"),
        }
    }
}

/// Objects that changed; `None` for those that are gone.
pub(super) type Objects = Vec<(Key, Option<Facts>)>;

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Told {
    /// All there is comes now, until it ends.
    Begins,
    /// Objects.
    Objects(Objects),
    /// That was all there is; what follows are changes.
    Ends,
    /// It does not work; it is tried again.
    Failed(String),
}

#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("{path}: the API answers {status}: {message}")]
    Refused {
        path: String,
        status: StatusCode,
        message: String,
    },
    #[error("{path}: {source}")]
    Asking {
        path: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("{path}: the answer ends: {source}")]
    Reading {
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{path}: the answer is not understood: {source}")]
    Understanding {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path}: no answer within {after:?}")]
    Slow { path: String, after: Duration },
    /// What was known is too old to go on from.
    #[error("all is listed again")]
    Gone,
    /// Nobody listens any more.
    #[error("nobody listens")]
    Over,
}

/// Objects of a kind, of one namespace or all.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) client: Client,
    pub(super) kind: Kind,
    /// Whether each is a group, not only something that groups take labels from.
    pub(super) primary: bool,
    /// Empty for all.
    pub(super) namespace: String,
    /// Labels and fields that they must have; empty for any.
    pub(super) labels: String,
    pub(super) fields: String,
    pub(super) attach_node: bool,
    pub(super) attach_namespace: bool,
}

impl Watch {
    /// Lists and watches until nobody listens.
    pub(super) async fn run(self, number: usize, tell: Sender<(usize, Told)>) {
        let tell = Tell(number, tell);
        let mut pause = Pause::default();
        loop {
            let error = match self.list(&tell, &mut pause).await {
                Ok(version) => self.follow(version, &tell, &mut pause).await,
                Err(error) => error,
            };
            match error {
                WatchError::Over => return,
                WatchError::Gone => {}
                error => {
                    if tell.say(Told::Failed(error.to_string())).await.is_err() {
                        return;
                    }
                }
            }
            pause.wait().await;
        }
    }

    fn path(&self) -> String {
        self.kind.path(&self.namespace)
    }

    fn request(&self, more: &[(&str, &str)]) -> Request<Body> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let own = [("labelSelector", &*self.labels), ("fieldSelector", &*self.fields)];
        for (name, value) in own.iter().chain(more).filter(|(_, value)| !value.is_empty()) {
            query.append_pair(name, value);
        }
        let mut request = Request::new(Body::empty());
        // A namespace and a query that is written so make a path.
        if let Ok(uri) = format!("{}?{}", self.path(), query.finish()).parse() {
            *request.uri_mut() = uri;
        }
        request
    }

    /// The body of an answer that is none of failure.
    async fn ask(&self, request: Request<Body>) -> Result<Body, WatchError> {
        let answer = self.client.send(request).await;
        let answer = answer.map_err(|source| WatchError::Asking {
            path: self.path(),
            source: source.into(),
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let text = self.whole(answer.into_body()).await.unwrap_or_default();
        match status {
            StatusCode::GONE => Err(WatchError::Gone),
            _ => Err(WatchError::Refused {
                path: self.path(),
                status,
                message: message(&text),
            }),
        }
    }

    async fn whole(&self, body: Body) -> Result<Bytes, WatchError> {
        let whole = Limited::new(body, PAGE_BYTES).collect().await;
        let whole = whole.map_err(|source| WatchError::Reading {
            path: self.path(),
            source,
        })?;
        Ok(whole.to_bytes())
    }

    async fn page(self, more: String) -> Result<Bytes, WatchError> {
        let limit = PAGE.to_string();
        let request = self.request(&[("limit", &limit), ("continue", &more)]);
        let asked = async { self.whole(self.ask(request).await?).await };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(page) => page,
            Err(_) => Err(WatchError::Slow {
                path: self.path(),
                after: PATIENCE,
            }),
        }
    }

    /// Tells all there is; the version that it is of.
    async fn list(&self, tell: &Tell, pause: &mut Pause) -> Result<String, WatchError> {
        // Dropped, it ends what it asks for.
        let mut asking = JoinSet::new();
        asking.spawn(self.clone().page(String::new()));
        tell.say(Told::Begins).await?;
        loop {
            let page = match asking.join_next().await {
                Some(Ok(page)) => page?,
                // A page that panics is no page, and there is always one that is asked for.
                Some(Err(_)) | None => return Err(WatchError::Gone),
            };
            let (version, more) = raw::head(&page)
                .map(|head| (head.resource_version.to_string(), head.more.to_string()))
                .unwrap_or_default();
            if !more.is_empty() {
                asking.spawn(self.clone().page(more.clone()));
            }
            let objects = self.objects(&page).map_err(|source| WatchError::Understanding {
                path: self.path(),
                source,
            })?;
            drop(page);
            pause.works();
            tell.say(Told::Objects(objects)).await?;
            if more.is_empty() {
                tell.say(Told::Ends).await?;
                return Ok(version);
            }
        }
    }

    fn maker(&self) -> Maker {
        Maker::new(self.attach_node, self.attach_namespace)
    }

    fn key<'a>(&self, object: &impl Object<'a>) -> Key {
        let meta = object.meta();
        key(self.kind.name(), &meta.namespace, &meta.name)
    }

    fn objects(&self, page: &[u8]) -> serde_json::Result<Objects> {
        fn read<'a, T: Deserialize<'a> + Object<'a>>(
            page: &'a [u8],
            watch: &Watch,
            facts: fn(&mut Maker, &T) -> Facts,
        ) -> serde_json::Result<Objects> {
            let page: Page<T> = serde_json::from_slice(page)?;
            let mut maker = watch.maker();
            let objects = page.items.iter();
            let kept = objects.map(|object| (watch.key(object), Some(facts(&mut maker, object))));
            Ok(kept.collect())
        }
        match (self.kind, self.primary) {
            (Kind::Pod, true) => read(page, self, Maker::pod),
            (Kind::Pod, false) => read(page, self, Maker::behind),
            (Kind::Service, true) => read(page, self, Maker::service),
            (Kind::Service, false) => read(page, self, Maker::service_labels),
            (Kind::Node, true) => read(page, self, Maker::node),
            (Kind::Node, false) => read(page, self, Maker::node_labels),
            (Kind::Namespace, _) => read(page, self, Maker::namespace),
            (Kind::Endpoints, _) => read(page, self, Maker::endpoints),
            (Kind::Slice, _) => read(page, self, Maker::slice),
            (Kind::Ingress, _) => read(page, self, Maker::ingress),
        }
    }

    /// Tells changes from a version on, until all has to be listed again.
    async fn follow(&self, mut version: String, tell: &Tell, pause: &mut Pause) -> WatchError {
        loop {
            let begun = Instant::now();
            match self.watch(&mut version, tell, pause).await {
                Ok(()) if begun.elapsed() > SHORT => continue,
                Ok(()) => {}
                Err(error @ (WatchError::Gone | WatchError::Over)) => return error,
                Err(error) => {
                    if tell.say(Told::Failed(error.to_string())).await.is_err() {
                        return WatchError::Over;
                    }
                }
            }
            pause.wait().await;
        }
    }

    /// One watch, until it ends as was agreed.
    async fn watch(&self, version: &mut String, tell: &Tell, pause: &mut Pause) -> Result<(), WatchError> {
        let seconds = LASTS.as_secs().to_string();
        let request = self.request(&[
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", &seconds),
        ]);
        let slow = |after| WatchError::Slow {
            path: self.path(),
            after,
        };
        let asked = tokio::time::timeout(PATIENCE, self.ask(request)).await;
        let mut body = asked.map_err(|_| slow(PATIENCE))??;
        let (mut buffer, mut seen) = (BytesMut::new(), 0);
        loop {
            let after = LASTS + LASTS / 10;
            let frame = tokio::time::timeout(after, body.frame()).await;
            let Some(frame) = frame.map_err(|_| slow(after))? else {
                return Ok(());
            };
            let reading = |source: Box<dyn std::error::Error + Send + Sync>| WatchError::Reading {
                path: self.path(),
                source,
            };
            let Ok(data) = frame.map_err(|source| reading(source.into()))?.into_data() else {
                continue;
            };
            buffer.extend_from_slice(&data);
            if let Some(end) = buffer[seen..].iter().rposition(|byte| *byte == b'\n') {
                let lines = buffer.split_to(seen + end + 1);
                self.lines(&lines, version, tell).await?;
                pause.works();
            }
            seen = buffer.len();
            if seen > LINE_BYTES {
                return Err(reading(
                    format!("more than {LINE_BYTES} bytes about one object").into(),
                ));
            }
        }
    }

    async fn lines(&self, lines: &[u8], version: &mut String, tell: &Tell) -> Result<(), WatchError> {
        let (mut objects, mut failed) = (Objects::new(), None);
        let mut maker = self.maker();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match self.line(line, &mut maker) {
                Ok(Heard {
                    version: newer,
                    change,
                }) => {
                    if !newer.is_empty() {
                        *version = newer;
                    }
                    objects.extend(change);
                }
                Err(source) => match serde_json::from_slice::<Line<'_, Status<'_>>>(line) {
                    Ok(line) if &*line.kind == "ERROR" => {
                        failed = Some(self.told_wrong(&line.object));
                        break;
                    }
                    // One object that nobody understands does not keep the others from being followed.
                    _ => {
                        let path = self.path();
                        let error = WatchError::Understanding { path, source };
                        tell.say(Told::Failed(error.to_string())).await?;
                    }
                },
            }
        }
        if !objects.is_empty() {
            tell.say(Told::Objects(objects)).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    fn told_wrong(&self, status: &Status<'_>) -> WatchError {
        match StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR) {
            StatusCode::GONE => WatchError::Gone,
            code => WatchError::Refused {
                path: self.path(),
                status: code,
                message: status.message.to_string(),
            },
        }
    }

    fn line(&self, line: &[u8], maker: &mut Maker) -> serde_json::Result<Heard> {
        fn read<'a, T: Deserialize<'a> + Object<'a>>(
            line: &'a [u8],
            watch: &Watch,
            maker: &mut Maker,
            facts: fn(&mut Maker, &T) -> Facts,
        ) -> serde_json::Result<Heard> {
            let Line { kind, object } = serde_json::from_slice::<Line<'a, T>>(line)?;
            let change = match &*kind {
                "ADDED" | "MODIFIED" => Some((watch.key(&object), Some(facts(maker, &object)))),
                "DELETED" => Some((watch.key(&object), None)),
                "BOOKMARK" => None,
                other => {
                    let told = format!("the watch tells `{other}`");
                    return Err(serde::de::Error::custom(told));
                }
            };
            let version = object.meta().resource_version.to_string();
            Ok(Heard { version, change })
        }
        match (self.kind, self.primary) {
            (Kind::Pod, true) => read(line, self, maker, Maker::pod),
            (Kind::Pod, false) => read(line, self, maker, Maker::behind),
            (Kind::Service, true) => read(line, self, maker, Maker::service),
            (Kind::Service, false) => read(line, self, maker, Maker::service_labels),
            (Kind::Node, true) => read(line, self, maker, Maker::node),
            (Kind::Node, false) => read(line, self, maker, Maker::node_labels),
            (Kind::Namespace, _) => read(line, self, maker, Maker::namespace),
            (Kind::Endpoints, _) => read(line, self, maker, Maker::endpoints),
            (Kind::Slice, _) => read(line, self, maker, Maker::slice),
            (Kind::Ingress, _) => read(line, self, maker, Maker::ingress),
        }
    }
}

/// What a line tells.
struct Heard {
    version: String,
    change: Option<(Key, Option<Facts>)>,
}

/// What went wrong, as the API says it.
fn message(text: &[u8]) -> String {
    let said = serde_json::from_slice::<Status<'_>>(text).map(|status| status.message.to_string());
    let said = said.unwrap_or_else(|_| String::from_utf8_lossy(text).into_owned());
    said.chars().take(512).collect()
}

/// Where a watch tells what it hears.
struct Tell(usize, Sender<(usize, Told)>);

impl Tell {
    async fn say(&self, told: Told) -> Result<(), WatchError> {
        let said = self.1.send((self.0, told)).await;
        said.map_err(|_| WatchError::Over)
    }
}

/// The time between two tries: longer and longer, until something works.
#[derive(Default)]
struct Pause {
    failed: u32,
}

impl Pause {
    fn works(&mut self) {
        self.failed = 0;
    }

    async fn wait(&mut self) {
        let longest = Duration::from_secs(30);
        let base = (Duration::from_millis(800) * 2u32.saturating_pow(self.failed.min(8))).min(longest);
        self.failed += 1;
        // Not all that lost the same API come back to it at the same moment.
        let spread = base / 2 * (std::process::id() % 64) / 64;
        tokio::time::sleep(base - spread).await;
    }
}
