//! The end of a store's journal, as a power cut leaves it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot read its journal fails"
)]

use std::{fs, path::Path};

use crate::dice::Dice;

/// Cuts the newest journal file after its frames with revisions up to `told`, and may leave garbage there.
/// Of what comes after them some stays, `spare` bytes at most: a power cut takes what was not synced, and
/// what somebody was told of was. Whether there was more than those frames.
///
/// # Panics
/// When the directory cannot be read or written.
pub fn tear(store: &Path, told: u64, spare: u64, dice: &mut Dice) -> bool {
    let names = fs::read_dir(store).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let Some(last) = names.filter(|name| name.starts_with("journal-")).max() else { return false };
    let mut bytes = fs::read(store.join(&last)).unwrap();
    // The rest is room for more.
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    let needed = frames_through(&bytes, told);
    let unneeded = u64::try_from(bytes.len() - needed).unwrap();
    bytes.truncate(needed + usize::try_from(dice.below(unneeded.min(spare) + 1)).unwrap());
    bytes.extend((0..dice.below(100)).map(|_| u8::try_from(dice.below(255)).unwrap()));
    fs::write(store.join(&last), bytes).unwrap();
    unneeded > 0
}

/// Where the journal's frames end that have revisions up to this one: magic 4, checksum 4, payload's
/// length 4, first revision 8, last revision 8, payload.
fn frames_through(bytes: &[u8], rev: u64) -> usize {
    let mut end = 0;
    while let Some(frame) = bytes[end..].get(..28) {
        let first = u64::from_le_bytes(frame[12..20].try_into().unwrap());
        let len = u32::from_le_bytes(frame[8..12].try_into().unwrap());
        let next = end + 28 + usize::try_from(len).unwrap();
        if first > rev || next > bytes.len() {
            break;
        }
        end = next;
    }
    end
}
