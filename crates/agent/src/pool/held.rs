//! The pool's part as this node holds it: what it believes, what is on disk, what a hub hands on.
//!
//! Nothing is believed but the cloud's signature; where a frame comes from makes no difference.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use toono_pki::CaKeys;
use toono_wire::pool::{
    Misfit, Part, Pass, PoolNews, Records, Touched, Version,
    frame::{BadFrame, Changes, Frame},
};

use super::sight::Shown;
use crate::{
    AgentError,
    disk::{self, Durability},
};

/// A hub asks for the whole part anew when the frames since the last whole one are as long as that, and at
/// least this.
const MOST_LATER: usize = 64 * 1024;

/// The part, and what is known about it.
#[derive(Debug)]
pub(crate) struct Held {
    dir: PathBuf,
    keys: CaKeys,
    part: Part,
    /// What the cloud said last: the pool's name, its hub.
    news: Option<PoolNews>,
    /// While this node is the hub.
    frames: Option<Frames>,
    /// Whether the disk has something else.
    is_dirty: bool,
    /// What frames touched since somebody asked.
    touched: Vec<Touched>,
    shown: Shown,
}

/// The cloud's own frames: a whole part, and all that came after it.
#[derive(Debug, Default)]
struct Frames {
    whole: Option<Frame>,
    later: Vec<Frame>,
}

/// Frames that were not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Bad(#[from] BadFrame),
    #[error("it is of the pool {0:?}")]
    Foreign(String),
    #[error("it is not signed by the cluster's CA")]
    Forged,
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

impl Refused {
    /// Whether nobody who tells what the cloud told would have sent it. One that goes on from elsewhere may
    /// only have come late.
    pub(crate) fn is_lie(&self) -> bool {
        !matches!(self, Self::Misfit(Misfit::Since { .. }))
    }
}

impl Held {
    /// What is on disk. What is damaged is not there, and is fetched again.
    pub(crate) fn load(data: &Path, keys: CaKeys) -> Result<Self, AgentError> {
        let dir = data.join("pool");
        disk::make_dir(&dir)?;
        let mut held = Self {
            dir,
            keys,
            part: Part::default(),
            news: None,
            frames: None,
            is_dirty: false,
            touched: Vec::new(),
            shown: Shown::default(),
        };
        if let Some(bytes) = disk::read_checked(&held.part_path())?
            && let Ok(frame) = Frame::decode(&mut Bytes::from(bytes))
            && let Err(error) = held.part.apply(&frame)
        {
            tracing::warn!(%error, "the stored part of the pool is not used");
        }
        let news = disk::read_checked(&held.news_path())?;
        held.news = news.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(held)
    }

    /// What the part is.
    pub(crate) fn version(&self) -> Version {
        self.part.version()
    }

    /// What the part says, as far as this node does not know better.
    pub(crate) fn records(&self) -> &Records {
        self.shown.records().unwrap_or_else(|| self.part.records())
    }

    /// What the part says.
    pub(crate) fn signed(&self) -> &Records {
        self.part.records()
    }

    /// What this node knows better, and the cloud's records.
    pub(super) fn shown(&mut self) -> (&mut Shown, &Records) {
        (&mut self.shown, self.part.records())
    }

    /// What frames touched since this was asked last.
    pub(crate) fn take_touched(&mut self) -> Vec<Touched> {
        let touched = std::mem::take(&mut self.touched);
        self.shown.follow(self.part.records(), &touched);
        touched
    }

    /// What the cloud said last.
    pub(crate) fn news(&self) -> Option<&PoolNews> {
        self.news.as_ref()
    }

    /// The cloud says this now. Whether it is anything new.
    pub(crate) fn hear(&mut self, news: PoolNews) -> bool {
        let known = self.news.as_ref();
        let same = known
            .is_some_and(|old| old.name == news.name && old.hub == news.hub && old.key == news.key);
        self.is_dirty |= !same;
        self.news = Some(news);
        !same
    }

    /// Whether this node hands its frames on from now on.
    pub(crate) fn serve(&mut self, serves: bool) {
        if serves != self.frames.is_some() {
            self.frames = serves.then(Frames::default);
        }
    }

    /// From which version on the cloud is to tell: nothing, when a hub needs the whole part.
    pub(crate) fn asks_since(&self) -> Version {
        match &self.frames {
            Some(frames) if !frames.are_handy() => Version::NONE,
            _ => self.version(),
        }
    }

