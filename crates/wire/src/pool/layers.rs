//! What a node of a pool tells another of a layer: who has it.

use serde::{Deserialize, Serialize};

/// The most nodes that one answer may name; more are never asked.
pub const MAX_LAYER_SOURCES: usize = 64;

/// Who has a layer, or is about to have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSources {
    /// The names of nodes, in the order in which to ask them.
    pub from: Vec<String>,
    /// Whether the asker is to keep it for others.
    pub keep: bool,
}

/// What a neighbour sent does not say who has a layer.
#[derive(Debug, thiserror::Error)]
pub enum BadLayerSources {
    /// It is not the JSON that it should be.
    #[error("it does not say who has a layer: {0}")]
    Json(#[from] serde_json::Error),
    /// It names too many.
    #[error("it names {0} nodes, and {MAX_LAYER_SOURCES} are the most")]
    Many(usize),
}

impl LayerSources {
    /// Its JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what a neighbour sent.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadLayerSources> {
        let sources: Self = serde_json::from_slice(bytes)?;
        match sources.from.len() {
            many if many > MAX_LAYER_SOURCES => Err(BadLayerSources::Many(many)),
            _ => Ok(sources),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_read_as_they_are_written() {
        let sources = LayerSources { from: vec!["a".into(), "b".into()], keep: true };
        assert_eq!(LayerSources::decode(&sources.encode()).unwrap(), sources);
        let many = LayerSources { from: vec![String::new(); MAX_LAYER_SOURCES + 1], keep: false };
        assert!(LayerSources::decode(&many.encode()).is_err());
        assert!(LayerSources::decode(b"[]").is_err());
    }
}
