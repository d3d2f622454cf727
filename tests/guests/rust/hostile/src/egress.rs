//! Tries to reach a URL, as a component would that hopes for a hole in the fence: it follows redirects by itself.

use wstd::http::{Body, Client, Request, Uri};

use crate::exports::cdc::subscriber::handling::{Failure, Remedy};
use crate::settings::setting;
use crate::wasi::keyvalue::store::open;

/// GETs `url`. The status and body, or why there are none, end up under `result` and on standard output; either is a
/// success, for what is reached is the test's to judge.
pub fn fetch() -> Result<(), Failure> {
    let url: String = setting("url").expect("the setting `url` is there");
    let result = match wstd::runtime::block_on(follow(url)) {
        Ok(answer) => answer,
        Err(error) => format!("error: {error:#}"),
    };
    println!("{result}");
    let failed = |error| Failure { remedy: Remedy::Retry, index: 0, message: format!("{error:?}") };
    open("default").and_then(|bucket| bucket.set("result", result.as_bytes())).map_err(failed)
}

async fn follow(mut url: String) -> wstd::http::error::Result<String> {
    for _ in 0..=setting("redirects").unwrap_or(10) {
        let mut response = Client::new().send(Request::get(&url).body(Body::empty())?).await?;
        let status = response.status();
        if status.is_redirection()
            && let Some(location) = response.headers().get("location")
        {
            let location = location.to_str()?.to_owned();
            url = if location.starts_with('/') { origin(&url)? + &location } else { location };
            continue;
        }
        let body = response.body_mut().contents().await?;
        return Ok(format!("{} {}", status.as_u16(), String::from_utf8_lossy(body)));
    }
    Err(wstd::http::Error::msg("too many redirects"))
}

/// `http://host:port` of a URL.
fn origin(url: &str) -> wstd::http::error::Result<String> {
    let url: Uri = url.parse()?;
    Ok(format!("{}://{}", url.scheme_str().unwrap_or("http"), url.authority().map_or("", |host| host.as_str())))
}
