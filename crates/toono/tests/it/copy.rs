//! `kubectl cp` and `kubectl exec -i`: what goes into a container comes out of it unchanged.

use std::{fs, io::Write as _, process::Stdio};

use crate::edge::{Edge, kubectls, success};

#[test]
fn files_folders_and_input_reach_a_container_and_come_back() {
    let edge = Edge::up();
    let pod = edge.pods()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let (sent, back) = (edge.data().join("sent"), edge.data().join("back"));
    fs::create_dir_all(sent.join("inner")).unwrap();
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(n) / 7) as u8).collect();
    fs::write(sent.join("file"), &bytes).unwrap();
    fs::write(sent.join("inner").join("other"), "other").unwrap();
    let (from, to) = (sent.to_str().unwrap(), back.to_str().unwrap());
    let programs = kubectls();
    // The one on the PATH, and the oldest.
    for (number, program) in programs.iter().take(2).enumerate() {
        edge.use_kubectl(program.clone());
        let remote = format!("{pod}:/tmp/copied-{number}");
        edge.kubectl(&["cp", from, &remote]);
        edge.kubectl(&["cp", &remote, to]);
        assert_eq!(fs::read(back.join("file")).unwrap(), bytes);
        assert_eq!(fs::read_to_string(back.join("inner").join("other")).unwrap(), "other");
        fs::remove_dir_all(&back).unwrap();
        edge.kubectl(&["cp", &format!("{remote}/file"), to]);
        assert_eq!(fs::read(&back).unwrap(), bytes);
        fs::remove_file(&back).unwrap();

        let mut child = edge
            .kubectl_command(&["exec", "-i", &pod, "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let sent = bytes.clone();
        let writer = std::thread::spawn(move || input.write_all(&sent).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert_eq!(output.stdout, bytes, "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success());
    }
    let asked = edge.kubectl_command(&["exec", &pod, "--", "true"]).output().unwrap();
    success("kubectl exec", asked);
}
