//! Rate limits beside `tower_governor` and raw `governor`.
//!
//! `cargo run --release --bin rate_limit -- [layers|keys|threads|heap|spray]`, each in a process of
//! its own; without an argument, `layers`. Pin it to a core (`taskset -c 1`), except `threads`.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use axum::{body::Body, extract::ConnectInfo};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use portcullis::{
    Client,
    rate_limit::{FieldsVersion, Key, Policy, RateLimit, RateLimitLayer},
};
use portcullis_peers::{Candidate, Counting, Random, compare, live, median, take_peak};
use tower::{Layer, Service};
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WINDOW: Duration = Duration::from_secs(15 * 60);
const MANY: u32 = 1_000_000;

fn main() {
    match std::env::args().nth(1).as_deref() {
        None | Some("layers") => layers(),
        Some("keys") => keys(),
        Some("threads") => threads(),
        Some("heap") => heap(),
        Some("spray") => spray(),
        Some("profile") => profile(),
        Some(other) => eprintln!("no comparison is called {other}"),
    }
}

/// Answers with one header field, as most services do.
#[derive(Clone)]
struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (parts, body) = request.into_parts();
        KEPT.with(|kept| *kept.borrow_mut() = Some(Request::from_parts(parts, body)));
        let mut response = Response::new(Body::empty());
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        ready(Ok(response))
    }
}

std::thread_local! {
    /// The request, used again, so that building it is in no figure.
    static KEPT: std::cell::RefCell<Option<Request<Body>>> = const { std::cell::RefCell::new(None) };
}

fn request() -> Request<Body> {
    let mut request = Request::new(Body::empty());
    let addr: SocketAddr = "203.0.113.7:4711".parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(addr));
    let client = Client::new(Some(addr.ip()), false);
    request.extensions_mut().insert(client);
    request
}

fn call<S>(service: &mut S, ip: Ipv4Addr) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let mut request = KEPT.with(|kept| kept.borrow_mut().take()).unwrap_or_else(request);
    let extensions = request.extensions_mut();
    if let Some(info) = extensions.get_mut::<ConnectInfo<SocketAddr>>() {
        info.0.set_ip(ip.into());
    }
    if let Some(client) = extensions.get_mut::<Client>() {
        *client = Client::new(Some(ip.into()), false);
    }
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let future = pin!(service.call(request));
    match future.poll(&mut context) {
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => unreachable!("nothing waits"),
    }
}

/// Admits as fast as it is asked: the work of a charge, without a refusal.
fn ours(policy: Policy) -> RateLimitLayer {
    RateLimitLayer::new([policy])
}

fn log() -> Policy {
    Policy::strict("auth", 16, Duration::from_millis(1)).unwrap()
}

