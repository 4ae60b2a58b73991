//! What happens to heads.

use std::time::Duration;

use meshgate_sdk::attempts::Attempts;
use meshgate_sdk::prelude::*;
use meshgate_sdk::route::Decision;
use meshgate_sdk::{
    Call, Change, Changed, Flag, GrpcError, Refused, SharedCounter, SharedQueue, Status, join, join_all,
    property, sleep, timeout,
};

use crate::{Suite, Wish, facts, streams};

/// Says when it is dropped before it is told that all went well.
struct Guard(bool);

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.0 {
            meshgate_sdk::info!("dropped");
        }
    }
}

async fn text(call: Call, patience: Duration) -> Result<String, CallError> {
    Ok(call.timeout(patience).send().await?.success()?.text().into_owned())
}

impl Suite {
    pub(crate) async fn request_head(&self, exchange: &Exchange<Self>, wish: &Wish) -> Outcome {
        let headers = exchange.request().headers();
        let from = |cluster: &str, path: &str| text(Cluster::from(cluster).get(path), wish.patience);
        let slow = || from("slow", "/");
        let said = match wish.what.as_str() {
            "answer" => {
                let reply =
                    Reply::new(403).header("x-by", "suite").body("not for you").details("suite says no");
                return reply.into();
            }
            "redirect" => return Reply::redirect("/elsewhere").into(),
            "fail" => return Err(Stop::failed("asked to")),
            "heads" => heads(exchange)?,
            "read" => {
                let read = read(exchange)?;
                let path = property::text("request/path");
                format!("{read} | {path:?} {:?} {:?}", early(exchange), exchange.peer_identity())
            }
            "calls" => calls(exchange).await?,
            "sequence" => {
                let mut guard = Guard(false);
                let said = format!("{}, {}", from("fast", "/1").await?, slow().await?);
                guard.0 = true;
                said
            }
            "join" => {
                let several = join_all([slow(), slow()]);
                let (first, others) = join(from("fast", "/2"), several).await;
                format!("{}, {}", first?, others.into_iter().collect::<Result<Vec<_>, _>>()?.join(", "))
            }
            "timeout" => from("never", "/").await?,
            "reset" => from("broken", "/").await?,
            "refused" => from("nobody", "/").await?,
            "unknown" => from("unknown", "/").await?,
            "status" => from("error", "/").await?,
            "bounded" => timeout(Duration::from_millis(50), from("never", "/")).await??,
            "grpc" => grpc(wish.patience).await?,
            "grpc-ask" => {
                let call = Cluster::from("policy").grpc("example.Policy", "Check").metadata("x-a", "1");
                call.send_bytes("question").await?.escape_ascii().to_string()
            }
            "sleep" => {
                sleep(Duration::from_millis(20)).await?;
                sleep(Duration::from_millis(100)).await?;
                String::new()
            }
            // Woken in another exchange's callback, which is over before the call is answered.
            "await-bell" => {
                self.bell.rung().await;
                from("fast", "/rung").await? + ", " + &slow().await?
            }
            "ring" => {
                self.bell.ring();
                String::new()
            }
            "ask" => {
                self.asked.ask(slow());
                self.asked.answer().await?
            }
            "ask-too" => self.asked.answer().await?,
            "route" => {
                exchange.route(&Decision::to(&"fast".into()).name("to-fast").build())?;
                format!("{:?} {:?}", exchange.route_name(), exchange.cluster_name())
            }
            "direct" => {
                exchange.route(&Decision::answer(418, "teapot").header("x-tea", "green").build())?;
                String::new()
            }
            "queue" => {
                let queue = SharedQueue::find("", "events")?.ok_or_else(|| Stop::failed("no queue"))?;
                queue.enqueue("one")?;
                queue.enqueue("")?;
                self.events.enqueue("two")?;
                format!("{} {:?}", queue == self.events, SharedQueue::find("", "others")?.is_some())
            }
            "shared" => self.shared()?,
            "counted" => self.counted()?,
            "kept" => self.kept()?,
            "hold" => format!("{:?}", exchange.hold(&SharedCounter::new("places"), 2)?),
            "log" => log(exchange)?,
            "line" => format!("{:?}", exchange.log_line(b"a line of its own").is_ok()),
            "break" => return Err(Stop::Reset),
            "attempts" => {
                exchange.attempts(&Attempts::judge().from_status(500).build())?;
                String::new()
            }
            "span" => spans(exchange).await?,
            "spans" => {
                (0..40).for_each(|number| exchange.span(format!("number {number}")).end());
                String::new()
            }
            "span-late" => {
                exchange.state.span.replace(Some(exchange.span("to the end")));
                String::new()
            }
            "lend" => {
                self.lent.replace(Some(streams::opened("Talk").await?));
                sleep(Duration::from_millis(50)).await?;
                String::new()
            }
            "borrow" => {
                let mut lent = self.lent.take().ok_or_else(|| Stop::failed("nothing lent"))?;
                streams::outcome(Ok(lent.message_bytes().await?))
            }
            "record" => facts::recorded(exchange)?,
            "credentials" => facts::credentials(exchange)?,
            "client" => facts::client(exchange),
            "verify" => facts::verified()?,
            "measure" => {
                sleep(Duration::from_millis(20)).await?;
                self.measure();
                String::new()
            }
            "texts" => self.texts.clone(),
            what if what.starts_with("stream") => streams::talk(what).await?,
            what if what.starts_with("give-up") => give_up(wish).await?,
            "fetched" => self.fetched.get().to_string(),
            _ => return Ok(()),
        };
        headers.set("x-said", said)?;
        Ok(())
    }

