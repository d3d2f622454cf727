//! What is posted: bodies, their ids, and requests.

use std::time::{SystemTime, UNIX_EPOCH};

use cdc_rest::envelope::{self, Format, Tombstones, http_header_value, write_batch};
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use hyper::body::Bytes;
use ring::digest;

use super::Target;
use super::signature::sign;
use crate::{Event, render};

/// Ids of this length and shorter are sent as they are.
const LONGEST_ID: usize = 128;

/// A body with its id.
pub(super) struct Message {
    id: String,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Message {
    /// The bodies of events: one array of all of them, or those of a single one.
    pub(super) fn of(format: Format, as_array: bool, events: &[Event<'_>]) -> Vec<Self> {
        if as_array { Self::array(format, events).into_iter().collect() } else { Self::singles(format, events) }
    }

    fn singles(format: Format, events: &[Event<'_>]) -> Vec<Self> {
        let mut singles = Vec::new();
        for event in events {
            for (number, message) in render::messages(format, Tombstones::Off, event).into_iter().enumerate() {
                let envelope::Message { value, headers, content_type, .. } = message;
                let id = sendable(render::message_id(event, number));
                singles.push(Self { id, content_type, headers, body: value.unwrap_or_default().into() });
            }
        }
        singles
    }

    /// None for no events.
    fn array(format: Format, events: &[Event<'_>]) -> Option<Self> {
        let (first, last) = (events.first()?, events.last()?);
        let messages: Vec<envelope::Message> =
            events.iter().flat_map(|event| render::messages(format, Tombstones::Off, event)).collect();
        let mut body =
            Vec::with_capacity(messages.iter().filter_map(|message| message.value.as_ref()).map(Vec::len).sum());
        write_batch(&mut body, messages.iter().filter_map(|message| message.value.as_deref()));
        let content_type = format.batch_content_type().unwrap_or(cdc_rest::JSON);
        let id = sendable(format!("{}-{}", first.subject.id, last.subject.id));
        Some(Self { id, content_type, headers: Vec::new(), body: body.into() })
    }

    /// The request, signed now.
    pub(super) fn request(&self, target: &Target) -> Result<Request<Full<Bytes>>, http::Error> {
        let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = target.uri.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, authority)
            .header(USER_AGENT, concat!("cdc/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, self.content_type);
        for (name, value) in &self.headers {
            request = request.header(*name, http_header_value(value).as_ref());
        }
        // Before 1970 no signature is taken anyway.
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        request = request.header("webhook-id", &self.id).header("webhook-timestamp", now_s);
        if !target.keys.is_empty() {
            request = request.header("webhook-signature", sign(&target.keys, &self.id, now_s, &self.body));
        }
        let mut request = request.body(Full::new(self.body.clone()))?;
        for (name, value) in &target.headers {
            request.headers_mut().insert(name, HeaderValue::clone(value));
        }
        Ok(request)
    }
}

/// An id as a header may have it. Keys of rows may be in it: long ones, or with other characters, give way to a digest.
/// A full stop would divide what is signed.
fn sendable(id: String) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b':');
    if id.len() <= LONGEST_ID && id.bytes().all(is_plain) {
        return id;
    }
    let digest = digest::digest(&digest::SHA256, id.as_bytes());
    let hex: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256_{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_and_short() {
        assert_eq!(sendable("evt_1_2-evt_1_9".into()), "evt_1_2-evt_1_9");
        for id in ["row_5_users/é".to_owned(), "evt_1_2.1".to_owned(), "x".repeat(129)] {
            let sent = sendable(id.clone());
            assert!(sent.starts_with("sha256_") && sent.len() == 39, "{sent}");
            assert_eq!(sent, sendable(id));
        }
    }
}
