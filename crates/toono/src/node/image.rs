//! `toono node image`: the images on this machine, for a person at it. The node may run meanwhile.

use std::path::{Path, PathBuf};

use serde_json::json;
use toono_images::{Image, ImageRef, ImageStore, InUse, RegistryConfig, StoreError};

use super::{cli::ImageCommand, explain};
use crate::{cli::Output, failure::Failure, table::Table};

/// What `-` stands for.
const STANDARD_INPUT: &str = "/dev/stdin";
/// Digits of a digest that tell images apart for a person.
const SHORT_DIGEST: usize = 12;

pub(super) fn run(command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Ls { data, output } => list(&data.dir, output),
        ImageCommand::Rm { data, force, images } => remove(&data.dir, force, &images),
        ImageCommand::Import { data, name, archive } => import(&data.dir, name, archive),
    }
}

fn list(data: &Path, output: Output) -> Result<(), Failure> {
    let images = open(data)?.list().map_err(|error| store_failed(&error))?;
    let in_use = in_use(data)?;
    let rows = images.iter().map(|image| {
        json!({
            "name": image.reference.to_string(),
            "digest": image.digest.to_string(),
            "sizeBytes": image.size,
            "inUse": in_use.has(image),
        })
    });
    let rows: Vec<_> = rows.collect();
    match output {
        Output::Table => {
            let mut table = Table::new(["IMAGE", "DIGEST", "SIZE", "IN USE"]);
            for image in &images {
                let digest: String = image.digest.hex().chars().take(SHORT_DIGEST).collect();
                let used = if in_use.has(image) { "yes" } else { "no" };
                let name = image.reference.to_string();
                table.row([name, digest, megabytes(image.size), used.to_owned()]);
            }
            print!("{}", table.render());
        }
        Output::Json => println!("{}", json!(rows)),
        Output::Yaml => print!("{}", serde_yaml_ng::to_string(&rows).unwrap_or_default()),
    }
    Ok(())
}

fn remove(data: &Path, force: bool, names: &[String]) -> Result<(), Failure> {
    let store = open(data)?;
    let used = in_use(data)?;
    let here = store.list().map_err(|error| store_failed(&error))?;
    let mut doomed: Vec<&Image> = Vec::new();
    // All are looked at before one is removed.
    for name in names {
        let reference = parse(name)?;
        let found: Vec<&Image> = here.iter().filter(|image| image.is_called(&reference)).collect();
        if found.is_empty() {
            let what = format!("there is no image {reference}");
            return Err(Failure::new("no-such-image", what, "`toono node image ls` lists them"));
        }
        if let Some(image) = found.iter().find(|image| used.has(image) && !force) {
            let what = format!("{} is used by a pod of this node", image.reference);
            let hint = "delete the pod first, or give --force: what runs goes on";
            return Err(Failure::new("image-in-use", what, hint));
        }
        doomed.extend(found);
    }
    for image in doomed {
        store.remove(&image.reference).map_err(|error| store_failed(&error))?;
        println!("image {} removed", image.reference);
    }
    let pruned = store.prune(&used.layers, std::time::Duration::ZERO);
    if pruned.map_err(|error| store_failed(&error))?.is_none() {
        eprintln!("an image is being pulled: the layers go when it is there");
    }
    Ok(())
}

fn import(data: &Path, name: Option<String>, archive: PathBuf) -> Result<(), Failure> {
    let name = name.as_deref().map(parse).transpose()?;
    let archive = if archive.as_os_str() == "-" { STANDARD_INPUT.into() } else { archive };
    let imported = open(data)?.import(&archive, name.as_ref());
    let images =
        imported.map_err(|error| Failure::caused("import-failed", &error, error.hint()))?;
    for image in images {
        println!("image {} imported", image.reference);
    }
    Ok(())
}

fn open(data: &Path) -> Result<ImageStore, Failure> {
    ImageStore::open(data.join("images"), RegistryConfig::default())
        .map_err(|error| store_failed(&error))
}

fn in_use(data: &Path) -> Result<InUse, Failure> {
    toono_agent::images::in_use(data).map_err(|error| explain(&error))
}

fn parse(name: &str) -> Result<ImageRef, Failure> {
    name.parse().map_err(|error| {
        Failure::caused("bad-image-name", &error, "as in registry.example/team/app:1.0")
    })
}

fn store_failed(error: &StoreError) -> Failure {
    Failure::caused("data-dir", error, "run it as root, and check --data and the disk")
}

/// In decimal megabytes, as registries and Docker show sizes.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
