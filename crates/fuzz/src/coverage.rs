//! Which code an input reached: the counters that `-Cpasses=sancov-module` puts at each branch.
//!
//! Only a build with the feature `coverage` has them; without it no input seems new.

/// What was reached so far, by how often.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    seen: Vec<u8>,
}

impl Coverage {
    /// Forgets what the counters say: what follows is one input.
    pub(crate) fn begin() {
        counters::each(|_, counter| *counter = 0);
    }

    /// Whether the input reached what none before it did, or so often as none did.
    pub(crate) fn is_new(&mut self) -> bool {
        let mut new = false;
        counters::each(|at, counter| {
            if *counter == 0 {
                return;
            }
            if self.seen.len() <= at {
                self.seen.resize(at + 1, 0);
            }
            // 1, 2, 3, 4-7, 8-15, 16-31, 32-127, more: as libFuzzer has it.
            let bit = match *counter {
                1 => 1,
                2 => 2,
                3 => 4,
                4..=7 => 8,
                8..=15 => 16,
                16..=31 => 32,
                32..=127 => 64,
                _ => 128,
            };
            if let Some(seen) = self.seen.get_mut(at)
                && *seen & bit == 0
            {
                *seen |= bit;
                new = true;
            }
        });
        new
    }

    /// How many branches were reached.
    pub(crate) fn reached(&self) -> usize {
        self.seen.iter().filter(|seen| **seen != 0).count()
    }
}

#[cfg(not(feature = "coverage"))]
mod counters {
    //! None.

    pub(super) fn each(_: impl FnMut(usize, &mut u8)) {}
}

#[cfg(feature = "coverage")]
mod counters {
    //! The program's own, as its start code tells them.
    #![expect(unsafe_code, reason = "the compiler hands the counters over as two pointers")]

    use std::sync::Mutex;

    /// Begin and length of the counters; address as a number, since pointers do not move threads.
    static REGION: Mutex<(usize, usize)> = Mutex::new((0, 0));

    /// Called by the program's start code, once a module with the same region.
    // SAFETY: the name is reserved for this very use, and nothing else here defines it.
    #[unsafe(no_mangle)]
    extern "C" fn __sanitizer_cov_8bit_counters_init(begin: *mut u8, end: *mut u8) {
        if let Ok(mut region) = REGION.lock() {
            *region = (begin as usize, end as usize - begin as usize);
        }
    }

    pub(super) fn each(mut visit: impl FnMut(usize, &mut u8)) {
        let Ok((begin, length)) = REGION.lock().map(|region| *region) else { return };
        for at in (0..length / 8).map(|word| word * 8) {
            // SAFETY: the region is static memory of the program, of this length; counters are
            // bytes that any thread may change, so they are read and written as such.
            let word = unsafe { std::ptr::read_unaligned((begin + at) as *const u64) };
            if word == 0 {
                continue;
            }
            for at in at..at + 8 {
                // SAFETY: as above.
                let mut counter = unsafe { std::ptr::read_volatile((begin + at) as *const u8) };
                visit(at, &mut counter);
                // SAFETY: as above.
                unsafe { std::ptr::write_volatile((begin + at) as *mut u8, counter) };
            }
        }
    }
}
