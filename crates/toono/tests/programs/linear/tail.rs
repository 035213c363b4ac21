//! The journal's end, as a power cut leaves it. It must not cut what somebody was told of, unless it is
//! asked to.

use std::path::Path;

use toono_linear::dice::Dice;

/// Cuts the newest journal file somewhere after the frames with revisions up to this one, and may leave
/// garbage there.
pub(super) fn cut(store: &Path, told: u64, dice: &mut Dice) {
    let names = std::fs::read_dir(store).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let Some(last) = names.filter(|name| name.starts_with("journal-")).max() else { return };
    let mut bytes = std::fs::read(store.join(&last)).unwrap();
    let needed = frames_through(&bytes, told);
    let unneeded = u64::try_from(bytes.len() - needed).unwrap();
    bytes.truncate(needed + usize::try_from(dice.below((unneeded + 1).min(200))).unwrap());
    bytes.extend((0..dice.below(100)).map(|_| u8::try_from(dice.below(255)).unwrap()));
    std::fs::write(store.join(&last), bytes).unwrap();
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
