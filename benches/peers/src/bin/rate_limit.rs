//! Rate limits beside `tower_governor` and raw `governor`.
//!
//! `cargo run --release --bin rate_limit -- [layers|keys|threads|heap|spray]`, each in a process of
//! its own; without an argument, `layers`. Pin it to a core (`taskset -c 1`), except `threads`.
//! Standard output is the lines of `run.sh`'s table, standard error all figures.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    pin::pin,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use axum::{body::Body, extract::ConnectInfo};
use bytes::Bytes;
use dashmap::DashMap;
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter, clock::QuantaInstant, middleware::NoOpMiddleware,
};
use http::{HeaderName, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::Full;
use portcullis::{
    Client,
    rate_limit::{FieldsVersion, Key, Policy, RateLimit, RateLimitLayer},
};
use portcullis_peers::{
    Budget, Candidate, Counting, Measured, Random, live, measure, median, row, take_peak,
};
use tower::{Layer, Service};
use tower_governor::{
    GovernorLayer, governor::GovernorConfigBuilder, key_extractor::PeerIpKeyExtractor,
};

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

/// The least that a keyed limit can do, by hand: a clock read, a hash, one look into a map that is not
/// bounded, a comparison and a count. It forgets nothing, and knows one policy and IPv4 alone.
struct Floor {
    inner: Inner,
    clock: portcullis::time::SystemClock,
    counts: DashMap<u32, (u32, u64), ahash::RandomState>,
    limit: u32,
    /// What every answer says of the policy, where answers get fields.
    policy: Option<HeaderValue>,
}

impl Floor {
    fn new(limit: u32) -> Self {
        Self {
            inner: Inner,
            clock: portcullis::time::SystemClock::new(),
            counts: DashMap::default(),
            limit,
            policy: None,
        }
    }

    fn with_fields(self) -> Self {
        let policy = HeaderValue::from_static("\"general\";q=100;w=900");
        Self {
            policy: Some(policy),
            ..self
        }
    }
}

impl Service<Request<Body>> for Floor {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        use portcullis::time::Clock as _;
        let Some(IpAddr::V4(ip)) = request.extensions().get().copied().and_then(Client::ip) else {
            unreachable!("every request has a client")
        };
        let now = self.clock.monotonic().as_nanos();
        let mut entry = self.counts.entry(ip.to_bits()).or_default();
        let (count, since) = &mut *entry;
        if now.saturating_sub(*since) >= WINDOW.as_nanos() as u64 {
            (*count, *since) = (0, now);
        }
        assert!(*count < self.limit, "nobody comes to the limit");
        *count += 1;
        let left = self.limit - *count;
        drop(entry);
        let answer = self.inner.call(request);
        let Some(policy) = &self.policy else {
            return answer;
        };
        let Ok(mut response) = answer.into_inner();
        let mut value = Vec::with_capacity(32);
        value.extend(b"\"general\";r=");
        value.extend(itoa::Buffer::new().format(left).bytes());
        value.extend(b";t=900");
        let value = HeaderValue::from_maybe_shared(Bytes::from(value)).unwrap();
        let headers = response.headers_mut();
        headers.append(RATELIMIT_POLICY, policy.clone());
        headers.append(RATELIMIT, value);
        ready(Ok(response))
    }
}

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

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
    let mut request = KEPT
        .with(|kept| kept.borrow_mut().take())
        .unwrap_or_else(request);
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

fn layer(policy: Policy) -> RateLimitLayer {
    RateLimitLayer::new([policy])
}

fn auth() -> Policy {
    Policy::strict("auth", 5, WINDOW).unwrap()
}

fn general() -> Policy {
    Policy::strict("general", 100, WINDOW).unwrap()
}

fn smooth() -> Policy {
    Policy::smooth("general", 100, WINDOW).unwrap()
}

/// A limit that nobody reaches, for the host's own clock.
fn unreached() -> Policy {
    Policy::strict("general", 100_000_000, WINDOW).unwrap()
}

fn peer() -> GovernorConfigBuilder<PeerIpKeyExtractor, NoOpMiddleware<QuantaInstant>> {
    let mut builder = GovernorConfigBuilder::default();
    builder
        .period(Duration::from_nanos(1))
        .burst_size(1_000_000);
    builder
}

