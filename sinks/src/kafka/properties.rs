//! Which properties of librdkafka a definition may have: the whole list.
//!
//! librdkafka has properties that load libraries into the process (`plugin.library.paths`, `ssl.engine.location`), run
//! commands (`sasl.kerberos.kinit.cmd`), read files (`….location`, `….file`, `sasl.kerberos.keytab`), ask addresses
//! (`sasl.oauthbearer.…`), or keep delivery reports back (`delivery.report.only.error`), and gets new ones with its
//! versions. So what is allowed is named here, and all else is refused when a subscription is defined.
//!
//! README has the same list; a test compares the two. librdkafka itself judges the values, but for those named here.

use rdkafka::config::ClientConfig;

use crate::secret::Secret;

/// What a property's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// What librdkafka takes.
    Any,
    /// What librdkafka takes, and no message may show.
    Secret,
    /// One of these.
    OneOf(&'static [&'static str]),
}

use Values::{Any, OneOf};

const MECHANISMS: Values = OneOf(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]);

/// Every property that is allowed.
const ALLOWED: &[(&str, Values)] = &[
    // Who it is.
    ("client.id", Any),
    ("client.rack", Any),
    ("security.protocol", OneOf(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"])),
    ("sasl.mechanism", MECHANISMS),
    ("sasl.mechanisms", MECHANISMS),
    ("sasl.username", Any),
    ("sasl.password", Values::Secret),
    ("ssl.ca.pem", Any),
    ("ssl.certificate.pem", Any),
    ("ssl.key.pem", Values::Secret),
    ("ssl.key.password", Values::Secret),
    ("ssl.cipher.suites", Any),
    ("ssl.curves.list", Any),
    ("ssl.sigalgs.list", Any),
    ("ssl.endpoint.identification.algorithm", Any),
    ("enable.ssl.certificate.verification", Any),
    // How records are gathered and sent.
    ("compression.type", Any),
    ("compression.codec", Any),
    ("compression.level", Any),
    ("linger.ms", Any),
    ("queue.buffering.max.ms", Any),
    ("batch.size", Any),
    ("batch.num.messages", Any),
    ("queue.buffering.max.messages", Any),
    ("queue.buffering.max.kbytes", Any),
    ("queue.buffering.backpressure.threshold", Any),
    ("sticky.partitioning.linger.ms", Any),
    ("message.max.bytes", Any),
    ("message.copy.max.bytes", Any),
    ("allow.auto.create.topics", Any),
    ("enable.metrics.push", Any),
    // How long, and how often.
    ("request.timeout.ms", Any),
    ("retries", Any),
    ("message.send.max.retries", Any),
    ("retry.backoff.ms", Any),
    ("retry.backoff.max.ms", Any),
    ("reconnect.backoff.ms", Any),
    ("reconnect.backoff.max.ms", Any),
    ("connections.max.idle.ms", Any),
    ("metadata.max.age.ms", Any),
    ("metadata.recovery.strategy", Any),
    ("metadata.recovery.rebootstrap.trigger.ms", Any),
    ("topic.metadata.refresh.interval.ms", Any),
    ("topic.metadata.refresh.fast.interval.ms", Any),
    ("topic.metadata.refresh.sparse", Any),
    ("topic.metadata.propagation.max.ms", Any),
    // The connection.
    ("socket.timeout.ms", Any),
    ("socket.connection.setup.timeout.ms", Any),
    ("socket.keepalive.enable", Any),
    ("socket.nagle.disable", Any),
    ("socket.max.fails", Any),
    ("socket.send.buffer.bytes", Any),
    ("socket.receive.buffer.bytes", Any),
    ("broker.address.family", Any),
    ("broker.address.ttl", Any),
    ("client.dns.lookup", Any),
];

/// What the sink's promises rest on, or what it sets from options of its own.
const OWN: &[&str] = &[
    "bootstrap.servers",
    "metadata.broker.list",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "partitioner",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "transactional.id",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "enable.gapless.guarantee",
];

/// Judges a property. The error reads on after its name, and does not quote its value.
pub(super) fn check(name: &str, value: &Secret) -> Result<(), String> {
    if OWN.contains(&name) {
        return Err("is set by the sink itself".to_owned());
    }
    let Some((_, values)) = ALLOWED.iter().find(|(allowed, _)| *allowed == name) else {
        return Err(refusal(name));
    };
    // What a variable holds is judged when it is read.
    value.given().map_or(Ok(()), |value| check_value(name, *values, value))
}

/// Sets a property whose value is known by now. The error reads on after its name, and does not quote its value.
pub(super) fn set(config: &mut ClientConfig, name: &str, value: &str) -> Result<(), String> {
    check(name, &Secret::from(value))?;
    config.set(name, value);
    Ok(())
}

/// Whether no message may show the property's value.
pub(super) fn is_secret(name: &str) -> bool {
    ALLOWED.iter().any(|(allowed, values)| *allowed == name && *values == Values::Secret)
}

fn refusal(name: &str) -> String {
    let instead = match name {
        "ssl.ca.location" => "; take `ssl.ca.pem`, the certificates themselves",
        "ssl.certificate.location" | "ssl.keystore.location" => "; take `ssl.certificate.pem`, the certificate itself",
        "ssl.key.location" => "; take `ssl.key.pem`, the key itself",
        _ => "",
    };
    format!("is not among the properties that are allowed (README lists them, at the sink `kafka`){instead}")
}

fn check_value(name: &str, values: Values, value: &str) -> Result<(), String> {
    if let OneOf(known) = values
        && !known.iter().any(|known| known.eq_ignore_ascii_case(value))
    {
        return Err(format!("must be one of {}", known.join(", ")));
    }
    let mut config = ClientConfig::new();
    config.set(name, value);
    // librdkafka's own words quote the value.
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("has a value that librdkafka does not take{}", needs_tls(name, value))),
    }
}

