//! Limits in Redis beside the GCRA script that users write themselves, and beside the same limits in
//! memory.
//!
//! `PORTCULLIS_TEST_REDIS=/usr/bin/redis-server cargo run --release --bin redis`. The server runs on
//! the first core, all clients on the last one. 64 requests are in flight, of 10,000 clients.

use std::{
    convert::Infallible,
    env,
    future::ready,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use portcullis::{
    Client, Secret,
    rate_limit::{Policy, RateLimitLayer, redis::RedisLimits},
};
use portcullis_peers::{Budget, median, row};
use redis::{Script, aio::ConnectionManager};
use tower::{Layer, Service, ServiceExt, service_fn};

const IN_FLIGHT: usize = 64;
const CLIENTS: u32 = 10_000;
const ROUND: Duration = Duration::from_millis(250);
const ROUNDS: usize = 21;
const LIMIT: u32 = 100_000;
const WINDOW: Duration = Duration::from_secs(15 * 60);

fn main() {
    let Some(binary) = env::var_os("PORTCULLIS_TEST_REDIS") else {
        eprintln!("skipped: PORTCULLIS_TEST_REDIS is not set");
        return;
    };
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(first) = cores.first() {
        core_affinity::set_for_current(*first);
    }
    let server = Server::start(&binary);
    if let Some(last) = cores.last() {
        core_affinity::set_for_current(*last);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(compare(&server.url()));
}

struct Server(Child, u16);

impl Server {
    fn start(binary: &std::ffi::OsStr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let child = Command::new(binary)
            .args(["--bind", "127.0.0.1", "--save", "", "--port"])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("Redis starts");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(child, port)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// GCRA as it stands in many a service.
const TEXTBOOK: &str = r"
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local burst = tonumber(ARGV[1])
local interval = tonumber(ARGV[2]) / burst
local tolerance = interval * burst
local tat = tonumber(redis.call('GET', KEYS[1]) or now)
tat = math.max(tat, now)
local new_tat = tat + interval
local allow_at = new_tat - tolerance
if allow_at > now then
  return {0, 0, tostring(allow_at - now), tostring(tat - now)}
end
redis.call('SET', KEYS[1], string.format('%.6f', new_tat), 'PX', math.ceil((new_tat - now) * 1000))
return {1, math.floor((now - allow_at) / interval), '-1', tostring(new_tat - now)}
";

/// What no script that keeps a count by the server's clock goes without.
const LEAST: &str = r"
local time = redis.call('TIME')
redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], '1700000000.000000', 'PX', 900000)
return {1, time[1] * 1, '', ''}
";

async fn compare(url: &str) {
    let client = redis::Client::open(url).expect("the URL is one");
    let connection = ConnectionManager::new(client).await.expect("Redis answers");
    let by_script = |source| {
        let (script, connection) = (Arc::new(Script::new(source)), connection.clone());
        service_fn(move |request: Request<Full<Bytes>>| {
            let (script, mut connection) = (Arc::clone(&script), connection.clone());
            async move {
                let client = request
                    .extensions()
                    .get::<Client>()
                    .and_then(|client| client.ip());
                let key = format!("ratelimit:{}", client.expect("there is one"));
                let mut call = script.key(key);
                let call = call.arg(LIMIT).arg(WINDOW.as_secs());
                let answer: redis::RedisResult<(u32, u32, String, String)> =
                    call.invoke_async(&mut connection).await;
                assert_eq!(answer.expect("Redis answers").0, 1);
                Ok::<_, Infallible>(Response::new(Full::default()))
            }
        })
    };
    let (textbook, least) = (by_script(TEXTBOOK), by_script(LEAST));
    let inner = || service_fn(|_: Request<Full<Bytes>>| ready(Ok(Response::new(Full::default()))));
    let strict = |name| Policy::strict(name, LIMIT, WINDOW).expect("it is one");
    let smooth = |name| Policy::smooth(name, LIMIT, WINDOW).expect("it is one");
    let secret = Secret::generate();
    let mut shared = Vec::new();
    for policies in [
        vec![smooth("smooth")],
        vec![strict("strict")],
        vec![smooth("first"), smooth("second")],
    ] {
        let limits = RedisLimits::connect(url, &secret)
            .await
            .expect("it answers");
        let limits = limits.with_budget(Duration::from_secs(10));
        shared.push(RateLimitLayer::new(policies).shared(limits).layer(inner()));
    }
    let memory = RateLimitLayer::new([strict("memory")]).layer(inner());

    let mut rates = [const { Vec::new() }; 6];
    let mut waits = [const { Vec::new() }; 6];
    for _ in 0..ROUNDS {
        let mut note = |index: usize, (rate, wait)| {
            rates[index].push(rate);
            waits[index].push(wait);
        };
        note(0, load(&textbook).await);
        for (index, service) in shared.iter().enumerate() {
            note(index + 1, load(service).await);
        }
        note(4, load(&memory).await);
        note(5, load(&least).await);
    }
    let names = [
        "textbook script, GCRA",
        "smooth, one policy",
        "strict, one policy",
        "smooth, two policies",
        "strict in memory",
        "TIME, GET, SET in a script",
    ];
    eprintln!("\n{IN_FLIGHT} in flight, {CLIENTS} clients");
    for (index, name) in names.into_iter().enumerate() {
        let (rate, wait) = (median(rates[index].clone()), median(waits[index].clone()));
        eprintln!("  {name:<28} {rate:>10.0} requests/s   p99 {wait:>8.1} µs");
    }
    for (index, budget) in [(1, 1.15), (2, 1.15), (3, 0.65)] {
        let pairs = rates[index].iter().zip(&rates[0]);
        let ratio = median(pairs.map(|(own, peer)| own / peer).collect());
        let (own, peer) = (median(rates[index].clone()), median(rates[0].clone()));
        let name = format!("redis: {}, requests/s", names[index]);
        row(&name, own, Some(peer), ratio, Budget::AtLeast(budget));
    }
}

/// Requests in a second, and the microseconds that 99 of 100 do not exceed.
async fn load<S>(service: &S) -> (f64, f64)
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let next = Arc::new(AtomicU32::new(0));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (service, next) = (service.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < ROUND {
                    // Scattered over the clients.
                    let client = next.fetch_add(7919, Relaxed) % CLIENTS;
                    let mut request = Request::new(Full::default());
                    let ip = Ipv4Addr::from_bits(0x0a00_0000 + client);
                    let client = Client::new(Some(ip.into()), false);
                    request.extensions_mut().insert(client);
                    let asked = Instant::now();
                    let response = service.clone().oneshot(request).await;
                    times.push(asked.elapsed().as_nanos() as f64 / 1000.0);
                    let Ok(response) = response;
                    assert_eq!(response.status(), 200);
                    tokio::task::yield_now().await;
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("no request fails"));
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    (rate, times[times.len() * 99 / 100])
}