fn ip(random: &mut Random, keys: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 | random.next() as u32 % keys)
}

/// What the layer adds to a service, beside what `tower_governor` adds.
fn layers() {
    for keys in [1, 1_000] {
        let mut inner = Inner;
        let mut theirs = GovernorLayer::new(peer().finish().unwrap()).layer(Inner);
        let mut log = paced(auth(), keys).layer(Inner);
        let mut ring = paced(general(), keys).layer(Inner);
        let mut unreached = layer(unreached()).layer(Inner);
        let mut gcra = paced(smooth(), keys).layer(Inner);
        let context = Leaping::context(general().window(), 5, keys);
        let pair = RateLimitLayer::new([general(), auth()]).with_context(context);
        let mut pair = pair.layer(Inner);
        let mut floor = Floor::new(u32::MAX);
        let mut random = [0; 8].map(Random);
        let [a, b, c, d, e, f, g, h] = &mut random;
        let measured = measure(
            &format!("admitted without fields, {keys} keys"),
            31,
            vec![
                Candidate::new("inner alone", || {
                    drop(black_box(call(&mut inner, ip(a, keys))))
                }),
                Candidate::new("tower_governor", || {
                    drop(black_box(call(&mut theirs, ip(b, keys))))
                }),
                Candidate::new("strict 5 in 15 min", || {
                    drop(black_box(call(&mut log, ip(c, keys))))
                }),
                Candidate::new("strict 100 in 15 min", || {
                    drop(black_box(call(&mut ring, ip(d, keys))))
                }),
                Candidate::new("strict, never reached, host's clock", || {
                    drop(black_box(call(&mut unreached, ip(e, keys))))
                }),
                Candidate::new("smooth 100 in 15 min", || {
                    drop(black_box(call(&mut gcra, ip(f, keys))))
                }),
                Candidate::new("both strict ones together", || {
                    drop(black_box(call(&mut pair, ip(g, keys))))
                }),
                Candidate::new("by hand, the least", || {
                    drop(black_box(call(&mut floor, ip(h, keys))))
                }),
            ],
        );
        for (name, index) in [
            ("5 in 15 min", 2),
            ("100 in 15 min", 3),
            ("never reached", 4),
        ] {
            let name = format!("rate_limit: strict {name}, {keys} keys, ns added");
            against(&name, &measured, index, 0.8);
        }
        floor_of(&measured, 7, 0.8);
        let most = measured[2..5]
            .iter()
            .map(|own| own.allocations)
            .fold(0.0, f64::max);
        row(
            &format!("rate_limit: allocations, {keys} keys"),
            most,
            None,
            most.round(),
            Budget::AtMost(0.0),
        );

        let mut inner = Inner;
        let mut theirs = GovernorLayer::new(peer().use_headers().finish().unwrap()).layer(Inner);
        let fields = |layer: RateLimitLayer| layer.with_fields(FieldsVersion::Draft10).layer(Inner);
        let (mut log, mut ring) = (fields(paced(auth(), keys)), fields(paced(general(), keys)));
        let mut floor = Floor::new(u32::MAX).with_fields();
        let mut random = [0; 5].map(Random);
        let [a, b, c, d, e] = &mut random;
        let measured = measure(
            &format!("admitted with fields, {keys} keys"),
            31,
            vec![
                Candidate::new("inner alone", || {
                    drop(black_box(call(&mut inner, ip(a, keys))))
                }),
                Candidate::new("tower_governor, use_headers", || {
                    drop(black_box(call(&mut theirs, ip(b, keys))))
                }),
                Candidate::new("strict 5 in 15 min", || {
                    drop(black_box(call(&mut log, ip(c, keys))))
                }),
                Candidate::new("strict 100 in 15 min", || {
                    drop(black_box(call(&mut ring, ip(d, keys))))
                }),
                Candidate::new("by hand, the least", || {
                    drop(black_box(call(&mut floor, ip(e, keys))))
                }),
            ],
        );
        for (name, index) in [("5 in 15 min", 2), ("100 in 15 min", 3)] {
            let name = format!("rate_limit: strict {name} with fields, {keys} keys, ns added");
            against(&name, &measured, index, 0.5);
        }
        floor_of(&measured, 4, 0.5);
        let most = measured[2..4]
            .iter()
            .map(|own| own.allocations)
            .fold(0.0, f64::max);
        let name = format!("rate_limit: allocations with fields, {keys} keys");
        row(&name, most, None, most.round(), Budget::AtMost(2.0));
    }
    let mut inner = Inner;
    let mut builder = GovernorConfigBuilder::default();
    builder.period(Duration::from_secs(3_600)).burst_size(1);
    let mut theirs = GovernorLayer::new(builder.finish().unwrap()).layer(Inner);
    let mut denying = layer(auth()).with_context(quiet()).layer(Inner);
    let one = Ipv4Addr::new(203, 0, 113, 7);
    for _ in 0..9 {
        call(&mut theirs, one);
        call(&mut denying, one);
    }
    assert_eq!(call(&mut denying, one).status(), 429);
    let measured = measure(
        "denied (the figures hold the building of a request)",
        31,
        vec![
            Candidate::new("inner alone, request built", || {
                KEPT.with(|kept| *kept.borrow_mut() = None);
                drop(black_box(call(&mut inner, one)));
            }),
            Candidate::new("tower_governor", || drop(black_box(call(&mut theirs, one)))),
            Candidate::new("strict 5 in 15 min", || {
                drop(black_box(call(&mut denying, one)))
            }),
        ],
    );
    let denied = measured[2].added;
    row(
        "rate_limit: denied, ns added",
        denied,
        Some(measured[1].added),
        denied,
        Budget::AtMost(600.0),
    );
}

