//! What happens to bodies.

use meshgate_sdk::GrpcMessage;
use meshgate_sdk::prelude::*;

use crate::others::once;

#[derive(Deserialize)]
struct Numbers {
    a: Vec<u32>,
}

#[derive(Serialize)]
struct Sum {
    sum: u32,
}

/// Whether the request's body gets another length, which hosts other than Meshgate do not correct in the head.
pub(crate) fn changes_request(path: &str) -> bool {
    matches!(path, "/parts" | "/checked" | "/first" | "/whole") || path.starts_with("/messages")
}

/// The same of the response's.
pub(crate) fn changes_response(path: &str) -> bool {
    matches!(path, "/whole" | "/wrapped" | "/messages")
}

pub(crate) async fn request(path: &str, body: &mut Body) -> Outcome {
    match path {
        "/parts" => {
            let mut count = 0;
            while let Some(part) = body.next().await? {
                body.replace(part.to_ascii_uppercase())?;
                body.prepend(count.to_string())?;
                count += 1;
            }
            body.append("!")?;
        }
        // What arrives during the call is another part.
        "/checked" => {
            while let Some(part) = body.next().await? {
                Cluster::from("slow").get("/").send().await?;
                body.replace(format!("[{}]", String::from_utf8_lossy(&part)))?;
            }
        }
        "/first" => {
            let first = body.next().await?.unwrap_or_default();
            body.replace(first.repeat(2))?;
        }
        "/whole" => {
            let numbers: Numbers = body.json(32).await?;
            body.replace_json(&Sum { sum: numbers.a.iter().sum() })?;
        }
        "/denied" => {
            let text = body.text(1024).await?;
            Cluster::from("fast").get("/").send().await?.success()?;
            return Reply::new(422).body(text).into();
        }
        "/messages" | "/messages-sent" => {
            let count = shout(body).await?;
            body.append(GrpcMessage::new(count.to_string()).frame())?;
        }
        "/messages-checked" => {
            while body.grpc_message(64).await?.is_some() {
                Cluster::from("slow").get("/").send().await?;
                body.prepend(GrpcMessage::new("checked").frame())?;
            }
        }
        "/messages-left" => two_of_them(body).await?,
        // What there is of the second one is a part like any other.
        "/messages-mixed" => {
            two_of_them(body).await?;
            let part = body.next().await?.unwrap_or_default();
            body.replace(format!("({} bytes)", part.len()))?;
        }
        _ => {}
    }
    Ok(())
}

/// Puts every message in capitals: how many there are.
async fn shout(body: &mut Body) -> Result<u32, Stop> {
    let mut count = 0;
    while let Some(mut message) = body.grpc_message(64).await? {
        message.bytes.make_ascii_uppercase();
        body.replace(message.frame())?;
        count += 1;
    }
    Ok(count)
}

/// Takes one message, looks for another one, and gives that up, since not all of it is there.
async fn two_of_them(body: &mut Body) -> Outcome {
    let (first, second) = (body.grpc_message(64).await?, once(body.grpc_message(64)).await);
    if first.is_none() || second.is_some() {
        return Err(Stop::failed("one message was expected, and not all of another one"));
    }
    Ok(())
}

pub(crate) async fn response(path: &str, body: &mut Body) -> Outcome {
    match path {
        "/whole" | "/wrapped" => {
            body.whole(64).await?;
            body.prepend("<")?;
            body.append(">")?;
        }
        "/messages" => {
            shout(body).await?;
        }
        "/shout" => {
            while let Some(part) = body.next().await? {
                body.replace(part.to_ascii_uppercase())?;
            }
        }
        _ => {}
    }
    Ok(())
}