/// What a service without TLS lacks.
fn needs_tls(name: &str, value: &str) -> &'static str {
    let is_about_tls = name.starts_with("ssl.") || (name == "security.protocol" && value.ends_with("ssl"));
    if is_about_tls && cfg!(not(feature = "kafka-tls")) {
        ": it needs a service that was built with the feature kafka-tls"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rdkafka::error::KafkaError;

    use super::*;

    #[test]
    fn whatever_loads_runs_reads_or_asks_is_refused_by_its_name() {
        for name in [
            "plugin.library.paths",
            "ssl.engine.location",
            "ssl.engine.id",
            "ssl.providers",
            "sasl.kerberos.kinit.cmd",
            "sasl.kerberos.keytab",
            "sasl.oauthbearer.token.endpoint.url",
            "sasl.oauthbearer.method",
            "sasl.oauthbearer.assertion.file",
            "enable.sasl.oauthbearer.unsecure.jwt",
            "ssl.ca.location",
            "ssl.key.location",
            "ssl.crl.location",
            "https.ca.location",
            "ssl.keystore.location",
            "delivery.report.only.error",
            "log_cb",
            "interceptors",
            "debug",
            "no.such.thing",
            "Plugin.Library.Paths",
            " plugin.library.paths",
        ] {
            let why = check(name, &Secret::from("/tmp/hunter2.so")).unwrap_err();
            assert!(why.starts_with("is not among the properties that are allowed"), "{name} {why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn a_value_is_judged_and_never_quoted() {
        for (name, wrong) in [
            ("sasl.mechanism", "GSSAPI"),
            ("sasl.mechanisms", "OAUTHBEARER"),
            ("security.protocol", "hunter2"),
            ("linger.ms", "hunter2"),
            ("message.max.bytes", "99999999999"),
            ("socket.keepalive.enable", "hunter2"),
            ("compression.type", "hunter2"),
        ] {
            let why = check(name, &Secret::from(wrong)).unwrap_err();
            assert!(!why.contains(wrong), "{name} {why}");
        }
        for (name, right) in
            [("compression.type", "lz4"), ("linger.ms", "50"), ("sasl.mechanism", "plain"), ("sasl.password", "x")]
        {
            check(name, &Secret::from(right)).unwrap();
        }
        check("linger.ms", &Secret::Env("CDC_SECRET_X".into())).unwrap();
    }

    #[test]
    fn every_property_of_the_list_is_one_of_librdkafka() {
        for (name, _) in ALLOWED {
            // An empty text is no number and no word, but librdkafka says first whether it knows the name.
            let mut config = ClientConfig::new();
            config.set(*name, "");
            if let Err(KafkaError::ClientConfig(_, words, ..)) = config.create_native_config() {
                assert!(!words.contains("No such configuration property"), "{name}: {words}");
            }
        }
    }

    #[test]
    fn readme_lists_what_is_allowed() {
        let readme = include_str!("../../../README.md");
        let (_, rest) = readme.split_once("<!-- kafka-properties:begin -->").unwrap();
        let (list, _) = rest.split_once("<!-- kafka-properties:end -->").unwrap();
        let listed: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
        assert_eq!(listed, ALLOWED.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
