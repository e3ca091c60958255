//! What an edge that stands apart costs with the routes of many sandboxes.
//!
//! `cargo run --release -p casemate-front --example routes [SANDBOXES] [NODES]`. The finder, its catalog, the
//! edge and Redis (Debian's `redis-server`, of its own) are real; nodes answer from a table in this
//! process, and one service there stands for all that listens in sandboxes. So processor time is that of
//! the edge and of whatever it talks with, but for Redis, which is counted apart.

#[path = "../tests/it/support.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod support;

use std::collections::HashMap;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use casemate_catalog::testing::{Redis, RedisOptions};
use casemate_catalog::{Catalog, RedisCatalog, RedisSettings, ResilientCatalog, Route};
use casemate_edge::{Edge, EdgeConfig, InvalidHost, Routes};
use casemate_front::{Finder, NodeTable};
use casemate_rpc::NodePort;
use casemate_rpc::control::NodeAddress;
use casemate_types::{Ingress, SandboxId};
use support::{FakeNode, FakeServers, Has};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Look-ups and requests that are under way at once.
const AT_ONCE: usize = 64;
/// As `casemate edge`.
const ROUTES_MAX: usize = 100_000;
/// Longer than the finder believes what it found.
const STALE: Duration = Duration::from_secs(6);
/// Between two tries of one that was told that there are too many searches.
const AGAIN: Duration = Duration::from_millis(100);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

