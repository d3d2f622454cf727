//! The conformance suite, told to the native service. What runs at the edge is told the same stories.

use cdc_tests::conformance;
use cdc_tests::harness::Launch;

#[test]
fn the_native_service_conforms_to_the_contract() {
    let server = Launch::new().start();
    let report = conformance::run(server.address());
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(report.skipped, Vec::<String>::new(), "the native service offers everything");
    assert!(report.passed > 20, "{report:?}");
}