fn against(name: &str, measured: &[Measured], index: usize, budget: f64) {
    let (own, peer) = (measured[index], measured[1]);
    row(
        name,
        own.added,
        Some(peer.added),
        own.ratio,
        Budget::AtMost(budget),
    );
}

/// What the lines above it could be at best.
fn floor_of(measured: &[Measured], index: usize, budget: f64) {
    let (least, peer) = (measured[index], measured[1]);
    println!(
        "the floor of that, a hash, a look and a count\t{:.1}\t{:.1}\t{:.2}\t<={budget}\tfloor",
        least.added, peer.added, least.ratio,
    );
}

fn quiet() -> portcullis::Context {
    portcullis::Context::new().with_events_inline(|_: &portcullis::event::SecurityEvent| {})
}

/// A layer under which every key stays just below its limit, however fast it is asked.
fn paced(policy: Policy, keys: u32) -> RateLimitLayer {
    let context = Leaping::context(policy.window(), policy.limit(), keys);
    layer(policy).with_context(context)
}

/// The host's clock, and a leap at each reading, so that keys are charged at four fifths of their
/// limit. It costs what a reading costs, and a little more.
#[derive(Debug)]
struct Leaping {
    clock: portcullis::time::SystemClock,
    leap: u64,
    leaps: AtomicU64,
}

impl Leaping {
    fn context(window: Duration, limit: u32, keys: u32) -> portcullis::Context {
        portcullis::Context::new().with_clock(Self {
            clock: portcullis::time::SystemClock::new(),
            // Keys come at random, so a thousand of them have to come seldom.
            leap: window.as_nanos() as u64 / u64::from(limit) * 5
                / if keys == 1 { 4 } else { 1 }
                / u64::from(keys),
            leaps: AtomicU64::new(0),
        })
    }
}

