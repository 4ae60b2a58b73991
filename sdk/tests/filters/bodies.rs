//! Bodies, as the path says.

use meshgate_sdk::prelude::*;

pub(crate) struct Bodies;

#[derive(Deserialize)]
struct Numbers {
    a: Vec<u32>,
}

#[derive(Serialize)]
struct Sum {
    sum: u32,
}

#[filter]
impl Filter for Bodies {
    fn configure(_: Empty) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    async fn on_request_body(&self, exchange: &Exchange<Self>, body: &mut Body) -> Outcome {
        match exchange.request().path().as_str() {
            "/parts" => {
                let mut count = 0;
                while let Some(part) = body.next().await? {
                    body.replace(part.to_ascii_uppercase())?;
                    body.prepend(count.to_string())?;
                    count += 1;
                }
                body.append("!")?;
            }
            "/checked" => {
                while let Some(part) = body.next().await? {
                    Cluster::from("check").get("/").send().await?;
                    // What arrived meanwhile is another part.
                    let text = String::from_utf8_lossy(&part).into_owned();
                    body.replace(format!("[{text}]"))?;
                }
            }
            "/whole" => {
                let numbers: Numbers = body.json(32).await?;
                body.replace_json(&Sum { sum: numbers.a.iter().sum() })?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn on_response_body(&self, _: &Exchange<Self>, body: &mut Body) -> Outcome {
        let text = body.text(64).await?;
        body.replace(text)?;
        body.prepend("<")?;
        body.append(">")?;
        Ok(())
    }
}
