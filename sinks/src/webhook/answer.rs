//! What a receiver says, and what that means.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{LOCATION, RETRY_AFTER};
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;

/// So much of an answer is shown.
const SHOWN_BYTES: usize = 200;
/// So much of an answer is read, so that the connection can be used again.
const DRAINED_BYTES: usize = 64 << 10;
/// For so long, since the status alone decides.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// No receiver keeps us waiting for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(86_400);

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    has_location: bool,
    /// What it begins with.
    body: String,
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Taken,
    Refused,
    Again { after: Option<Duration> },
}

impl Answer {
    /// Reads an answer, and says whether it was read to its end.
    ///
    /// What it says is kept only if it may be shown: whoever can have a stranger's service ask an address should not be
    /// told what answers there.
    pub(super) async fn read(response: Response<Incoming>, is_shown: bool) -> (Self, bool) {
        let (head, mut body) = response.into_parts();
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let mut shown = Vec::new();
        let mut read = 0;
        let drain = async {
            while let Some(Ok(frame)) = body.frame().await {
                let Some(data) = frame.data_ref() else { continue };
                let room = SHOWN_BYTES - shown.len();
                shown.extend_from_slice(&data[..data.len().min(room)]);
                read += data.len();
                if read > DRAINED_BYTES {
                    return false;
                }
            }
            hyper::body::Body::is_end_stream(&body)
        };
        let is_drained = tokio::time::timeout(DRAIN_TIMEOUT, drain).await.unwrap_or(false);
        let answer = Self {
            status: head.status,
            retry_after: retry_after.and_then(|text| pause(text, SystemTime::now())),
            has_location: head.headers.contains_key(LOCATION),
            body: if is_shown { String::from_utf8_lossy(&shown).trim().to_owned() } else { String::new() },
        };
        (answer, is_drained)
    }

    pub(super) fn verdict(&self) -> Verdict {
        let again = Verdict::Again { after: self.retry_after };
        match self.status.as_u16() {
            200..=299 => Verdict::Taken,
            401..=405 | 407 | 408 | 410 | 425 | 429 => again,
            400..=499 => Verdict::Refused,
            _ => again,
        }
    }

    /// For a person. `receiver` is where it is.
    pub(super) fn told(&self, receiver: &str) -> String {
        let hint = match self.status.as_u16() {
            300..=399 if self.has_location => " (redirects are not followed: set `url` to where it leads)",
            401 | 403 | 407 => " (send what it asks for in `headers`, or set `secrets`)",
            404 | 405 => " (is `url` right?)",
            410 => " (it is gone for good: set another `url`, or delete the subscription)",
            413 => " (set `batch.maxEvents` or `batch.maxBytes` of the subscription lower)",
            _ => "",
        };
        let body = if self.body.is_empty() { String::new() } else { format!(": {}", self.body) };
        format!("{receiver} answered {}{hint}{body}", self.status)
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
fn pause(text: &str, now: SystemTime) -> Option<Duration> {
    let pause = match text.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text.trim()).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn answer(status: u16) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, retry_after: Some(Duration::from_secs(7)), has_location: true, body: "why".into() }
    }

    #[test]
    fn success_is_nothing_but_2xx() {
        for status in 100..=599 {
            assert_eq!(answer(status).verdict() == Verdict::Taken, (200..=299).contains(&status), "{status}");
        }
    }

    #[test]
    fn an_event_is_given_up_only_for_what_is_about_the_event() {
        for status in [400, 406, 409, 411, 413, 414, 415, 422, 451] {
            assert_eq!(answer(status).verdict(), Verdict::Refused, "{status}");
        }
        for status in [301, 302, 307, 308, 401, 403, 404, 405, 407, 408, 410, 425, 429, 500, 501, 502, 503, 504, 599] {
            let after = Some(Duration::from_secs(7));
            assert_eq!(answer(status).verdict(), Verdict::Again { after }, "{status}");
        }
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |text| pause(text, now).map(|pause| pause.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:36 GMT"), Some(0));
        assert_eq!(seconds("99999999999"), Some(86_400));
        for text in ["-1", "soon", "1.5", ""] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_refusal_is_told_with_what_to_do() {
        assert_eq!(answer(422).told("it"), "it answered 422 Unprocessable Entity: why");
        assert!(answer(302).told("it").contains("redirects are not followed"));
    }
}