impl portcullis::time::Clock for Leaping {
    fn monotonic(&self) -> portcullis::time::Monotonic {
        let leaps = self.leaps.load(Relaxed) + self.leap;
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
    RateLimiter::keyed(
        Quota::with_period(Duration::from_nanos(1))
            .unwrap()
            .allow_burst(limit),
    )
}

fn roomy(policy: Policy) -> Policy {
    policy.with_capacity(4_000_000).unwrap()
}

/// A check at a million random keys, by the tiers that people use. None of them refuses: each key
/// is charged once or twice.
fn keys() {
    let theirs = keyed(1_000_000);
    let of = |policy| layer(roomy(policy)).layer(Inner);
    let long = Policy::strict("long", 16, WINDOW).unwrap();
    let mut log = paced(roomy(auth()), MANY).layer(Inner);
    let (mut ring, mut gcra) = (of(general()), of(smooth()));
    let mut long = of(long);
    let mut floor = Floor::new(u32::MAX);
    let ip = |random: &mut Random| Ipv4Addr::from_bits(scatter(random.next() as u32 % MANY));
    for key in 0..MANY {
        let ip = Ipv4Addr::from_bits(scatter(key));
        let _ = theirs.check_key(&ip.into());
        for service in [&mut log, &mut ring, &mut gcra, &mut long] {
            call::<RateLimit<Inner>>(service, ip);
        }
        call(&mut floor, ip);
    }
    let mut inner = Inner;
    let mut random = [0; 7].map(Random);
    let [a, b, c, d, e, f, g] = &mut random;
    let measured = measure(
        "a million random keys (layers; governor's check alone, behind the same inner service)",
        31,
        vec![
            Candidate::new("inner alone", || drop(black_box(call(&mut inner, ip(a))))),
            Candidate::new("governor's keyed check", || {
                let mut inner = Inner;
                let ip = ip(b);
                let _ = black_box(theirs.check_key(&ip.into()));
                drop(black_box(call(&mut inner, ip)));
            }),
            Candidate::new("strict 5 in 15 min", || {
                drop(black_box(call(&mut log, ip(c))))
            }),
            Candidate::new("strict 100 in 15 min", || {
                drop(black_box(call(&mut ring, ip(d))))
            }),
            Candidate::new("smooth 100 in 15 min", || {
                drop(black_box(call(&mut gcra, ip(e))))
            }),
            Candidate::new("strict 16 in 15 min", || {
                drop(black_box(call(&mut long, ip(f))))
            }),
            Candidate::new("by hand, the least", || {
                drop(black_box(call(&mut floor, ip(g))))
            }),
        ],
    );
    for (name, index) in [
        ("strict 5 in 15 min", 2),
        ("strict 100 in 15 min", 3),
        ("smooth 100 in 15 min", 4),
    ] {
        against(
            &format!("rate_limit: {name}, a million keys, ns added"),
            &measured,
            index,
            0.8,
        );
    }
    floor_of(&measured, 6, 0.8);
}

/// Addresses all over the net, as clients have them.
fn scatter(key: u32) -> u32 {
    key.wrapping_mul(0x9e37_79b1)
}

/// Next to nothing, and no allocation, whose counting all threads share: what threads wait for is
/// not hidden by the work of each.
#[derive(Clone, Default)]
struct Bare {
    /// The request, used again.
    kept: Rc<Cell<Option<Request<Full<Bytes>>>>>,
}

impl Service<Request<Full<Bytes>>> for Bare {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        self.kept.set(Some(request));
        ready(Ok(Response::new(Full::default())))
    }
}

impl Bare {
    /// Calls one thread's service again and again, which is this one with something around it.
    fn call_often<S>(&self, mut service: S)
    where
        S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible>,
    {
        let client = Client::new(Some(Ipv4Addr::new(203, 0, 113, 7).into()), false);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..CALLS {
            let mut request = self.kept.take().unwrap_or_default();
            match request.extensions_mut().get_mut::<Client>() {
                Some(held) => *held = client,
                None => drop(request.extensions_mut().insert(client)),
            }
            let future = pin!(service.call(request));
            assert!(black_box(future.poll(&mut context)).is_ready());
        }
    }
}

/// `governor`'s check, and then a service.
#[derive(Clone)]
struct Checked<'a> {
    limiter: &'a DefaultKeyedRateLimiter<IpAddr>,
    inner: Bare,
}

impl Service<Request<Full<Bytes>>> for Checked<'_> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let client = request
            .extensions()
            .get::<Client>()
            .and_then(|client| client.ip());
        let _ = client.map(|ip| black_box(self.limiter.check_key(&ip)));
        self.inner.call(request)
    }
}

