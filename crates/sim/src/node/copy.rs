//! `kubectl cp` of a large file into a pod and back: the way that a tunnel behind NAT carries bytes.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::process::Command;

use crate::{Failure, fleet::Figures};

/// No copy takes this long on a working edge.
const LIMIT: Duration = Duration::from_secs(300);
/// What is written at once while the file is made.
const CHUNK: usize = 1 << 20;

/// Copies a file of so many MB that cannot be compressed into the pod and back, and compares what came.
pub(super) async fn measure(
    kubeconfig: &Path,
    directory: &Path,
    pod: &str,
    megabytes: usize,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let (sent, back) = (directory.join("sent"), directory.join("back"));
    make(&sent, megabytes)?;
    let digest = sha256(&sent).await?;
    let remote = format!("{pod}:/tmp/sent");
    let [sent_text, back_text] =
        [&sent, &back].map(|path| path.to_str().ok_or("a path that is no text"));
    let copy = |from, to| kubectl(kubeconfig, ["cp", from, to]);
    let into = copy(sent_text?, &*remote).await?;
    let inside = kubectl(kubeconfig, ["exec", pod, "--", "sha256sum", "/tmp/sent"]).await?.1;
    let out = copy(&*remote, back_text?).await?;
    let returned = sha256(&back).await?;
    std::fs::remove_file(&sent)?;
    std::fs::remove_file(&back)?;
    if !inside.starts_with(&digest) || returned != digest {
        return Err(format!("{digest} went, {inside} was there, {returned} came back").into());
    }
    let [into, out] = [into, out].map(|(took, _)| megabytes as f64 / took.as_secs_f64());
    figures.tell(
        "kubectl cp",
        &format!(
            "{megabytes} MB into a pod at {into:.0} MB/s, back at {out:.0} MB/s, hashes equal"
        ),
        json!({"mb": megabytes, "into_mb_s": into, "back_mb_s": out}),
    );
    Ok(())
}

fn make(path: &Path, megabytes: usize) -> Result<(), Failure> {
    let mut file = File::create(path)?;
    let (mut random, mut chunk) = (fastrand::Rng::with_seed(1), vec![0; CHUNK]);
    let mut left = megabytes * 1_000_000;
    while left > 0 {
        random.fill(&mut chunk);
        let part = chunk.get(..left.min(CHUNK)).unwrap_or_default();
        file.write_all(part)?;
        left -= part.len();
    }
    file.sync_all()?;
    Ok(())
}

async fn sha256(path: &Path) -> Result<String, Failure> {
    let told = output(Command::new("sha256sum").arg(path)).await?;
    Ok(told.split_whitespace().next().unwrap_or_default().to_owned())
}

/// How long it took, and what it wrote.
async fn kubectl<const N: usize>(
    kubeconfig: &Path,
    arguments: [&str; N],
) -> Result<(Duration, String), Failure> {
    let began = Instant::now();
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
    let told = output(&mut command).await?;
    Ok((began.elapsed(), told))
}

async fn output(command: &mut Command) -> Result<String, Failure> {
    let output = tokio::time::timeout(LIMIT, command.kill_on_drop(true).output()).await??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{:?}: {}: {said}", command.as_std(), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