    /// Takes what the cloud or a neighbour sent. Whether the part is another one now.
    pub(crate) fn take(&mut self, bytes: Bytes) -> Result<bool, Refused> {
        let before = self.version();
        for frame in Frame::decode_all(bytes)? {
            let own = self.news.as_ref().map(|news| &*news.name);
            if !frame.scope.is_empty() && own.is_some_and(|own| own != frame.scope) {
                return Err(Refused::Foreign(frame.scope));
            }
            if !self.keys.vouch_for(&frame.statement(), &frame.signature) {
                return Err(Refused::Forged);
            }
            let applied = self.part.apply(&frame);
            if applied == Err(Misfit::Digest) {
                // Nothing is left of it.
                self.touched.push(Touched::All);
            }
            self.touched.push(applied?);
            if let Some(frames) = &mut self.frames {
                frames.add(frame);
            }
        }
        self.is_dirty |= self.version() != before;
        Ok(self.version() != before)
    }

    /// Whether the cloud says, by this pass, that a node is of this pool.
    pub(crate) fn admits(&self, node: &str, pass: &Pass, now: u64) -> bool {
        let Some(news) = &self.news else { return false };
        let statement = pass.statement(&news.name, node);
        now <= pass.until && self.keys.vouch_for(&statement, &pass.signature)
    }

    /// What brings a neighbour up to date: the frames that follow what it has, or all of them.
    pub(crate) fn tell(&self, since: Version) -> Option<Vec<u8>> {
        let frames = self.frames.as_ref()?;
        let whole = frames.whole.as_ref()?;
        let mut out = Vec::new();
        if since == self.version() {
            return Some(out);
        }
        let later = frames.later.iter().position(|frame| frame.since == since);
        if later.is_none() {
            whole.encode(&mut out);
        }
        let from = later.unwrap_or(0);
        frames.later.iter().skip(from).for_each(|frame| frame.encode(&mut out));
        Some(out)
    }

    /// Puts it on disk, if the disk has something else; whether it had.
    pub(crate) fn save(&mut self) -> Result<bool, AgentError> {
        if !std::mem::take(&mut self.is_dirty) {
            return Ok(false);
        }
        let records = self.part.records().iter();
        let changes = Changes {
            changed: records.map(|(key, text)| (key.clone(), text.clone())).collect(),
            gone: Vec::new(),
        };
        // Unsigned: whoever can write here can write anything.
        if let Some(frame) = Frame::of("", Version::NONE, self.version(), &changes) {
            let mut bytes = Vec::with_capacity(frame.size());
            frame.encode(&mut bytes);
            disk::write_checked(&self.part_path(), &bytes, Durability::Synced)?;
        }
        let news = serde_json::to_vec(&self.news).unwrap_or_default();
        disk::write_checked(&self.news_path(), &news, Durability::Synced)?;
        Ok(true)
    }

    fn part_path(&self) -> PathBuf {
        self.dir.join("part")
    }

    fn news_path(&self) -> PathBuf {
        self.dir.join("news")
    }
}

impl Frames {
    fn are_handy(&self) -> bool {
        let Some(whole) = &self.whole else { return false };
        let later: usize = self.later.iter().map(Frame::size).sum();
        later <= whole.size().max(MOST_LATER)
    }