/// Checks of one key by two threads.
fn threads() {
    let theirs = keyed(1_000_000);
    let layers = [
        layer(unreached()),
        layer(Policy::smooth("s", 1_000_000, Duration::from_millis(1)).unwrap()),
    ];
    let own = |layer: &RateLimitLayer| {
        let bare = Bare::default();
        bare.call_often(layer.layer(bare.clone()));
    };
    let [ring, gcra] = &layers;
    let candidates: [(&str, &(dyn Fn() + Sync)); 3] = [
        ("governor's check behind the inner service", &|| {
            let bare = Bare::default();
            let (limiter, inner) = (&theirs, bare.clone());
            bare.call_often(Checked { limiter, inner });
        }),
        ("strict", &|| own(ring)),
        ("smooth", &|| own(gcra)),
    ];
    let total = |threads: u32, work: &(dyn Fn() + Sync)| {
        let start = Instant::now();
        // Each on a core of its own, or they do not meet.
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        thread::scope(|scope| {
            for thread in 0..threads as usize {
                let core = cores.get(thread).copied();
                scope.spawn(move || {
                    core.map(core_affinity::set_for_current);
                    work();
                });
            }
        });
        f64::from(threads * CALLS) / start.elapsed().as_secs_f64() / 1e6
    };
    let mut results = [const { (Vec::new(), Vec::new()) }; 3];
    for _ in 0..31 {
        for ((_, work), (one, two)) in candidates.iter().zip(&mut results) {
            one.push(total(1, *work));
            two.push(total(2, *work));
        }
    }
    eprintln!("\none key, millions of calls a second: one thread, two threads");
    let governor = results[0].1.clone();
    for ((name, _), (one, two)) in candidates.iter().zip(results) {
        let ratio = median(
            two.iter()
                .zip(&governor)
                .map(|(own, peer)| own / peer)
                .collect(),
        );
        let (one, two) = (median(one), median(two));
        eprintln!("  {name:<48} {one:>6.1} {two:>6.1}");
        if !name.starts_with("governor") {
            let name =
                format!("rate_limit: two threads on one key, {name}, million checks a second");
            row(
                &name,
                two,
                Some(median(governor.clone())),
                ratio,
                Budget::AtLeast(1.3),
            );
        }
    }
}

const CALLS: u32 = 100_000;

/// Heap bytes of a key, at ten sizes from half a million to two million.
fn heap() {
    let sizes = (0..10).map(|step| 500_000 + step * 1_500_000 / 9);
    let mut totals = [0.0; 4];
    eprintln!("\nheap bytes a key: governor, smooth, strict 5 in 15 min, strict 100 in 15 min");
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
            let name = layer
                .policies()
                .next()
                .map(|policy| policy.name().to_owned())
                .unwrap();
            fill(&mut |ip| {
                let charge = handle.charge(&name, Key::client(ip.into()));
                drop(black_box(charge));
            });
            assert_eq!(handle.keys(), size as usize);
            (live() - before) as f64 / f64::from(size)
        };
        let bytes = [theirs, of(smooth()), of(auth()), of(general())];
        eprintln!(
            "  {size:>9} {:>6.1} {:>6.1} {:>6.1} {:>6.1}",
            bytes[0], bytes[1], bytes[2], bytes[3]
        );
        for (total, bytes) in totals.iter_mut().zip(bytes) {
            *total += bytes / 10.0;
        }
    }
    let [theirs, smooth, auth, general] = totals;
    for (name, own, budget) in [("smooth", smooth, 1.2), ("strict 5 in 15 min", auth, 1.6)] {
        let name = format!("rate_limit: heap bytes a key, {name}");
        row(
            &name,
            own,
            Some(theirs),
            own / theirs,
            Budget::AtMost(budget),
        );
    }
    eprintln!(
        "  strict 100 in 15 min to governor's: {:.2}",
        general / theirs
    );
}

