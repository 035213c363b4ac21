//! A disk in memory whose power can be cut, or that can fail, at every call that changes it.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Append, Disk};

/// The block that a disk writes whole or not at all.
const BLOCK: usize = 512;

/// SplitMix64: a small generator, the same on every machine.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end.max(1) as u64).unwrap()
    }
}

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The power goes: this call is done in part, later ones not at all.
    PowerCut,
    /// The call fails, having done a part; later ones work.
    Error,
    /// The same, for lack of room.
    Full,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// Where the next append goes; zeros may follow.
    end: usize,
    /// What is on the disk for certain.
    synced: Vec<u8>,
}

impl Content {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes.resize(self.bytes.len().max(at + bytes.len()), 0);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// What may be left of it when the power goes. The size may be there and a block of the content not.
    fn survivor(&self, dice: &mut Dice) -> Vec<u8> {
        let grown = self.bytes.len().saturating_sub(self.synced.len());
        let mut left = self.synced.clone();
        left.resize(self.bytes.len() - grown + dice.below(grown + 1), 0);
        for block in (0..left.len()).step_by(BLOCK) {
            let block = block..(block + BLOCK).min(left.len());
            if dice.below(4) > 0 {
                left[block.clone()].copy_from_slice(&self.bytes[block]);
            }
        }
        left
    }
}

/// A change of names that is not on the disk for certain.
#[derive(Clone, Debug)]
enum NameChange {
    Set(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

#[derive(Debug)]
struct State {
    dice: Dice,
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    calls: usize,
    fault: Option<(usize, Fault)>,
    off: bool,
}

/// A handle to the disk; clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct PowerDisk(Arc<Mutex<State>>);

impl PowerDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice: Dice(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            calls: 0,
            fault: None,
            off: false,
        })))
    }

    /// Arms a fault `ahead` changing calls from now.
    pub(super) fn arm(&self, ahead: usize, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.calls + ahead, fault));
    }

    /// How many changing calls there were.
    pub(super) fn calls(&self) -> usize {
        self.state().calls
    }

    /// Whether the power is gone.
    pub(super) fn is_off(&self) -> bool {
        self.state().off
    }

    /// Power on again after an outage: of what was not synced, any part may have made it.
    pub(super) fn restart(&self) {
        let mut state = self.state();
        let State { dice, files, names, synced_names, unsynced_names, .. } = &mut *state;
        for file in files.iter_mut() {
            file.bytes = file.survivor(dice);
            file.synced = file.bytes.clone();
        }
        for change in unsynced_names.drain(..) {
            if dice.below(2) == 0 {
                change.apply(synced_names);
            }
        }
        *names = synced_names.clone();
        state.off = false;
        state.fault = None;
    }

    /// Power on after the process was killed: the kernel has everything.
    pub(super) fn carry_on(&self) {
        self.state().fault = None;
    }

    /// Flips a bit of the last byte of a file that is not room for more.
    pub(super) fn spoil(&self, name: &str) {
        let mut state = self.state();
        let file = state.names[name];
        *state.files[file].bytes.iter_mut().rfind(|byte| **byte != 0).unwrap() ^= 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// Counts a changing call; says whether it is to fail.
    fn call(&mut self) -> Result<(), io::Error> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        self.calls += 1;
        match self.fault {
            Some((at, fault)) if at < self.calls => {
                self.fault = None;
                self.off = fault == Fault::PowerCut;
                Err(match fault {
                    Fault::Full => io::ErrorKind::StorageFull.into(),
                    Fault::PowerCut | Fault::Error => io::Error::other("the fault of the test"),
                })
            }
            _ => Ok(()),
        }
    }

    fn change_names(&mut self, change: NameChange) -> io::Result<()> {
        let called = self.call();
        // A call that fails may have had its effect.
        if called.is_ok() || self.dice.below(2) == 0 {
            change.apply(&mut self.names);
            self.unsynced_names.push(change);
        }
        called
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Disk for PowerDisk {
    fn dir(&self) -> &Path {
        Path::new("/test")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let state = self.state();
        let file = state.file(name)?;
        Ok(Box::new(Cursor::new(state.files[file].bytes.clone())))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Append>> {
        let mut state = self.state();
        state.files.push(Content::default());
        let file = state.files.len() - 1;
        state.change_names(NameChange::Set(name.to_owned(), file))?;
        Ok(Box::new(PowerFile { disk: self.clone(), file }))
    }

    fn resume(&self, name: &str, len: u64) -> io::Result<Box<dyn Append>> {
        let mut state = self.state();
        let file = state.file(name)?;
        state.call()?;
        let len = usize::try_from(len).unwrap();
        let file_content = &mut state.files[file];
        file_content.bytes.truncate(len);
        file_content.end = len;
        file_content.synced = file_content.bytes.clone();
        Ok(Box::new(PowerFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.file(from)?;
        state.change_names(NameChange::Rename(from.to_owned(), to.to_owned(), file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file(name)?;
        state.change_names(NameChange::Remove(name.to_owned()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.synced_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }
}

struct PowerFile {
    disk: PowerDisk,
    file: usize,
}

impl PowerFile {
    /// Writes at the end, in part if it fails, and says how much.
    fn write(&self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut state = self.disk.state();
        let off = state.off;
        let called = state.call();
        let part = match called {
            Ok(()) => bytes.len(),
            Err(_) if off => 0,
            Err(_) => state.dice.below(bytes.len() + 1),
        };
        let file = &mut state.files[self.file];
        file.write(file.end, &bytes[..part]);
        (part, called)
    }
}

impl Append for PowerFile {
    fn reserve(&mut self, bytes: usize) -> io::Result<()> {
        self.write(&vec![0; bytes]).1
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (written, called) = self.write(bytes);
        self.disk.state().files[self.file].end += written;
        called
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call()?;
        let file = &mut state.files[self.file];
        file.synced = file.bytes.clone();
        Ok(())
    }
}