    pub(crate) async fn response_head(&self, exchange: &Exchange<Self>, wish: &Wish) -> Outcome {
        let response = exchange.response();
        match wish.what.as_str() {
            "response" => {
                let said = text(Cluster::from("slow").get("/"), wish.patience).await?;
                response.headers().set("x-said", said)?;
            }
            "break-late" => return Err(Stop::Reset),
            "encode" => {
                let refused = exchange.encode_response("br", 4).err().map(|refused| refused.status());
                exchange.encode_response("gzip", 9)?;
                exchange.throttle_response(1_000)?;
                response.headers().set("x-said", format!("{refused:?}"))?;
            }
            "replace" => return Reply::new(410).body("gone").into(),
            "status" | "timeout" => response.set_status(599)?,
            _ => {}
        }
        response.headers().set("x-callbacks", exchange.state.callbacks.get().to_string())?;
        Ok(())
    }

    fn shared(&self) -> Result<String, Stop> {
        let before = self.notes.get("a")?;
        self.notes.set_for("a", &"noted".to_owned(), Duration::from_secs(10))?;
        self.notes.set("b", &"for ever".to_owned())?;
        let longer = self.notes.update("c", |known| known.unwrap_or_default() + "c")?;
        self.notes.remove("d")?;
        let (b, d) = (self.notes.get("b")?, self.notes.get("d")?);
        Ok(format!("{before:?} {b:?} {longer} {d:?} {}", self.visits.add(2)?))
    }

    /// Three at once, and no more for ten seconds; a number that is raised; a value in the way.
    fn counted(&self) -> Result<String, Stop> {
        let seats = Change::add(1).at_most(3).lasting(Duration::from_secs(10));
        let mut all = Vec::new();
        for _ in 0..4 {
            let Changed { number, done, .. } = self.counters.change("seats", &seats)?;
            all.push(format!("{number} {done}"));
        }
        let raised = self.counters.change("raised", &Change::add(1).at_least(41).at_most(100))?;
        let lowered = self.counters.change("raised", &Change::add(-9).at_least(40))?;
        let within = (self.visits.add_within(5, 4)?, self.visits.add_within(4, 4)?, self.visits.get()?);
        self.visits.add(-4)?;
        self.notes.set("number", &"none".to_owned())?;
        let refused = SharedCounter::new("notes/number").add(1).map_err(|refused| refused.status());
        Ok(format!("{} | {} {} | {within:?} | {refused:?}", all.join(", "), raised.number, lowered.number))
    }

    /// A value that is made of the one before it, while that lasts; a number for which another one may have to go.
    fn kept(&self) -> Result<String, Stop> {
        let lasts = Duration::from_secs(10);
        let longer = self.notes.update_for("e", lasts, |known| known.unwrap_or_default() + "e")?;
        let Changed { number, done, evicted } = self.counters.change("one", &Change::add(1).evicting())?;
        Ok(format!("{longer} {number} {done} {evicted}"))
    }

    fn measure(&self) {
        self.level.set(5);
        self.level.add(-2);
        [4, 5, 90].into_iter().for_each(|milliseconds| self.waits.record(milliseconds));
    }
}

/// Flags and fields for the access log, and those that are refused.
fn log(exchange: &Exchange<Suite>) -> Result<String, Stop> {
    exchange.set_flag(Flag::FaultInjected)?;
    exchange.set_flag(Flag::RateLimited)?;
    exchange.set_flag(Flag::FaultInjected)?;
    exchange.log_field("suite.word", "first")?;
    exchange.log_field("suite.other", b"\"\n\xff")?;
    exchange.log_field("suite.word", "second")?;
    let refused = exchange.log_field("No name", "").err();
    Ok(format!("{:?}", refused.map(|refused| refused.status())))
}

fn refused(result: Result<(), Refused>) -> Option<Status> {
    result.err().map(|refused| refused.status())
}

/// What the host says to a response that is written before there is one.
fn early(exchange: &Exchange<Suite>) -> Option<Status> {
    refused(exchange.response().headers().set("x-early", "1"))
}

