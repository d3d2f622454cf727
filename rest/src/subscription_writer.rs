//! A subscription's definition as JSON: every member, in the order of its documentation.

use crate::json;
use crate::subscription::{ComponentRef, Grants, GuestLimits, Retry, Start, Subscriber, SubscriptionSpec};

impl SubscriptionSpec {
    /// Writes the definition, what was left out filled in. Parsed again it is the same.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"tables\":[");
        json::list(out, &self.tables, |out, table| json::string(out, table));
        out.extend_from_slice(b"],\"operations\":[");
        json::list(out, &self.operations, |out, operation| {
            json::string(out, &operation.as_str().to_ascii_lowercase());
        });
        out.extend_from_slice(b"],\"where\":");
        match &self.condition {
            Some(condition) => json::string(out, condition),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"filter\":");
        match &self.filter {
            Some(filter) => component(out, filter),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"subscriber\":");
        match &self.subscriber {
            Subscriber::Component(subscriber) => component(out, subscriber),
            Subscriber::Builtin(name) => {
                out.extend_from_slice(b"{\"builtin\":");
                json::string(out, name);
                out.push(b'}');
            }
            Subscriber::Sink(sink) => {
                out.extend_from_slice(b"{\"sink\":");
                json::string(out, &sink.kind);
                out.extend_from_slice(b",\"format\":");
                json::string(out, sink.format.as_str());
                for (name, value) in &sink.settings {
                    out.push(b',');
                    json::string(out, name);
                    out.push(b':');
                    out.extend_from_slice(value.to_string().as_bytes());
                }
                out.push(b'}');
            }
        }
        out.extend_from_slice(b",\"start\":");
        match (self.start, self.start.word()) {
            (Start::At(sequence), _) => json::integer(out, sequence),
            (_, word) => json::string(out, word.unwrap_or_default()),
        }
        let batch = &self.batch;
        member(out, b",\"batch\":{\"maxEvents\":", batch.max_events);
        member(out, b",\"maxBytes\":", batch.max_bytes);
        member(out, b",\"lingerMs\":", batch.linger_ms);
        member(out, b"},\"lanes\":", self.lanes);
        retry(out, &self.retry);
        out.extend_from_slice(b",\"deadLetters\":{\"policy\":");
        json::string(out, self.dead_letters.policy.as_str());
        member(out, b",\"max\":", self.dead_letters.max);
        out.push(b'}');
        grants(out, &self.grants);
        limits(out, &self.limits);
        out.extend_from_slice(b",\"paused\":");
        json::boolean(out, self.paused);
        out.push(b'}');
    }
}

/// A member that is a number, with what stands before it.
fn member(out: &mut Vec<u8>, before: &[u8], value: impl Into<u64>) {
    out.extend_from_slice(before);
    json::integer(out, value);
}

fn component(out: &mut Vec<u8>, component: &ComponentRef) {
    out.extend_from_slice(b"{\"component\":");
    json::string(out, component.name.as_str());
    match component.version {
        Some(version) => member(out, b",\"version\":", version),
        None => out.extend_from_slice(b",\"version\":null"),
    }
    out.push(b'}');
}

fn retry(out: &mut Vec<u8>, retry: &Retry) {
    member(out, b",\"retry\":{\"initialMs\":", retry.initial_ms);
    member(out, b",\"maxMs\":", retry.max_ms);
    match retry.max_attempts {
        Some(attempts) => member(out, b",\"maxAttempts\":", attempts),
        None => out.extend_from_slice(b",\"maxAttempts\":null"),
    }
    member(out, b",\"maxCrashes\":", retry.max_crashes);
    out.push(b'}');
}

fn grants(out: &mut Vec<u8>, grants: &Grants) {
    out.extend_from_slice(b",\"grants\":{\"config\":{");
    json::list(out, &grants.config, |out, (name, value)| {
        json::string(out, name);
        out.push(b':');
        json::string(out, value);
    });
    out.extend_from_slice(b"},\"keyvalue\":");
    match &grants.keyvalue {
        Some(quota) => {
            member(out, b"{\"maxBytes\":", quota.max_bytes);
            member(out, b",\"maxKeys\":", quota.max_keys);
            out.push(b'}');
        }
        None => json::boolean(out, false),
    }
    out.extend_from_slice(b",\"http\":[");
    json::list(out, &grants.http, |out, origin| json::string(out, &origin.to_string()));
    out.extend_from_slice(b"]}");
}

fn limits(out: &mut Vec<u8>, limits: &GuestLimits) {
    member(out, b",\"limits\":{\"memoryBytes\":", limits.memory_bytes);
    member(out, b",\"tableElements\":", limits.table_elements);
    member(out, b",\"instances\":", limits.instances);
    member(out, b",\"callTimeoutMs\":", limits.call_timeout_ms);
    member(out, b",\"logBytesPerSecond\":", limits.log_bytes_per_second);
    member(out, b",\"requestsInFlight\":", limits.requests_in_flight);
    out.push(b'}');
}