/// Ten million keys on a table of the default size: latencies, and the most memory.
///
/// The keys that are known are half of those that fill the table, and half of those have used up
/// their limit, since under the spray most is refused: a refusal beside a refusal.
fn spray() {
    for policy in [auth(), smooth(), general()] {
        let name = if policy.limit() == 5 {
            "strict 5 in 15 min"
        } else if policy.worst_case_in_window() > 100 {
            "smooth 100 in 15 min"
        } else {
            "strict 100 in 15 min"
        };
        let limit = policy.limit();
        let held = live();
        take_peak();
        let layer = layer(policy).with_context(quiet());
        let handle = layer.handle();
        let name_of = layer
            .policies()
            .next()
            .map(|policy| policy.name().to_owned());
        let policy_name = name_of.unwrap();
        let mut times = Vec::with_capacity(10_000_000);
        let check = |key: u32| {
            let ip = Ipv4Addr::from_bits(scatter(key));
            handle.charge(&policy_name, Key::client(ip.into()))
        };
        // The check alone: what takes a microsecond meets the host's timer a thousandth of the time.
        let measure = |key: u32, times: &mut Vec<u32>| {
            let start = Instant::now();
            let charge = black_box(check(key));
            times.push(start.elapsed().as_nanos() as u32);
            drop(charge);
        };
        let full = 196_608;
        for key in 0..full {
            let charges = if key < full / 4 { limit } else { 1 };
            for _ in 0..charges {
                drop(check(key));
            }
        }
        let mut random = Random(7);
        for _ in 0..1_000_000 {
            let key = random.next() as u32 % (full / 2);
            measure(key, &mut times);
        }
        let known = percentiles(&mut times);
        let mut most_keys = handle.keys();
        for key in 0..10_000_000 {
            measure(full + key, &mut times);
            if key % 100_000 == 0 {
                most_keys = most_keys.max(handle.keys());
            }
        }
        let sprayed = percentiles(&mut times);
        drop(times);
        let samples = 10_000_000 * size_of::<u32>();
        let peak = take_peak().saturating_sub(held + samples);
        eprintln!(
            "\n{name}: at most {most_keys} keys, {} charges shared, {:.1} MB",
            handle.overflowed(),
            peak as f64 / 1e6
        );
        eprintln!(
            "  known keys alone: p50 {} ns, p99.9 {} ns, longest {} ns",
            known[0], known[1], known[2]
        );
        eprintln!(
            "  under the spray:  p50 {} ns, p99.9 {} ns, longest {} ns",
            sprayed[0], sprayed[1], sprayed[2]
        );
        let (own, quiet) = (f64::from(sprayed[1]), f64::from(known[1]));
        let row_name = format!("rate_limit: p99.9 under a spray to known keys alone, {name}, ns");
        row(
            &row_name,
            own,
            Some(quiet),
            own / quiet,
            Budget::AtMost(2.0),
        );
        let row_name = format!("rate_limit: keys held under ten million, {name}");
        row(
            &row_name,
            most_keys as f64,
            None,
            most_keys as f64,
            Budget::AtMost(f64::from(full)),
        );
    }
}

fn percentiles(times: &mut Vec<u32>) -> [u32; 3] {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let result = [at(0.5), at(0.999), at(1.0)];
    times.clear();
    result
}

/// One candidate alone, for a profiler: `profile NAME CALLS KEYS`.
fn profile() {
    let mut arguments = std::env::args().skip(2);
    let name = arguments.next().unwrap_or_default();
    let mut number = || arguments.next().and_then(|number| number.parse().ok());
    let (calls, keys) = (number().unwrap_or(1_000_000), number().unwrap_or(1));
    let mut random = Random(0);
    let mut next = || ip(&mut random, keys);
    let run = |work: &mut dyn FnMut()| (0..calls).for_each(|_: u32| work());
    match &*name {
        "inner" => run(&mut || drop(black_box(call(&mut Inner, next())))),
        "ring" => {
            let mut service = layer(unreached()).layer(Inner);
            run(&mut || drop(black_box(call(&mut service, next()))));
        }
        "log" => {
            let mut service = paced(auth(), keys).layer(Inner);
            run(&mut || drop(black_box(call(&mut service, next()))));
        }
        "fields" => {
            let mut service = paced(general(), keys)
                .with_fields(FieldsVersion::Draft10)
                .layer(Inner);
            run(&mut || drop(black_box(call(&mut service, next()))));
        }
        "smooth" => {
            let mut service = paced(smooth(), keys).layer(Inner);
            run(&mut || drop(black_box(call(&mut service, next()))));
        }
        "pair" => {
            let policy = |name: &str| Policy::strict(name, 100_000_000, WINDOW).unwrap();
            let mut service = RateLimitLayer::new([policy("a"), policy("b")]).layer(Inner);
            run(&mut || drop(black_box(call(&mut service, next()))));
        }
        "denied" => {
            let mut service = layer(auth()).with_context(quiet()).layer(Inner);
            run(&mut || drop(black_box(call(&mut service, next()))));
        }
        "floor" => {
            let mut service = Floor::new(u32::MAX);
            run(&mut || drop(black_box(call(&mut service, next()))));
        }
        "governor" => {
            let mut service = GovernorLayer::new(peer().finish().unwrap()).layer(Inner);
            run(&mut || drop(black_box(call(&mut service, next()))));
        }
        other => eprintln!("no candidate is called {other}"),
    }
}
