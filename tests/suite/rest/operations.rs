//! What operators and machines ask: health, readiness, metrics, and what there is here.

use cdc_tests::harness::Server;

#[test]
fn a_service_that_serves_is_alive_and_ready() {
    let server = Server::start();
    server.get("/healthz").expect(200);
    server.get("/readyz").expect(200);
}

#[test]
fn the_index_lists_the_paths() {
    let answer = Server::start().get("/").expect(200);
    for path in
        ["/data/:table", "/events", "/stats", "/snapshot/:table", "/schema/:table", "/schemas", "/replica/:table"]
    {
        assert!(answer.text().contains(path), "{path} is not in {}", answer.text());
    }
}

#[test]
fn metrics_are_prometheus_text_that_counts_what_happens() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    server.post("/data/t", r#"{"id":1}"#).expect_problem(409, "row-exists");
    let metrics = server.get("/metrics").expect(200);
    let content_type = metrics.header("content-type").unwrap();
    assert!(
        content_type.starts_with("text/plain") || content_type.starts_with("application/openmetrics-text"),
        "{content_type}"
    );
    let mut typed = Vec::new();
    let mut samples = 0;
    for line in metrics.text().lines().filter(|line| !line.is_empty()) {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            typed.push(declared.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let value = line.rsplit(' ').next().unwrap();
            assert!(typed.iter().any(|family| name.starts_with(family)), "{name} has no type");
            assert!(name.starts_with("cdc_") || name.starts_with("process_"), "{name} has a foreign prefix");
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line} has no number"));
            samples += 1;
        }
    }
    assert!(samples > 5, "{}", metrics.text());
    let captured: f64 = metrics
        .text()
        .lines()
        .filter(|line| line.starts_with("cdc_") && line.contains("_total{") && line.contains("captured"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert_eq!(captured, 1.0, "{}", metrics.text());
    // Nothing waits any more.
    let waiting = metrics.text().lines().find(|line| line.starts_with("cdc_ingest_queue"));
    assert_eq!(waiting.and_then(|line| line.rsplit(' ').next()), Some("0"), "{waiting:?}");
}
