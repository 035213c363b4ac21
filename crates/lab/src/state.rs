//! The one file of a lab, which says what it should be. It is below `/run`, so it goes with a reboot, as the
//! namespaces do.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{LabConfig, LabError, LabName};

/// Where the files of labs are.
const STATE_DIR: &str = "/run/toono/lab";

fn path(name: &LabName) -> PathBuf {
    Path::new(STATE_DIR).join(format!("{name}.json"))
}

fn failed(action: &'static str, name: &LabName) -> impl Fn(io::Error) -> LabError {
    let path = path(name);
    move |source| LabError::State { action, path: path.clone(), source }
}

/// What the lab should be, if there is one.
pub(crate) fn find(name: &LabName) -> Result<Option<LabConfig>, LabError> {
    match fs::read(path(name)) {
        Ok(bytes) => {
            let config = serde_json::from_slice(&bytes)
                .map_err(|error| failed("read", name)(error.into()))?;
            Ok(Some(config))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", name)(error)),
    }
}

/// What the lab should be; an error when there is none.
pub(crate) fn load(name: &LabName) -> Result<LabConfig, LabError> {
    find(name)?.ok_or_else(|| LabError::NoLab { name: name.to_string() })
}

/// Keeps what the lab should be, whole or not at all.
pub(crate) fn save(config: &LabConfig) -> Result<(), LabError> {
    let failed = failed("write", &config.name);
    let path = path(&config.name);
    let bytes = serde_json::to_vec_pretty(config).map_err(|error| failed(error.into()))?;
    fs::create_dir_all(STATE_DIR).map_err(&failed)?;
    let new = path.with_extension("json.new");
    let mut file = fs::File::create(&new).map_err(&failed)?;
    file.write_all(&bytes).map_err(&failed)?;
    fs::rename(&new, &path).map_err(&failed)
}

/// Forgets the lab.
pub(crate) fn remove(name: &LabName) -> Result<(), LabError> {
    for path in [path(name), path(name).with_extension("json.new")] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", name)(error));
            }
            _ => {}
        }
    }
    // The directories are shared with other labs; they go with the last one.
    let _ = fs::remove_dir(STATE_DIR);
    let _ = Path::new(STATE_DIR).parent().map(fs::remove_dir);
    Ok(())
}