fn layers() {
    let peer = || {
        let mut builder = GovernorConfigBuilder::default();
        builder.period(Duration::from_nanos(1)).burst_size(1_000_000);
        builder
    };
    let ip = |random: &mut Random, keys: u32| Ipv4Addr::from_bits(0x0a00_0000 | random.next() as u32 % keys);
    for keys in [1, 1_000] {
        let mut inner = Inner;
        let mut theirs = GovernorLayer::new(peer().finish().unwrap()).layer(Inner);
        let mut smooth = ours(Policy::smooth("general", 1_000_000, Duration::from_millis(1)).unwrap()).layer(Inner);
        let mut ring = ours(Policy::strict("general", 100_000_000, WINDOW).unwrap()).layer(Inner);
        let exact = if keys == 1 { unlimited_log() } else { ours(log()) };
        let mut exact = exact.layer(Inner);
        let mut pair = RateLimitLayer::new([
            Policy::strict("general", 100_000_000, WINDOW).unwrap(),
            Policy::strict("model", 100_000_000, WINDOW).unwrap(),
        ])
        .layer(Inner);
        let mut random = [0; 6].map(Random);
        let [a, b, c, d, e, f] = &mut random;
        compare(
            &format!("layers without fields, {keys} keys"),
            31,
            vec![
                Candidate::new("inner alone", || drop(black_box(call(&mut inner, ip(a, keys))))),
                Candidate::new("tower_governor", || drop(black_box(call(&mut theirs, ip(b, keys))))),
                Candidate::new("portcullis strict, log", || drop(black_box(call(&mut exact, ip(c, keys))))),
                Candidate::new("portcullis strict, ring", || drop(black_box(call(&mut ring, ip(d, keys))))),
                Candidate::new("portcullis smooth", || drop(black_box(call(&mut smooth, ip(e, keys))))),
                Candidate::new("portcullis strict, two policies", || drop(black_box(call(&mut pair, ip(f, keys))))),
            ],
        );
        let mut inner = Inner;
        let mut theirs = GovernorLayer::new(peer().use_headers().finish().unwrap()).layer(Inner);
        let exact = if keys == 1 { unlimited_log() } else { ours(log()) };
        let mut exact = exact.with_fields(FieldsVersion::Draft10).layer(Inner);
        let ring = ours(Policy::strict("general", 100_000_000, WINDOW).unwrap());
        let mut ring = ring.with_fields(FieldsVersion::Draft10).layer(Inner);
        let mut random = [0; 4].map(Random);
        let [a, b, c, d] = &mut random;
        compare(
            &format!("layers with fields, {keys} keys"),
            31,
            vec![
                Candidate::new("inner alone", || drop(black_box(call(&mut inner, ip(a, keys))))),
                Candidate::new("tower_governor, use_headers", || drop(black_box(call(&mut theirs, ip(b, keys))))),
                Candidate::new("portcullis strict, log", || drop(black_box(call(&mut exact, ip(c, keys))))),
                Candidate::new("portcullis strict, ring", || drop(black_box(call(&mut ring, ip(d, keys))))),
            ],
        );
    }
    let mut inner = Inner;
    let mut builder = GovernorConfigBuilder::default();
    builder.period(Duration::from_secs(3_600)).burst_size(1);
    let mut theirs = GovernorLayer::new(builder.finish().unwrap()).layer(Inner);
    let quiet = portcullis::Context::new().with_events(|_: &portcullis::event::SecurityEvent| {});
    let mut denying = ours(Policy::strict("auth", 5, WINDOW).unwrap()).with_context(quiet).layer(Inner);
    let one = Ipv4Addr::new(203, 0, 113, 7);
    for _ in 0..9 {
        call(&mut theirs, one);
        call(&mut denying, one);
    }
    assert_eq!(call(&mut denying, one).status(), 429);
    compare(
        "denied (the figures hold the building of a request)",
        21,
        vec![
            Candidate::new("inner alone, request built", || {
                KEPT.with(|kept| *kept.borrow_mut() = None);
                drop(black_box(call(&mut inner, one)));
            }),
            Candidate::new("tower_governor", || drop(black_box(call(&mut theirs, one)))),
            Candidate::new("portcullis strict, log", || drop(black_box(call(&mut denying, one)))),
        ],
    );
}

/// A log that always has room: its clock makes a window pass between two calls.
fn unlimited_log() -> RateLimitLayer {
    let context = portcullis::Context::new().with_clock(Leaping::new());
    ours(log()).with_context(context)
}

/// The host's clock, a thousand times as fast, plus a window at each reading: it costs what a
/// reading costs.
#[derive(Debug)]
struct Leaping {
    clock: portcullis::time::SystemClock,
    leaps: AtomicU64,
}

impl Leaping {
    fn new() -> Self {
        Self {
            clock: portcullis::time::SystemClock::new(),
            leaps: AtomicU64::new(0),
        }
    }
}

impl portcullis::time::Clock for Leaping {
    fn monotonic(&self) -> portcullis::time::Monotonic {
        let leaps = self.leaps.load(Relaxed) + 1_000_000;
        self.leaps.store(leaps, Relaxed);
        let now = self.clock.monotonic().as_nanos();
        portcullis::time::Monotonic::from_nanos(now + leaps)
    }