    fn add(&mut self, frame: Frame) {
        if frame.is_whole() {
            self.later.clear();
            self.whole = Some(frame);
        } else if self.whole.is_some() {
            self.later.push(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use toono_pki::ClusterCa;
    use toono_wire::pool::Hub;

    use super::*;

    /// The cloud: it signs what becomes of its records.
    struct Cloud {
        ca: ClusterCa,
        records: Records,
        version: Version,
    }

    impl Cloud {
        fn new() -> Self {
            let ca = ClusterCa::generate().unwrap();
            Self { ca, records: Records::default(), version: Version::NONE }
        }

        fn reader(&self, data: &Path) -> Held {
            Held::load(data, CaKeys::of_pem(self.ca.cert_pem()).unwrap()).unwrap()
        }

        /// Sets a record; the frame of what changed by it.
        fn set(&mut self, key: &str, text: &str) -> Bytes {
            self.records.put(key, text);
            let since = self.version;
            self.version = Version { revision: since.revision + 1, digest: self.records.digest() };
            self.frame("", since, vec![(Arc::from(key), Arc::from(text))])
        }

        fn whole(&self) -> Bytes {
            let all = self.records.iter().map(|(key, text)| (key.clone(), text.clone()));
            self.frame("", Version::NONE, all.collect())
        }

        fn frame(&self, scope: &str, since: Version, changed: Vec<(Arc<str>, Arc<str>)>) -> Bytes {
            let changes = Changes { changed, gone: Vec::new() };
            let mut frame = Frame::of(scope, since, self.version, &changes).unwrap();
            frame.signature = self.ca.sign_statement(&frame.statement()).unwrap().into();
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            bytes.into()
        }
    }

    fn news(name: &str, version: Version) -> PoolNews {
        let hub = Hub { node: "hub".into(), address: [10, 0, 0, 1].into(), port: 1 };
        PoolNews { name: name.into(), version, hub: Some(hub), pass: None, key: None }
    }

    #[test]
    fn what_was_held_is_there_after_a_restart_and_damage_costs_one_fetch() {
        let (mut cloud, dir) = (Cloud::new(), tempfile::tempdir().unwrap());
        let mut held = cloud.reader(dir.path());
        cloud.set("a", "1");
        let whole = cloud.whole();
        assert!(held.take(whole.clone()).unwrap() && !held.take(whole).unwrap());
        assert!(held.hear(news("shop", cloud.version)) && !held.hear(news("shop", cloud.version)));
        held.save().unwrap();
        let again = cloud.reader(dir.path());
        assert_eq!(again.version(), cloud.version);
        assert_eq!(again.news().unwrap().name, "shop");
        std::fs::write(dir.path().join("pool/part"), "toono1 00000000 3\nxyz").unwrap();
        assert_eq!(cloud.reader(dir.path()).version(), Version::NONE);
    }

    #[test]
    fn only_the_clouds_word_for_this_pool_is_taken() {
        let (mut cloud, other) = (Cloud::new(), Cloud::new());
        let dir = tempfile::tempdir().unwrap();
        let mut held = cloud.reader(dir.path());
        held.hear(news("shop", Version::NONE));
        cloud.set("a", "1");
        let whole = cloud.whole();
        let mut forger = Cloud { ca: other.ca, ..Cloud::new() };
        forger.set("a", "2");
        let forged = forger.whole();
        assert!(matches!(held.take(forged), Err(Refused::Forged)));
        for at in 0..whole.len() {
            let mut flipped = whole.to_vec();
            flipped[at] ^= 1;
            assert!(held.take(flipped.into()).is_err_and(|error| error.is_lie()), "at {at}");
        }
        let foreign = cloud.frame("till", Version::NONE, Vec::new());
        assert!(matches!(held.take(foreign), Err(Refused::Foreign(_))));
        assert_eq!(held.version(), Version::NONE);
        held.take(whole).unwrap();
        let later = cloud.set("b", "2");
        held.take(later.clone()).unwrap();
        assert!(!held.take(later).unwrap_err().is_lie(), "it came late");
    }

    #[test]
    fn a_hub_hands_on_what_a_neighbour_lacks() {
        let mut cloud = Cloud::new();
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (mut hub, mut reader) = (cloud.reader(dirs[0].path()), cloud.reader(dirs[1].path()));
        cloud.set("a", "1");
        let whole = cloud.whole();
        hub.take(whole).unwrap();
        assert_eq!(hub.tell(Version::NONE), None, "it is no hub");
        hub.serve(true);
        assert_eq!((hub.asks_since(), hub.tell(Version::NONE)), (Version::NONE, None));
        cloud.set("b", "1");
        hub.take(cloud.whole()).unwrap();
        assert_eq!(hub.asks_since(), cloud.version);
        reader.take(hub.tell(reader.version()).unwrap().into()).unwrap();
        for number in 0..3 {
            hub.take(cloud.set("c", &number.to_string())).unwrap();
        }
        let told = hub.tell(reader.version()).unwrap();
        assert_eq!(Frame::decode_all(told.clone().into()).unwrap().len(), 3);
        reader.take(told.into()).unwrap();
        assert_eq!(
            (reader.version(), hub.tell(reader.version())),
            (cloud.version, Some(Vec::new()))
        );
        let mut late = cloud.reader(dirs[1].path());
        late.take(hub.tell(Version { revision: 77, digest: 1 }).unwrap().into()).unwrap();
        assert_eq!(late.version(), cloud.version, "from whatever it had");
        for number in 0..MOST_LATER / 128 {
            hub.take(cloud.set("c", &number.to_string())).unwrap();
        }
        assert_eq!(hub.asks_since(), Version::NONE, "it is time for a whole one");
    }
}
