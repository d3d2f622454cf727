//! Golden files: what an answer was when somebody last looked at it, byte for byte.

use std::path::PathBuf;
use std::{env, fs};

use cdc_tests::harness::repository;

/// Compares with the file, or writes it when `CDC_UPDATE_GOLDEN` is set (and then the diff wants to be read).
#[track_caller]
pub(crate) fn assert_golden(name: &str, actual: &str) {
    let file: PathBuf = repository().join("tests/golden").join(name);
    if env::var_os("CDC_UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(actual, expected, "not what {} has; set CDC_UPDATE_GOLDEN=1 if the change is meant", file.display());
}