    fn wall(&self) -> portcullis::time::UnixMillis {
        self.clock.wall()
    }
}

fn keyed(limit: u32) -> DefaultKeyedRateLimiter<IpAddr> {
    let limit = NonZeroU32::new(limit).unwrap();
    RateLimiter::keyed(Quota::with_period(Duration::from_nanos(1)).unwrap().allow_burst(limit))
}

fn roomy(policy: Policy) -> Policy {
    policy.with_capacity(4_000_000).unwrap()
}

/// A check at a million random keys.
fn keys() {
    let theirs = keyed(1_000_000);
    let exact = RateLimitLayer::new([roomy(Policy::strict("l", 16, Duration::from_secs(1)).unwrap())]);
    let ring = RateLimitLayer::new([roomy(Policy::strict("r", 100_000_000, WINDOW).unwrap())]);
    let smooth = Policy::smooth("s", 1_000_000, Duration::from_millis(1)).unwrap();
    let smooth = RateLimitLayer::new([roomy(smooth)]);
    let (mut exact, mut ring, mut smooth) = (exact.layer(Inner), ring.layer(Inner), smooth.layer(Inner));
    let ip = |random: &mut Random| Ipv4Addr::from_bits(scatter(random.next() as u32 % MANY));
    for key in 0..MANY {
        let ip = Ipv4Addr::from_bits(scatter(key));
        let _ = theirs.check_key(&ip.into());
        for service in [&mut exact, &mut ring, &mut smooth] {
            call::<RateLimit<Inner>>(service, ip);
        }
    }
    let mut inner = Inner;
    let mut random = [0; 5].map(Random);
    let [a, b, c, d, e] = &mut random;
    compare(
        "a million random keys (tower services; governor's check alone, behind the same inner service)",
        31,
        vec![
            Candidate::new("inner alone", || drop(black_box(call(&mut inner, ip(a))))),
            Candidate::new("governor's keyed check", || {
                let mut inner = Inner;
                let ip = ip(b);
                let _ = black_box(theirs.check_key(&ip.into()));
                drop(black_box(call(&mut inner, ip)));
            }),
            Candidate::new("portcullis strict, log", || drop(black_box(call(&mut exact, ip(c))))),
            Candidate::new("portcullis strict, ring", || drop(black_box(call(&mut ring, ip(d))))),
            Candidate::new("portcullis smooth", || drop(black_box(call(&mut smooth, ip(e))))),
        ],
    );
}

/// Addresses all over the net, as clients have them.
fn scatter(key: u32) -> u32 {
    key.wrapping_mul(0x9e37_79b1)
}

/// Checks of one key by two threads, beside one.
fn threads() {
    let theirs = keyed(1_000_000);
    let one = IpAddr::from([203, 0, 113, 7]);
    let ring = ours(Policy::strict("r", 100_000_000, WINDOW).unwrap());
    let smooth = ours(Policy::smooth("s", 1_000_000, Duration::from_millis(1)).unwrap());
    let total = |threads: u32, check: &(dyn Fn() + Sync)| {
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..2_000_000).for_each(|_| check()));
            }
        });
        f64::from(threads * 2) / start.elapsed().as_secs_f64()
    };
    let layer_check = |layer: &RateLimitLayer| {
        let layer = layer.clone();
        move || {
            std::thread_local! {
                static SERVICE: std::cell::RefCell<Option<(usize, RateLimit<Inner>)>> =
                    const { std::cell::RefCell::new(None) };
            }
            let id = std::ptr::from_ref(&layer) as usize;
            SERVICE.with(|slot| {
                let slot = &mut *slot.borrow_mut();
                if slot.as_ref().is_none_or(|(held, _)| *held != id) {
                    *slot = Some((id, layer.layer(Inner)));
                }
                if let Some((_, service)) = slot {
                    drop(black_box(call(service, Ipv4Addr::new(203, 0, 113, 7))));
                }
            });
        }
    };
    let (ring, smooth) = (layer_check(&ring), layer_check(&smooth));
    let theirs_behind = || {
        let _ = black_box(theirs.check_key(&one));
        drop(black_box(call(&mut Inner, Ipv4Addr::new(203, 0, 113, 7))));
    };
    println!("one key, millions of calls a second: one thread, two threads (median of 7)");
    let candidates: [(&str, &(dyn Fn() + Sync)); 3] = [
        ("governor behind the inner service", &theirs_behind),
        ("portcullis strict, ring", &ring),
        ("portcullis smooth", &smooth),
    ];
    let mut results = [const { (Vec::new(), Vec::new()) }; 3];
    for _ in 0..7 {
        for ((_, check), (one, two)) in candidates.iter().zip(&mut results) {
            one.push(total(1, *check));
            two.push(total(2, *check));
        }
    }
    let base = median(results[0].1.clone());
    for ((name, _), (one, two)) in candidates.iter().zip(results) {
        let (one, two) = (median(one), median(two));
        println!("  {name:<36} {one:>6.1} {two:>6.1}  two threads to governor's {:.2}", two / base);
    }
}

