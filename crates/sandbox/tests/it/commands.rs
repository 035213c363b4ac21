//! Commands in running containers.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
};

use tokio::task::spawn_blocking;
use toono_sandbox::{ContainerSpec, ExecSpec, KeeperError, Streams};

use crate::pod::{PATIENCE, Pod};

fn command(container: &ContainerSpec, script: &str) -> ExecSpec {
    ExecSpec {
        container: container.id(),
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        tty: false,
        stdin: false,
        ends_with_client: false,
    }
}

/// All that comes until the other end closes; a terminal ends with an error.
async fn read_all(fd: OwnedFd) -> String {
    let reading = spawn_blocking(move || {
        let (mut file, mut bytes) = (File::from(fd), Vec::new());
        let _ = file.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap()
    });
    tokio::time::timeout(PATIENCE, reading).await.expect("the stream does not end").unwrap()
}

/// The same stream, after it has brought just `text`.
async fn expect(fd: OwnedFd, text: &'static str) -> OwnedFd {
    let reading = spawn_blocking(move || {
        let (mut file, mut bytes) = (File::from(fd), vec![0; text.len()]);
        file.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), text);
        file.into()
    });
    tokio::time::timeout(PATIENCE, reading).await.expect("the text does not come").unwrap()
}

#[tokio::test]
async fn output_input_and_exit_code_pass_through() {
    let pod = Pod::start().await;
    let main = pod.container("main", "sleep 100");
    pod.keeper.create_and_start(&main).await.unwrap();
    let mut spec = command(&main, "cat; echo err >&2; exit 5");
    spec.stdin = true;
    let io = pod.keeper.exec(&spec).await.unwrap();
    let Streams::Pipes { stdin, stdout, stderr } = io.streams else { panic!("no pipes") };
    let mut stdin = File::from(stdin.unwrap());
    stdin.write_all(b"to and fro").unwrap();
    drop(stdin);
    assert_eq!(read_all(stdout).await, "to and fro");
    assert_eq!(read_all(stderr).await, "err\n");
    assert_eq!(io.exit.wait().await.unwrap().code, 5);
}

#[tokio::test]
async fn several_commands_run_at_once() {
    let pod = Pod::start().await;
    let main = pod.container("main", "sleep 100");
    pod.keeper.create_and_start(&main).await.unwrap();
    let run = |number: i32| {
        let spec = command(&main, &format!("echo {number}; exit {number}"));
        let keeper = pod.keeper.clone();
        async move {
            let io = keeper.exec(&spec).await.unwrap();
            let Streams::Pipes { stdout, .. } = io.streams else { panic!("no pipes") };
            (read_all(stdout).await, io.exit.wait().await.unwrap().code)
        }
    };
    let results = tokio::join!(run(1), run(2), run(3), run(4));
    let expected = |number: i32| (format!("{number}\n"), number);
    assert_eq!(results, (expected(1), expected(2), expected(3), expected(4)));
}

#[tokio::test]
async fn a_terminal_has_a_size() {
    let pod = Pod::start().await;
    let main = pod.container("main", "sleep 100");
    pod.keeper.create_and_start(&main).await.unwrap();
    let mut spec = command(&main, "read line; stty size; tty; echo got $line");
    spec.tty = true;
    let io = pod.keeper.exec(&spec).await.unwrap();
    let Streams::Terminal(terminal) = io.streams else { panic!("no terminal") };
    terminal.resize(132, 43).unwrap();
    let mut writer = File::from(terminal.0.try_clone().unwrap());
    writer.write_all(b"hello\n").unwrap();
    let text = read_all(terminal.0).await;
    assert!(text.contains("43 132"), "{text}");
    assert!(text.contains("/dev/pts/"), "{text}");
    assert!(text.contains("got hello"), "{text}");
    assert_eq!(io.exit.wait().await.unwrap().code, 0);
}

#[tokio::test]
async fn a_container_with_a_terminal_is_logged() {
    let pod = Pod::start().await;
    let mut spec = pod.container("main", "tty && echo $TERM");
    spec.tty = true;
    let (status, log) = pod.run(&spec).await;
    assert_eq!((status.code, log.as_str()), (0, "/dev/pts/0\nxterm\n"));
}

#[tokio::test]
async fn what_cannot_run_is_refused() {
    let pod = Pod::start().await;
    let main = pod.container("main", "sleep 100");
    pod.keeper.create_and_start(&main).await.unwrap();
    let mut spec = command(&main, "");
    spec.args = vec!["nope".to_owned()];
    let error = pod.keeper.exec(&spec).await.unwrap_err();
    assert!(matches!(error, KeeperError::Refused { .. }));
    assert_eq!(error.to_string(), "exec: \"nope\": executable file not found in $PATH");
    pod.keeper.signal(&main.id(), libc::SIGKILL).await.unwrap();
    pod.wait_exit(&main.id()).await;
    let error = pod.keeper.exec(&spec).await.unwrap_err();
    assert_eq!(error.to_string(), "container main-0 is not running");
}

#[tokio::test]
async fn a_command_may_end_with_its_client() {
    let pod = Pod::start().await;
    let main = pod.container("main", "while [ ! -e /done ]; do sleep 0.05; done");
    pod.keeper.create_and_start(&main).await.unwrap();
    for ends in [false, true] {
        let mut spec = command(&main, &format!("echo up; sleep 1; touch /{ends}"));
        spec.ends_with_client = ends;
        let io = pod.keeper.exec(&spec).await.unwrap();
        let Streams::Pipes { stdout, .. } = io.streams else { panic!("no pipes") };
        let stdout = expect(stdout, "up\n").await;
        drop(io.exit);
        // What it leaves open ends with it, and with the `sleep` that it started.
        assert_eq!(read_all(stdout).await, "");
    }
    let spec = command(&main, "ls /true /false; touch /done");
    let io = pod.keeper.exec(&spec).await.unwrap();
    let Streams::Pipes { stdout, .. } = io.streams else { panic!("no pipes") };
    assert_eq!(read_all(stdout).await, "/false\n", "the one that was to be killed wrote nothing");
    pod.wait_exit(&main.id()).await;
}
