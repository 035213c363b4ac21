//! The pod's namespaces: made by unsharing the keeper's own, so they live as long as it does.

use std::{ffi::CString, fs, io, os::fd::AsRawFd, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
    unistd::sethostname,
};

use crate::spec::SandboxSpec;

/// The longest host name that the kernel takes.
const MAX_HOSTNAME_BYTES: usize = 64;
/// What containerd sets as well: everyone in a pod may listen on any port and send pings.
const NETWORK_SETTINGS: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
];

nix::ioctl_write_ptr_bad!(set_link_flags, libc::SIOCSIFFLAGS, libc::ifreq);

/// Leaves the host's namespaces.
pub(super) fn enter(spec: &SandboxSpec) -> Result<(), (&'static str, io::Error)> {
    let mut flags = CloneFlags::CLONE_NEWNS;
    if !spec.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    if !spec.host_network {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    unshare(flags).map_err(|errno| ("namespaces", errno.into()))?;
    // What the host mounts and unmounts later is seen; what is mounted here is not seen there,
    // and is gone with the last process of the pod.
    let propagation = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, propagation, None::<&str>)
        .map_err(|errno| ("mount propagation", errno.into()))?;
    if !spec.host_network {
        let end = spec.hostname.floor_char_boundary(MAX_HOSTNAME_BYTES);
        sethostname(spec.hostname.get(..end).unwrap_or_default())
            .map_err(|errno| ("the host name", errno.into()))?;
        raise_loopback().map_err(|error| ("the loopback link", error))?;
        for (path, value) in NETWORK_SETTINGS {
            // Kernels built without one of them lack nothing that a pod must have.
            let _ = fs::write(path, value);
        }
    }
    for (name, value) in &spec.sysctls {
        set(name, value).map_err(|error| ("a sysctl", error))?;
    }
    Ok(())
}

/// Sets one of the kernel's settings, as the keeper's namespaces have it.
fn set(name: &str, value: &str) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}={value}: {error}"));
    let path = name.replace('.', "/");
    if path.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return Err(named(io::ErrorKind::InvalidInput.into()));
    }
    fs::write(Path::new("/proc/sys").join(path), value).map_err(named)
}

#[expect(unsafe_code, reason = "an ioctl with a C structure")]
fn raise_loopback() -> io::Result<()> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the structure is plain data, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = CString::new("lo")?;
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes_with_nul()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or_default();
    // SAFETY: the socket is open and the kernel only reads the structure.
    unsafe { set_link_flags(fd.as_raw_fd(), &raw const request) }?;
    Ok(())
}