/// Heap bytes of a key, at ten sizes from half a million to two million.
fn heap() {
    let sizes = (1..=10).map(|step| 500_000 + step * 150_000);
    let mut ratios = [Vec::new(), Vec::new(), Vec::new()];
    println!("heap bytes a key: governor, smooth, strict 5 in 15 min, strict 100 in 15 min");
    for size in sizes {
        let fill = |check: &mut dyn FnMut(Ipv4Addr)| {
            for key in 0..size {
                check(Ipv4Addr::from_bits(scatter(key)));
            }
        };
        let theirs = {
            let before = live();
            let limiter = keyed(100);
            fill(&mut |ip| {
                let _ = limiter.check_key(&ip.into());
            });
            (live() - before) as f64 / f64::from(size)
        };
        let of = |policy: Policy| {
            // The limiter alone: what the context holds is not the keys'.
            let before = live();
            let layer = RateLimitLayer::new([roomy(policy)]);
            let handle = layer.handle();
            fill(&mut |ip| {
                let charge = handle.charge("x", Key::client(ip.into()));
                drop(black_box(charge));
            });
            assert_eq!(handle.keys(), size as usize);
            (live() - before) as f64 / f64::from(size)
        };
        let own = [
            of(Policy::smooth("x", 5, WINDOW).unwrap()),
            of(Policy::strict("x", 5, WINDOW).unwrap()),
            of(Policy::strict("x", 100, WINDOW).unwrap()),
        ];
        println!("  {size:>9} {theirs:>6.1} {:>6.1} {:>6.1} {:>6.1}", own[0], own[1], own[2]);
        for (ratio, own) in ratios.iter_mut().zip(own) {
            ratio.push((own, theirs));
        }
    }
    for (name, ratio) in ["smooth", "strict 5", "strict 100"].iter().zip(ratios) {
        let (own, theirs): (Vec<f64>, Vec<f64>) = ratio.into_iter().unzip();
        println!("  mean of {name} to governor's: {:.2}", own.iter().sum::<f64>() / theirs.iter().sum::<f64>());
    }
}

