//! `toono node ota`: upgrades that are offered to pods of this machine, for a person at it. It asks the node that
//! runs here, by the socket in its data directory.

use std::path::Path;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::net::UnixStream;
use toono_agent::ota::{OfferState, SOCKET};
use toono_http::client::{Connection, Endpoint};

use super::cli::OtaCommand;
use crate::{cli::Output, failure::Failure, table::Table};

pub(super) async fn run(command: OtaCommand) -> Result<(), Failure> {
    match command {
        OtaCommand::Status { data, output } => status(&data.dir, output).await,
        OtaCommand::Approve { data, namespace, pods } => {
            answer(&data.dir, &namespace, &pods, "upgrade").await
        }
        OtaCommand::Pull { data, namespace, pods } => {
            answer(&data.dir, &namespace, &pods, "imagepull").await
        }
    }
}

async fn status(data: &Path, output: Output) -> Result<(), Failure> {
    let (_, body) = ask(data, Method::GET, "/openyurt.io/v1/upgrades").await?;
    let offers: Vec<OfferState> =
        serde_json::from_str(&body).map_err(|error| unexpected(&error.to_string()))?;
    match output {
        Output::Table => {
            let mut table = Table::new(["NAMESPACE", "POD", "REVISION", "IMAGES", "STATE"]);
            for it in offers {
                table.row([it.namespace, it.pod, it.revision, it.images.join(","), it.state]);
            }
            print!("{}", table.render());
        }
        Output::Json => println!("{}", serde_json::json!(offers)),
        Output::Yaml => print!("{}", serde_yaml_ng::to_string(&offers).unwrap_or_default()),
    }
    Ok(())
}

async fn answer(data: &Path, namespace: &str, pods: &[String], what: &str) -> Result<(), Failure> {
    for pod in pods {
        let path = format!("/openyurt.io/v1/namespaces/{namespace}/pods/{pod}/{what}");
        let (status, body) = ask(data, Method::POST, &path).await?;
        let line = body.trim();
        if !status.is_success() {
            let hint = "`toono node ota status` lists what is offered to pods of this node";
            return Err(Failure::new("not-offered", line.to_owned(), hint));
        }
        println!("{line}");
    }
    Ok(())
}

async fn ask(data: &Path, method: Method, path: &str) -> Result<(StatusCode, String), Failure> {
    let socket = data.join(SOCKET);
    let unreachable = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(
            "no-node",
            format!("cannot ask {}: {}", socket.display(), crate::failure::chain(error)),
            "run it as root where `toono node` runs, and check --data",
        )
    };
    let stream = UnixStream::connect(&socket).await.map_err(|error| unreachable(&error))?;
    let endpoint = Endpoint { tls: false, host: "localhost".to_owned(), port: 80 };
    let connection = Connection::over(stream, &endpoint, None).await;
    let mut connection = connection.map_err(|error| unreachable(&error))?;
    let request = Request::builder().method(method).uri(path).body(toono_http::empty());
    let request = request.map_err(|error| {
        Failure::caused("bad-name", &error, "give names of pods and namespaces as they are")
    })?;
    let response = connection.send(request).await.map_err(|error| unreachable(&error))?;
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body.map_err(|error| unreachable(&error))?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn unexpected(what: &str) -> Failure {
    Failure::new(
        "unexpected-answer",
        format!("the node's answer cannot be read: {what}"),
        "does a `toono node` of another version run here?",
    )
}
