//! What happens to bodies.

use meshgate_sdk::prelude::*;

#[derive(Deserialize)]
struct Numbers {
    a: Vec<u32>,
}

#[derive(Serialize)]
struct Sum {
    sum: u32,
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
        _ => {}
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
        "/shout" => {
            while let Some(part) = body.next().await? {
                body.replace(part.to_ascii_uppercase())?;
            }
        }
        _ => {}
    }
    Ok(())
}
