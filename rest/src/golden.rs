//! Comparison with the kept answers in `tests/golden/rest`.

use std::path::Path;

/// Holds the answer against the kept one, byte for byte. With `CDC_GOLDEN=write` it becomes the kept one: read the
/// difference before you commit it.
pub(crate) fn assert_golden(name: &str, answer: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/rest").join(name);
    if name.ends_with(".json") {
        let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(answer);
        assert!(parsed.is_ok(), "{name} is not JSON: {}", String::from_utf8_lossy(answer));
    }
    if std::env::var("CDC_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&path, answer).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let kept = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(String::from_utf8_lossy(answer), String::from_utf8_lossy(&kept), "{name}");
}