/// Ten million keys on a table of the default size: latencies, and the most memory.
fn spray() {
    for (name, policy) in [
        ("strict 5 in 15 min", Policy::strict("x", 5, WINDOW).unwrap()),
        ("smooth 100 in 15 min", Policy::smooth("x", 100, WINDOW).unwrap()),
    ] {
        let held = live();
        take_peak();
        let layer = RateLimitLayer::new([policy]);
        let handle = layer.handle();
        let mut service = layer.layer(Inner);
        let mut times = Vec::with_capacity(10_000_000);
        let measure = |service: &mut RateLimit<Inner>, ip: Ipv4Addr, times: &mut Vec<u32>| {
            let start = Instant::now();
            drop(black_box(call(service, ip)));
            times.push(start.elapsed().as_nanos() as u32);
        };
        let full = 196_608;
        for key in 0..full {
            call(&mut service, Ipv4Addr::from_bits(scatter(key)));
        }
        let at_cap = handle.keys();
        let mut random = Random(7);
        for _ in 0..1_000_000 {
            let key = random.next() as u32 % (full / 2);
            measure(&mut service, Ipv4Addr::from_bits(scatter(key)), &mut times);
        }
        let known = percentiles(&mut times);
        for key in 0..10_000_000 {
            measure(&mut service, Ipv4Addr::from_bits(scatter(full + key)), &mut times);
        }
        let sprayed = percentiles(&mut times);
        drop(times);
        println!("{name}: {at_cap} keys when filled, {} after ten million more, {} charges shared", handle.keys(), handle.overflowed());
        println!("  known keys alone: p50 {} ns, p99.9 {} ns, longest {} ns", known[0], known[1], known[2]);
        println!("  under the spray:  p50 {} ns, p99.9 {} ns, longest {} ns", sprayed[0], sprayed[1], sprayed[2]);
        let samples = 10_000_000 * size_of::<u32>();
        let peak = take_peak().saturating_sub(held + samples);
        println!("  most memory: {:.1} MB", peak as f64 / 1e6);
        let _ = Arc::new(handle);
    }
}

fn percentiles(times: &mut Vec<u32>) -> [u32; 3] {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let result = [at(0.5), at(0.999), at(1.0)];
    times.clear();
    result
}

/// One candidate alone, for a profiler: `profile NAME CALLS`.
fn profile() {
    let mut arguments = std::env::args().skip(2);
    let name = arguments.next().unwrap_or_default();
    let calls: u32 = arguments.next().and_then(|calls| calls.parse().ok()).unwrap_or(1_000_000);
    let one = Ipv4Addr::new(203, 0, 113, 7);
    let quiet = portcullis::Context::new().with_events(|_: &portcullis::event::SecurityEvent| {});
    let ring = || ours(Policy::strict("general", 100_000_000, WINDOW).unwrap());
    let mut run = |work: &mut dyn FnMut()| (0..calls).for_each(|_| work());
    match &*name {
        "inner" => run(&mut || drop(black_box(call(&mut Inner, one)))),
        "ring" => {
            let mut service = ring().layer(Inner);
            run(&mut || drop(black_box(call(&mut service, one))));
        }
        "log" => {
            let mut service = unlimited_log().layer(Inner);
            run(&mut || drop(black_box(call(&mut service, one))));
        }
        "fields" => {
            let mut service = ring().with_fields(FieldsVersion::Draft10).layer(Inner);
            run(&mut || drop(black_box(call(&mut service, one))));
        }
        "smooth" => {
            let policy = Policy::smooth("general", 1_000_000, Duration::from_millis(1)).unwrap();
            let mut service = ours(policy).layer(Inner);
            run(&mut || drop(black_box(call(&mut service, one))));
        }
        "pair" => {
            let policy = |name: &str| Policy::strict(name, 100_000_000, WINDOW).unwrap();
            let mut service = RateLimitLayer::new([policy("a"), policy("b")]).layer(Inner);
            run(&mut || drop(black_box(call(&mut service, one))));
        }
        "denied" => {
            let policy = Policy::strict("auth", 5, WINDOW).unwrap();
            let mut service = ours(policy).with_context(quiet).layer(Inner);
            run(&mut || drop(black_box(call(&mut service, one))));
        }
        "governor" => {
            let mut builder = GovernorConfigBuilder::default();
            builder.period(Duration::from_nanos(1)).burst_size(1_000_000);
            let mut service = GovernorLayer::new(builder.finish().unwrap()).layer(Inner);
            run(&mut || drop(black_box(call(&mut service, one))));
        }
        other => eprintln!("no candidate is called {other}"),
    }
}
