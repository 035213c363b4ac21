//! Creates containers, and runs commands in them, through libcontainer.
//!
//! Everything here runs in a child of the keeper (see `fork`), which shares the keeper's namespaces
//! and ends when the process is started.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::fchown,
    },
    path::{Path, PathBuf},
};

use libcontainer::{
    container::builder::ContainerBuilder, error::LibcontainerError, syscall::syscall::SyscallType,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::Value;

use super::{
    exec::{FailurePipe, Restrictions, duplicate},
    fork::Outcome,
    oci::{self, ProcessNamespace, Surroundings},
    profile, rootfs, users,
};
use crate::{
    cgroups, layout,
    spec::{ContainerSpec, ExecSpec, Mount, SandboxSpec},
};

/// The configuration that libcontainer reads from a bundle.
const CONFIGURATION: &str = "config.json";

/// The container's ends of its standard streams.
#[derive(Debug)]
pub(super) enum Ends {
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A listening socket's path, to which the terminal's master is sent.
    Terminal {
        console: PathBuf,
    },
}

/// Creates and starts a container; the outcome is its first process.
pub(super) fn container(
    sandbox: &SandboxSpec,
    spec: &ContainerSpec,
    processes: &ProcessNamespace,
    ends: &Ends,
) -> Outcome {
    let bundle = layout::container(&sandbox.dir, &spec.id());
    let root = rootfs::mount_overlay(&bundle, &spec.layers)
        .map_err(|error| format!("cannot mount the root file system: {error}"))?;
    let user = users::resolve(&root, spec)?;
    if !spec.cwd.is_empty() {
        rootfs::make_directory(&root, Path::new(&spec.cwd))
            .map_err(|error| format!("working directory {}: {error}", spec.cwd))?;
    }
    let capabilities = oci::capabilities(&spec.security);
    let around = Surroundings {
        user: &user,
        seccomp: profile::of(&spec.security, &capabilities)?,
        capabilities,
        hostname: &sandbox.hostname,
        shared_memory: &rootfs::shared_memory(sandbox),
        processes,
        cgroup: cgroups::pod_path(&sandbox.cgroup_parent, &sandbox.pod_uid)
            .join(spec.id().as_str()),
        unified_cgroups: cgroups::unified_only(),
    };
    for mount in &spec.mounts {
        // libcontainer only says that it failed to prepare a root file system.
        if let Mount::Bind { source, target, .. } = mount {
            fs::metadata(source).map_err(|error| {
                format!("cannot mount {} at {}: {error}", source.display(), target.display())
            })?;
        }
    }
    let configuration = oci::configuration(spec, &around);
    write_json(&bundle.join(CONFIGURATION), &configuration)?;
    let restrictions = Restrictions::read(&configuration)?;
    let failure = FailurePipe::new().map_err(text)?;
    let id = spec.id();
    let mut builder = ContainerBuilder::new(id.as_str().to_owned(), SyscallType::default())
        .with_executor(failure.program(true, restrictions))
        .with_root_path(layout::runtime_state(&sandbox.dir))
        .map_err(cause)?;
    builder = with_ends(builder, ends, user.uid).map_err(text)?;
    let mut container = builder
        .as_init(&bundle)
        .with_systemd(false)
        .with_detach(true)
        .as_sibling(true)
        .build()
        .map_err(cause)?;
    let pid = container.pid().ok_or("the container has no process")?.as_raw();
    if let Some(score) = spec.resources.oom_score_adj {
        match fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
            // Some machines withhold what it takes to be spared; that is no reason not to run.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("{id}: oom_score_adj {score}: {error}");
            }
            written => written.map_err(|error| format!("oom_score_adj: {error}"))?,
        }
    }
    container.start().map_err(cause)?;
    failure.wait()?;
    Ok(pid)
}

/// Runs a command in a container; the outcome is its process.
pub(super) fn command(sandbox: &SandboxSpec, spec: &ExecSpec, ends: &Ends) -> Outcome {
    let bundle = layout::container(&sandbox.dir, &spec.container);
    let text_of = fs::read(bundle.join(CONFIGURATION)).map_err(text)?;
    let configuration: Value = serde_json::from_slice(&text_of).map_err(text)?;
    let restrictions = Restrictions::read(&configuration)?;
    let mut process = configuration.get("process").cloned().unwrap_or_default();
    let uid = process.pointer("/user/uid").and_then(Value::as_u64).unwrap_or_default();
    if let Some(process) = process.as_object_mut() {
        process.insert("args".to_owned(), spec.args.clone().into());
        process.insert("terminal".to_owned(), spec.tty.into());
    }
    if spec.tty {
        add_terminal_type(&mut process);
    }
    // Not on the disk: probes must not fail because that is full.
    let file = in_memory(&process).map_err(text)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    start_command(sandbox, spec, ends, (uid, restrictions), Path::new(&path))
}

/// A file without a name.
fn in_memory(value: &Value) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"process", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(value)?)?;
    Ok(file)
}

fn start_command(
    sandbox: &SandboxSpec,
    spec: &ExecSpec,
    ends: &Ends,
    (uid, restrictions): (u64, Restrictions),
    process_file: &Path,
) -> Outcome {
    let failure = FailurePipe::new().map_err(text)?;
    let uid = u32::try_from(uid).map_err(text)?;
    let builder = ContainerBuilder::new(spec.container.as_str().to_owned(), SyscallType::default())
        .with_executor(failure.program(false, restrictions))
        .with_root_path(layout::runtime_state(&sandbox.dir))
        .map_err(cause)?;
    let pid = with_ends(builder, ends, uid)
        .map_err(text)?
        .as_tenant()
        .with_process(Some(process_file))
        .with_detach(true)
        .as_sibling(true)
        .build()
        .map_err(cause)?;
    failure.wait()?;
    Ok(pid.as_raw())
}

fn with_ends(mut builder: ContainerBuilder, ends: &Ends, uid: u32) -> io::Result<ContainerBuilder> {
    match ends {
        Ends::Terminal { console } => Ok(builder.with_console_socket(Some(console.clone()))),
        Ends::Pipes { stdin, stdout, stderr } => {
            let null;
            let stdin = match stdin {
                Some(stdin) => stdin.as_fd(),
                None => {
                    null = fs::File::open("/dev/null")?;
                    null.as_fd()
                }
            };
            builder = builder.with_stdin(duplicate(stdin)?);
            // A program may open /dev/stdout, for which the pipe must be its user's.
            for fd in [stdout, stderr] {
                fchown(fd, Some(uid), None)?;
            }
            Ok(builder
                .with_stdout(duplicate(stdout.as_fd())?)
                .with_stderr(duplicate(stderr.as_fd())?))
        }
    }
}

fn add_terminal_type(process: &mut Value) {
    if let Some(env) = process.get_mut("env").and_then(Value::as_array_mut) {
        let is_set =
            env.iter().any(|entry| entry.as_str().is_some_and(|text| text.starts_with("TERM=")));
        if !is_set {
            env.push("TERM=xterm".into());
        }
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), String> {
    let bytes = serde_json::to_vec(value).map_err(text)?;
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The innermost reason in one line. libcontainer wraps errors that crossed a process boundary in
/// several layers of prefixes, of which only the last part says something.
fn cause(error: LibcontainerError) -> String {
    use std::error::Error;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    if let Some(at) = text.find("exec: ") {
        text = text.split_off(at);
    }
    text.lines().next().unwrap_or_default().trim_end_matches(['"', ')']).to_owned()
}