/// Changes a request's head, and reads it.
fn read(exchange: &Exchange<Suite>) -> Result<String, Stop> {
    let (request, headers) = (exchange.request(), exchange.request().headers());
    headers.add("x-two", "1")?;
    headers.add("X-Two", "2")?;
    headers.set("x-one", "old")?;
    headers.set("x-one", "new")?;
    headers.remove("x-none")?;
    request.set_target("/changed?x=%41")?;
    let twice: Vec<_> = headers.pairs().all("x-two").map(<[u8]>::to_vec).collect();
    let facts = [
        format!("{} {} {} {}", request.method(), request.scheme(), request.authority(), request.path()),
        format!("{:?} {:?} {:?}", request.parameter("x"), request.cookie("b"), request.bearer_token()),
        format!("{} {} {:?}", request.has_body(), twice.len(), headers.get("x-one")),
    ];
    Ok(facts.join(" | "))
}

/// Everything that can be read of a request's head, and what the host says to what cannot be.
fn heads(exchange: &Exchange<Suite>) -> Result<String, Stop> {
    let headers = exchange.request().headers();
    let all: Vec<_> = headers.pairs().iter().map(|(name, _)| name.to_owned()).collect();
    let facts = [
        read(exchange)?,
        format!("{:?} {:?}", refused(headers.set("bad name", "x")), refused(headers.set("x-bad", "a\nb"))),
        format!("{:?}", early(exchange)),
        format!("{:?} {:?}", exchange.response().status(), exchange.source_address()),
        format!("{:?} {}", exchange.peer_identity(), exchange.is_mtls()),
        format!("{:?} {:?}", property::text("request/path"), property::text("no/such")),
        format!("{:?}", exchange.route(&Decision::to(&"nowhere".into()).build()).err().map(|e| e.status())),
        format!("{}", Status::NOT_FOUND),
    ];
    Ok(format!("{} | {}", all.join(","), facts.join(" | ")))
}

/// A span of a call, with one in it, and what they know of the trace.
async fn spans(exchange: &Exchange<Suite>) -> Result<String, Stop> {
    let mut span = exchange.span("ask").call();
    span.attribute("suite.word", "one");
    span.attribute("suite.count", 3);
    let call = Cluster::from("slow").get("/").trace(span.context().or(exchange.trace_context()));
    let answer = call.send().await?.success()?;
    span.event("answered");
    span.attribute("suite.right", answer.text() == "slow");
    let child = span.child("think");
    sleep(Duration::from_millis(20)).await?;
    child.end();
    let mut failed = exchange.span("fail");
    failed.fail("asked to");
    drop(failed);
    let trace = exchange.trace_context().map(|context| context.trace_id().to_owned());
    Ok(format!("{} {trace:?}", span.is_recorded()))
}

/// A call that goes well, and one whose status is expected.
async fn grpc(patience: Duration) -> Result<String, Stop> {
    let call = |method| Cluster::from("policy").grpc("example.Policy", method).timeout(patience);
    let answer = call("Check").metadata("x-a", "1").send_bytes("question").await?;
    let refused = match call("Refuse").send_bytes("").await {
        Err(error) if error.status() == GrpcError::PERMISSION_DENIED => error.message().to_owned(),
        other => String::from_utf8_lossy(&other?).into_owned(),
    };
    let sleep = call("Sleep").timeout(Duration::from_millis(50));
    let late = sleep.send_bytes("").await.err().map(|error| error.status());
    Ok(format!("{} {refused} {late:?}", String::from_utf8_lossy(&answer)))
}

/// Gives up what takes too long, and goes on: what ends it is not the exchange's end.
async fn give_up(wish: &Wish) -> Result<String, Stop> {
    let bound = Duration::from_millis(50);
    let given_up = match wish.what.as_str() {
        "give-up-call" => {
            let call = Cluster::from("never").get("/").timeout(wish.patience);
            timeout(bound, call.send()).await.is_err()
        }
        "give-up-grpc" => {
            let call = Cluster::from("policy").grpc("example.Policy", "Sleep").timeout(wish.patience);
            timeout(bound, call.send_bytes("")).await.is_err()
        }
        _ => {
            let mut stream = streams::opened("Silent").await?;
            timeout(bound, stream.message_bytes()).await.is_err()
        }
    };
    let rest = Cluster::from("slow").get("/held").timeout(Duration::from_secs(30));
    rest.send().await?.success()?;
    Ok(given_up.to_string())
}

/// Everything that can be known of a call's response.
async fn calls(exchange: &Exchange<Suite>) -> Result<String, Stop> {
    let call = Cluster::from("echo").request("PUT", "/call?x=1").authority("inside").header("x-a", "1");
    let response = call.bearer_token("t").json(&[1, 2])?.send().await?;
    let fields: Vec<_> =
        response.headers().iter().map(|(name, _)| name).filter(|name| streams::is_own(name)).collect();
    let numbers: Vec<u32> = response.json()?;
    exchange.request().headers().set("x-call", response.header("x-seen").unwrap_or_default())?;
    let trailer = response.trailers().get("x-end");
    Ok(format!("{} {} {numbers:?} {trailer:?}", response.status(), fields.join(",")))
}
