//! What nodes of a pool say to each other of layers: who has one, and what is asked for.

use serde::{Deserialize, Serialize};

/// The most nodes that one answer may name; more are never asked.
pub const MAX_LAYER_SOURCES: usize = 64;
/// No answer of this kind is longer, and of none more is read.
pub const MAX_LAYER_ANSWER: usize = 32 * 1024;
/// What the paths of all requests begin with; then comes the layer's digest.
const PATH: &str = "/layers/";
/// A request names no more nodes than this that failed the asker; the rest is passed over.
const MOST_FAILED: usize = 16;
/// No name of a node is longer (RFC 1123).
const LONGEST_NAME: usize = 253;
/// Digits of a digest.
const DIGITS: usize = 64;

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
    /// It names one that cannot be.
    #[error("it names a node by what is no name: {0:?}")]
    Name(String),
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
        if sources.from.len() > MAX_LAYER_SOURCES {
            return Err(BadLayerSources::Many(sources.from.len()));
        }
        match sources.from.iter().find(|name| !is_name(name)) {
            // The end of it says nothing more.
            Some(name) => Err(BadLayerSources::Name(name.chars().take(LONGEST_NAME).collect())),
            None => Ok(sources),
        }
    }
}

/// Whether a node can be called so: others are asked for by these names, and they are told on.
fn is_name(name: &str) -> bool {
    let may = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(may)
}

/// What a node asks another about a layer. All of it is in the request's first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRequest {
    /// The layer's SHA-256 in small hexadecimal digits.
    pub hex: String,
    /// What about it.
    pub wish: LayerWish,
}

/// What is asked about a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerWish {
    /// The layer itself, from a byte on.
    Bytes {
        /// Its offset.
        from: u64,
    },
    /// Who has it.
    Sources {
        /// Whether the asker is to have it if nobody does.
        claims: bool,
        /// Nodes that failed the asker.
        without: Vec<String>,
    },
    /// The asker has it now.
    Have,
    /// The asker has it no more.
    Lack,
}

/// A request that is none about a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLayerRequest {
    /// There is nothing at this path.
    #[error("there is nothing at this path")]
    Unknown,
    /// Its query does not say from which byte on.
    #[error("it does not say from which byte on")]
    NoOffset,
}

impl LayerRequest {
    /// Whether its method is `POST`; else it is `GET`.
    #[must_use]
    pub fn is_post(&self) -> bool {
        !matches!(self.wish, LayerWish::Bytes { .. })
    }

    /// Path and query.
    #[must_use]
    pub fn target(&self) -> String {
        let hex = &self.hex;
        match &self.wish {
            LayerWish::Bytes { from } => format!("{PATH}{hex}?from={from}"),
            LayerWish::Sources { claims, without } => {
                format!("{PATH}{hex}/sources?claims={claims}&without={}", without.join(","))
            }
            LayerWish::Have => format!("{PATH}{hex}/have"),
            LayerWish::Lack => format!("{PATH}{hex}/lack"),
        }
    }

    /// Reads what a neighbour asks.
    ///
    /// # Errors
    /// When it is nothing about a layer.
    pub fn parse(is_post: bool, path: &str, query: &str) -> Result<Self, BadLayerRequest> {
        let rest = path.strip_prefix(PATH).ok_or(BadLayerRequest::Unknown)?;
        let (hex, what) = rest.split_once('/').unwrap_or((rest, ""));
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != DIGITS || !hex.bytes().all(is_digit) {
            return Err(BadLayerRequest::Unknown);
        }
        let field = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
        let wish = match (is_post, what) {
            (false, "") => {
                let from = field("from=").and_then(|from| from.parse().ok());
                LayerWish::Bytes { from: from.ok_or(BadLayerRequest::NoOffset)? }
            }
            (true, "sources") => {
                let failed = field("without=").unwrap_or_default().split(',');
                let failed = failed.filter(|name| is_name(name));
                let without = failed.take(MOST_FAILED).map(str::to_owned).collect();
                LayerWish::Sources { claims: field("claims=") == Some("true"), without }
            }
            (true, "have") => LayerWish::Have,
            (true, "lack") => LayerWish::Lack,
            _ => return Err(BadLayerRequest::Unknown),
        };
        Ok(Self { hex: hex.to_owned(), wish })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_read_as_they_are_written() {
        let sources = LayerSources { from: vec!["a".into(), "b".into()], keep: true };
        assert_eq!(LayerSources::decode(&sources.encode()).unwrap(), sources);
        let of = |from: Vec<String>| LayerSources { from, keep: false }.encode();
        let many = of(vec![String::new(); MAX_LAYER_SOURCES + 1]);
        assert!(matches!(LayerSources::decode(&many), Err(BadLayerSources::Many(65))));
        let long = of(vec!["n".repeat(LONGEST_NAME + 1)]);
        for wrong in [long, of(vec!["a b".into()]), of(vec![String::new()])] {
            assert!(matches!(LayerSources::decode(&wrong), Err(BadLayerSources::Name(_))));
        }
        assert!(LayerSources::decode(b"[]").is_err());
    }

    fn parse(is_post: bool, target: &str) -> Result<LayerRequest, BadLayerRequest> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        LayerRequest::parse(is_post, path, query)
    }

    #[test]
    fn requests_read_as_they_are_written() {
        let sources = |without: &[&str]| LayerWish::Sources {
            claims: true,
            without: without.iter().map(|name| (*name).to_owned()).collect(),
        };
        let wishes =
            [LayerWish::Bytes { from: 7 }, sources(&[]), sources(&["a", "b"]), LayerWish::Have];
        for wish in wishes.into_iter().chain([LayerWish::Lack]) {
            let request = LayerRequest { hex: "0a".repeat(32), wish };
            assert_eq!(parse(request.is_post(), &request.target()), Ok(request));
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let layer = format!("/layers/{}", "0a".repeat(32));
        for (is_post, target, error) in [
            (false, layer.clone(), BadLayerRequest::NoOffset),
            (false, format!("{layer}?from=-1"), BadLayerRequest::NoOffset),
            (true, layer.clone(), BadLayerRequest::Unknown),
            (false, format!("{layer}/sources"), BadLayerRequest::Unknown),
            (true, format!("{layer}/have/"), BadLayerRequest::Unknown),
            (false, format!("{layer}0?from=1"), BadLayerRequest::Unknown),
            (false, layer.replace('a', "A") + "?from=1", BadLayerRequest::Unknown),
            (false, "/pool".to_owned(), BadLayerRequest::Unknown),
        ] {
            assert_eq!(parse(is_post, &target), Err(error), "{target}");
        }
        let names = ["n"; 40].join(",");
        let asked = parse(true, &format!("{layer}/sources?without=,{names}")).unwrap();
        assert!(matches!(asked.wish, LayerWish::Sources { without, .. } if without.len() == 16));
    }
}
