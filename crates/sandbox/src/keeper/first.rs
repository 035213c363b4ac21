//! The first process of a namespace that all containers of a pod share: it is there, and it reaps.
//!
//! With it the namespace and every process in it would end, so it does nothing that can fail.

use std::{fs::File, io};

use nix::{
    sys::{
        prctl,
        signal::{SigHandler, Signal, signal},
    },
    unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pause},
};

/// A keeper that is only just being made has fewer descriptors than this.
const DESCRIPTORS: libc::c_int = 64;
/// What a list of the pod's processes shows.
const NAME: &std::ffi::CStr = c"pause";

/// Starts it. It dies with the keeper.
#[expect(unsafe_code, reason = "a fork into a new namespace has no safe wrapper")]
pub(super) fn start() -> io::Result<Pid> {
    let flags = libc::CLONE_NEWPID | libc::SIGCHLD;
    // SAFETY: without a stack of its own this is a fork; the keeper has one thread, so no lock is held
    // by a thread that the child lacks.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => be(),
        pid => Ok(Pid::from_raw(i32::try_from(pid).unwrap_or_default())),
    }
}

#[expect(unsafe_code, reason = "signal dispositions, descriptors and _exit")]
fn be() -> ! {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let _ = prctl::set_name(NAME);
    // Whoever reads what the keeper writes must not wait for this process, nor the next keeper for
    // the lock of this one.
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
        let _ = dup2_stderr(&null);
    }
    // SAFETY: nothing here uses a descriptor from now on, and `SigIgn` runs no handler: ignored, the
    // ends of orphans need no reaping.
    let reaps = unsafe {
        for descriptor in 3..DESCRIPTORS {
            libc::close(descriptor);
        }
        signal(Signal::SIGCHLD, SigHandler::SigIgn).is_ok()
    };
    if !reaps {
        // SAFETY: ends this process at once; destructors and buffers are the keeper's.
        unsafe { libc::_exit(1) }
    }
    loop {
        pause();
    }
}