struct World {
    nodes: Arc<HashMap<String, Arc<FakeNode>>>,
    sandboxes: Arc<Vec<SandboxId>>,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Outcome {
    let argument = |at, default| std::env::args().nth(at).map_or(Ok(default), |n| n.parse());
    let (count, nodes) = (argument(1, 10_000)?, argument(2, 100)?);
    let redis = Redis::start(RedisOptions::default());
    let settings = redis.settings();
    let empty = used_memory(&redis);
    let world = World::new(count, nodes, &RedisCatalog::open(settings.clone())?).await?;
    println!("{count} sandboxes on {nodes} nodes");
    let held = (used_memory(&redis) - empty) / count as u64;
    println!("Redis holds {held} bytes for each route\n");
    println!(
        "| what | took | look-ups or requests a second | processor time each | Redis commands each \
         | of Redis's processor time | calls of nodes each | memory of the process, more |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let finder = world.finder(Some(&settings))?;
    // The first connection to Redis is not what is measured.
    finder.lookup(&SandboxId::random()).await?;
    let measured = |what| Measured::begin(what, &redis, &world);
    let before = measured("look-ups, cold");
    world.look_up(&finder, AT_ONCE).await?;
    before.end();
    let before = measured("look-ups, warm");
    world.look_up(&finder, AT_ONCE).await?;
    before.end();
    tokio::time::sleep(STALE).await;
    let before = measured("look-ups, six seconds later");
    world.look_up(&finder, AT_ONCE).await?;
    before.end();
    let finder = world.finder(Some(&settings))?;
    let before = measured("all at once after a restart");
    world.look_up(&finder, count).await?;
    before.end();
    let finder = world.finder(Some(&settings))?;
    let edge = serve(&finder).await?;
    let before = measured("requests, cold");
    world.request(edge).await?;
    before.end();
    let before = measured("requests, again");
    world.request(edge).await?;
    before.end();
    let finder = world.finder(None)?;
    let before = measured("all at once without Redis");
    world.look_up(&finder, count).await?;
    before.end();
    tokio::time::sleep(STALE).await;
    let before = measured("look-ups without Redis, six seconds later");
    world.look_up(&finder, AT_ONCE).await?;
    before.end();
    Ok(())
}

impl World {
    async fn new(count: usize, nodes: usize, catalog: &RedisCatalog) -> Outcome<Self> {
        let service = service().await?;
        let sandboxes: Vec<_> = (0..count).map(|_| SandboxId::random()).collect();
        let mut all = HashMap::new();
        for (at, sandboxes) in sandboxes.chunks(count.div_ceil(nodes)).enumerate() {
            let name = format!("n{at}");
            let node = Arc::<FakeNode>::default();
            *node.service.lock().unwrap() = Some(service);
            let mut routes = Vec::new();
            for sandbox in sandboxes {
                node.put(sandbox, Has::running());
                let route = Route {
                    node: name.clone(),
                    asleep: false,
                    ingress: Ingress::default(),
                    generation: 1,
                    traffic_token: None,
                };
                routes.push((sandbox.clone(), route));
            }
            catalog.routes_replace(&name, &routes, &[]).await?;
            all.insert(name, node);
        }
        let (nodes, sandboxes) = (Arc::new(all), Arc::new(sandboxes));
        Ok(Self { nodes, sandboxes })
    }

    /// One that knows nothing yet, as after a start.
    fn finder(&self, redis: Option<&RedisSettings>) -> Outcome<Arc<Finder>> {
        let list: Vec<_> = self
            .nodes
            .keys()
            .map(|name| support::address(name))
            .collect();
        let nodes = Arc::clone(&self.nodes);
        let table = NodeTable::new(move |one: &NodeAddress| {
            Arc::clone(&nodes[&one.node]) as Arc<dyn NodePort>
        });
        table.set(&list);
        let catalog = match redis {
            None => None,
            Some(settings) => {
                let redis = RedisCatalog::open(settings.clone())?;
                Some(Arc::new(ResilientCatalog::new(redis, ROUTES_MAX)) as Arc<dyn Catalog>)
            }
        };
        let servers = Arc::<FakeServers>::default();
        Ok(Arc::new(Finder::new(catalog, Arc::new(table), servers)))
    }

    /// Each sandbox until it is found.
    async fn look_up(&self, finder: &Arc<Finder>, at_once: usize) -> Outcome {
        self.spread(at_once, |share| {
            let finder = Arc::clone(finder);
            async move {
                for sandbox in share {
                    while !matches!(finder.lookup(&sandbox).await, Ok(Some(_))) {
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                Ok(())
            }
        })
        .await
    }

    /// A request to each, over connections that stay.
    async fn request(&self, edge: SocketAddr) -> Outcome {
        self.spread(AT_ONCE, |share| async move {
            let mut stream = TcpStream::connect(edge).await?;
            stream.set_nodelay(true)?;
            let mut answer = Vec::new();
            for sandbox in share {
                let head = format!("GET / HTTP/1.1\r\nhost: 3000-{sandbox}.demo.test\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                answer.clear();
                while !answer.ends_with(b"\r\n\r\nok") {
                    if stream.read_buf(&mut answer).await? == 0 {
                        return Err("the edge hung up".into());
                    }
                }
                if !answer.starts_with(b"HTTP/1.1 200") {
                    return Err(String::from_utf8_lossy(&answer).into());
                }
            }
            Ok(())
        })
        .await
    }

    async fn spread<F>(&self, at_once: usize, work: impl Fn(Vec<SandboxId>) -> F) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut works = JoinSet::new();
        for share in self
            .sandboxes
            .chunks(self.sandboxes.len().div_ceil(at_once))
        {
            works.spawn(work(share.to_vec()));
        }
        while let Some(done) = works.join_next().await {
            done??;
        }
        Ok(())
    }

    fn calls_of_nodes(&self) -> u64 {
        let asked = |node: &Arc<FakeNode>| {
            node.asked.load(Ordering::Relaxed) + node.dialled.load(Ordering::Relaxed)
        };
        self.nodes.values().map(asked).sum::<usize>() as u64
    }
}

/// Answers every request, whatever it is.
async fn service() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let at = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while stream.read_buf(&mut asked).await? > 0 {
                    if asked.ends_with(b"\r\n\r\n") {
                        asked.clear();
                        stream.write_all(ANSWER).await?;
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    Ok(at)
}

async fn serve(finder: &Arc<Finder>) -> Outcome<SocketAddr> {
    let config = EdgeConfig::new("demo.test");
    let edge = Edge::new(
        config,
        Arc::clone(finder) as _,
        Arc::clone(finder) as _,
        InvalidHost,
    );
    finder.tell(edge.clone());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let at = listener.local_addr()?;
    tokio::spawn(async move { edge.serve(listener, CancellationToken::new()).await });
    Ok(at)
}

struct Measured<'a> {
    what: &'static str,
    redis: &'a Redis,
    world: &'a World,
    commands: u64,
    redis_ms: u64,
    calls: u64,
    resident: u64,
    used: Duration,
    begun: Instant,
}

impl<'a> Measured<'a> {
    fn begin(what: &'static str, redis: &'a Redis, world: &'a World) -> Self {
        Self {
            what,
            redis,
            world,
            commands: commands(redis),
            redis_ms: processor_ms(redis),
            calls: world.calls_of_nodes(),
            resident: resident(),
            used: used(),
            begun: Instant::now(),
        }
    }

    fn end(self) {
        let (took, used) = (self.begun.elapsed(), used() - self.used);
        let count = self.world.sandboxes.len() as f64;
        println!(
            "| {} | {:.2} s | {:.0} | {:.1} µs | {:.2} | {:.1} µs | {:.2} | {} kB |",
            self.what,
            took.as_secs_f64(),
            count / took.as_secs_f64(),
            used.as_secs_f64() * 1e6 / count,
            (commands(self.redis) - self.commands) as f64 / count,
            (processor_ms(self.redis) - self.redis_ms) as f64 * 1e3 / count,
            (self.world.calls_of_nodes() - self.calls) as f64 / count,
            resident().saturating_sub(self.resident) / 1024,
        );
    }
}

/// Commands that Redis had, but for what connections and this bench ask.
fn commands(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse::<u64>().ok()?;
        (!matches!(name, "info" | "auth" | "ping")).then_some(calls)
    });
    calls.sum()
}

fn processor_ms(redis: &Redis) -> u64 {
    let info = redis.cli(&["INFO", "cpu"]);
    let seconds = info.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once(':')?;
        matches!(name, "used_cpu_sys" | "used_cpu_user").then(|| value.parse::<f64>().ok())?
    });
    (seconds.sum::<f64>() * 1e3) as u64
}

fn used_memory(redis: &Redis) -> u64 {
    let info = redis.cli(&["INFO", "memory"]);
    let used = info
        .lines()
        .find_map(|line| line.trim().strip_prefix("used_memory:"));
    used.and_then(|bytes| bytes.parse().ok())
        .unwrap_or_default()
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = kib.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// Processor time of this process, all threads.
fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|text| text.parse::<u64>().ok());
    // Linux counts them in hundredths of a second for everybody.
    Duration::from_millis(10 * (ticks().unwrap_or_default() + ticks().unwrap_or_default()))
}
