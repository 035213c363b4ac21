//! One long list: how fast it comes.

use std::{fmt, time::Instant};

use http::Request;
use http_body_util::BodyExt;

use crate::{Failure, access::Access};

/// What came of it.
pub(crate) struct Figures {
    compressed: bool,
    bytes: usize,
    objects: usize,
    seconds: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let megabytes = self.bytes as f64 / 1e6;
        let how = if self.compressed { "list, gzip" } else { "list" };
        let (objects, seconds) = (self.objects, self.seconds);
        write!(f, "{how}: {megabytes:.1} MB in {seconds:.2} s, {:.0} MB/s", megabytes / seconds)?;
        if self.compressed { Ok(()) } else { write!(f, ", {objects} objects") }
    }
}

pub(crate) async fn measure(access: &Access, compressed: bool) -> Result<Figures, Failure> {
    let mut connection = access.connect().await?;
    let mut request = Request::get("/api/v1/pods");
    if compressed {
        request = request.header("accept-encoding", "gzip");
    }
    let began = Instant::now();
    let response = connection.send(request.body(toono_http::empty())?).await?;
    let mut body = response.into_body();
    // Read and counted as it comes: the client must not be what holds it all in memory.
    let (mut bytes, mut objects) = (0, 0);
    let mark = b"{\"kind\":\"Pod\",";
    // The end of what came before, in which a mark may have begun.
    let mut window = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes += data.len();
            if !compressed {
                window.extend_from_slice(&data);
                objects += window.windows(mark.len()).filter(|part| part == mark).count();
                window.drain(..window.len().saturating_sub(mark.len() - 1));
            }
        }
    }
    Ok(Figures { compressed, bytes, objects, seconds: began.elapsed().as_secs_f64() })
}
