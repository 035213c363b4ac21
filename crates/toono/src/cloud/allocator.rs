//! Which allocator a process of this program uses. The server has many threads and gigabytes of small
//! objects: jemalloc takes a quarter of its work off it, and gives memory back. Nodes and keepers are to
//! be as small as they can: the system's.
//!
//! The choice is made with the first allocation, before `main`, and never changes: a block must go back to
//! where it came from. So it may not allocate.
#![expect(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU8, Ordering},
};

use tikv_jemallocator::Jemalloc;

/// The subcommand that gets jemalloc.
const SERVER: &[u8] = b"server";
/// More of a command line is not looked at.
const COMMAND_LINE_BYTES: usize = 4096;

/// How jemalloc behaves: freed pages go back to the system after a second, by a thread of its own, so that an
/// idle server is small.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[expect(non_upper_case_globals, reason = "the symbol that jemalloc reads")]
static malloc_conf: Option<&'static std::ffi::c_char> =
    // SAFETY: a string that ends in zero and lives for ever.
    Some(unsafe { &*c"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr() });

#[global_allocator]
static ALLOCATOR: ByRole = ByRole;

const UNKNOWN: u8 = 0;
const SYSTEM: u8 = 1;
const JEMALLOC: u8 = 2;
static CHOICE: AtomicU8 = AtomicU8::new(UNKNOWN);

struct ByRole;

#[inline]
fn is_server() -> bool {
    match CHOICE.load(Ordering::Relaxed) {
        UNKNOWN => choose(),
        choice => choice == JEMALLOC,
    }
}

#[cold]
fn choose() -> bool {
    let mut bytes = [0; COMMAND_LINE_BYTES];
    let server = command_line(&mut bytes).split(|byte| *byte == 0).skip(1).any(|arg| arg == SERVER);
    CHOICE.store(if server { JEMALLOC } else { SYSTEM }, Ordering::Relaxed);
    server
}

/// The arguments of this process with a zero after each (proc(5)); nothing when they cannot be read.
fn command_line(bytes: &mut [u8]) -> &[u8] {
    // SAFETY: the path ends in zero, the buffer is as long as is said, the descriptor is ours.
    let read = unsafe {
        let file = libc::open(c"/proc/self/cmdline".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return &[];
        }
        let read = libc::read(file, bytes.as_mut_ptr().cast(), bytes.len());
        libc::close(file);
        read
    };
    usize::try_from(read).ok().and_then(|read| bytes.get(..read)).unwrap_or_default()
}

// SAFETY: each block comes from and returns to the same allocator, since the choice never changes; these
// keep the rest of the contract.
unsafe impl GlobalAlloc for ByRole {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as our caller promises; the same below.
        unsafe { if is_server() { Jemalloc.alloc(layout) } else { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see `alloc`.
        unsafe {
            if is_server() { Jemalloc.alloc_zeroed(layout) } else { System.alloc_zeroed(layout) }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: see `alloc`.
        unsafe {
            if is_server() {
                Jemalloc.dealloc(block, layout)
            } else {
                System.dealloc(block, layout)
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: see `alloc`.
        unsafe {
            if is_server() {
                Jemalloc.realloc(block, layout, size)
            } else {
                System.realloc(block, layout, size)
            }
        }
    }
}
