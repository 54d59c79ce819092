//! `forward`: from pipelines to pipelines of the same signal, as it is.

use crate::component::{ComponentContext, Connector, Consumer, Running, StartError};
use crate::connectors::Connected;

/// The connector.
pub struct Forward;

impl Connector for Forward {
    fn start(&self, next: [Option<Consumer>; 3], _: &ComponentContext) -> Result<Connected, StartError> {
        Ok(Connected {
            entrances: next,
            running: Running::none(),
        })
    }
}
