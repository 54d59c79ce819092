//! `--config`: where each comes from, watched.

use std::path::PathBuf;

use karez_collector_config::Text;
use karez_collector_config::common::ClientTls;
use karez_document::{Document, Origin, Source, watch};
use karez_lifecycle::volumes;
use karez_net::Net;
use tokio::sync::watch::Receiver;

use super::run::RunError;
use crate::client;
use crate::tls;

/// One `--config`.
pub(crate) enum Config {
    /// A file or an object, with the name that the user gave it.
    Watched {
        receiver: Receiver<Option<Document>>,
        name: String,
        file: bool,
    },
    /// A text on the command line or in the environment.
    Fixed(Text),
    /// A text from a server, fetched again when asked to.
    Fetched { url: String, net: Net, text: Text },
}

/// Opens one `--config`: `yaml:…`, `env:NAME`, `kube:NAMESPACE/NAME[#KEY]`, `http://…`,
/// `https://…`, `file:…`, or a path.
pub(crate) async fn open(config: &str, client: Option<kube::Client>, net: &Net) -> Result<Config, RunError> {
    if let Some(text) = config.strip_prefix("yaml:") {
        let origin = Origin::file("--config=yaml:");
        return Ok(Config::Fixed(Text {
            text: text.to_owned(),
            origin,
            inline: true,
        }));
    }
    if let Some(name) = config.strip_prefix("env:") {
        let text = std::env::var(name).map_err(|_| RunError::NoVariable(name.to_owned()))?;
        let origin = Origin::file(format!("environment variable {name}"));
        return Ok(Config::Fixed(Text {
            text,
            origin,
            inline: false,
        }));
    }
    if config.starts_with("http://") || config.starts_with("https://") {
        let text = fetch(net, config).await.map_err(|reason| RunError::Fetch {
            url: config.to_owned(),
            reason,
        })?;
        return Ok(Config::Fetched {
            url: config.to_owned(),
            net: net.clone(),
            text: fetched(config, text),
        });
    }
    let source: Source = config.parse().map_err(RunError::Source)?;
    let (source, file) = match source {
        Source::File(path) => (Source::File(volumes::locate(&path)), true),
        kube => (kube, false),
    };
    let name = config.strip_prefix("file:").unwrap_or(config).to_owned();
    let receiver = watch(source, client).await.map_err(RunError::Watch)?;
    if file && receiver.borrow().is_none() {
        return Err(RunError::NoFile(PathBuf::from(name)));
    }
    Ok(Config::Watched { receiver, name, file })
}

/// Fetches a text; a failure says why.
async fn fetch(net: &Net, url: &str) -> Result<String, String> {
    let url = url.parse().map_err(|error| format!("no URL: {error}"))?;
    let tls = tls::client(&ClientTls::default(), &[b"http/1.1"], "tls").map_err(|error| error.to_string())?;
    let bytes = client::fetch(net, &url, &tls)
        .await
        .map_err(|error| error.to_string())?;
    String::from_utf8(bytes.into()).map_err(|_| "the text is not UTF-8".to_owned())
}

fn fetched(url: &str, text: String) -> Text {
    Text {
        text,
        origin: Origin::file(url),
        inline: false,
    }
}

impl Config {
    /// Fetches anew what comes from a server; on a failure the text of before stays.
    pub(crate) async fn refresh(&mut self) {
        let Config::Fetched { url, net, text } = self else {
            return;
        };
        match fetch(net, url).await {
            Ok(new) => *text = fetched(url, new),
            Err(reason) => tracing::error!(
                url,
                reason,
                "the configuration cannot be fetched; the last one is used"
            ),
        }
    }

    /// The text as it is now, if it is there.
    pub(crate) fn text(&mut self) -> Option<Text> {
        match self {
            Config::Fixed(text) | Config::Fetched { text, .. } => Some(text.clone()),
            Config::Watched { receiver, name, file } => {
                let document = receiver.borrow_and_update().clone()?;
                let mut origin = document.origin;
                if *file {
                    // The path as the user knows it, not where a volume stands on the host.
                    origin.file.clone_from(name);
                }
                Some(Text {
                    text: document.text,
                    origin,
                    inline: false,
                })
            }
        }
    }

    /// Ends when the text has changed; never for a fixed one.
    pub(crate) async fn changed(&mut self) {
        if let Config::Watched { receiver, .. } = self
            && receiver.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}
