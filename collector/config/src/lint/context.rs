//! What an exporter asks of the request that data came with, and does not hear.

use karez_document::yaml::Node;

use super::Lint;
use crate::component::ExtensionConfig;
use crate::values::ComponentId;

impl Lint<'_> {
    /// `headers_setter` sets headers from the request that data came with, which is not known of data that was on disk or
    /// was joined.
    pub(super) fn context(&mut self, node: &Node, at: &str) {
        let Some(auth) = node.at_path(&["auth", "authenticator"]) else {
            return;
        };
        let id: Option<ComponentId> = auth.as_str().and_then(|name| name.parse().ok());
        let written = id.and_then(|id| self.sections.extensions.written.get(&id));
        let Some(Some(ExtensionConfig::HeadersSetter(setter))) = written.map(|written| &written.config)
        else {
            return;
        };
        let asks = |change: &crate::credentials::HeaderChange| {
            change.from_context.is_some() || change.from_attribute.is_some()
        };
        if !setter.headers.iter().any(asks) {
            return;
        }
        let given = |path: &[&str]| node.at_path(path).filter(|node| !node.is_null());
        let (place, key, message, mend) = if let Some(storage) = given(&["sending_queue", "storage"]) {
            (
                storage.place(),
                format!("{at}.sending_queue.storage"),
                "a queue on disk keeps no headers: those that `headers_setter` takes from the request are not sent",
                "remove `storage:`, or give the headers a `default_value:` or a `value:`",
            )
        } else if let Some(batch) = given(&["sending_queue", "batch"])
            && given(&["sending_queue", "batch", "partition"]).is_none()
        {
            (
                batch.place(),
                format!("{at}.sending_queue.batch"),
                "what is joined of several requests has the headers of none: those that `headers_setter` takes from the \
                 request are not sent",
                "write `partition: {metadata_keys: [...]}` with these headers",
            )
        } else {
            return;
        };
        self.warning(place, key, message, mend);
    }
}
