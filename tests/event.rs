//! Events: what a log gets, whatever clients and sinks do.

mod support;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use http::Request;
use portcullis::{
    Client, Context, Identity, IdentityKind, Rejection, RejectionKind,
    event::{EventKind, EventSink, QueueSink, SecurityEvent, TracingSink},
    time::ManualClock,
};

use self::support::log::Log;

#[test]
fn a_flood_of_refusals_does_not_grow_the_log_beyond_its_rate() {
    let (lines, stood_for) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen, sum) = (Arc::clone(&lines), Arc::clone(&stood_for));
    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone()).with_events_inline(
        move |event: &SecurityEvent| {
            seen.fetch_add(1, Ordering::Relaxed);
            sum.fetch_add(u64::from(event.repeats()), Ordering::Relaxed);
        },
    );
    // 100 s of 200 clients that are refused 10 times a second each.
    for _ in 0..1_000 {
        for client in 0..200 {
            refuse(&context, client);
        }
        clock.advance(Duration::from_millis(100));
    }
    drop(context);
    assert_eq!(stood_for.load(Ordering::Relaxed), 200_000);
    // Two lines for each client and fold: its first, and what was folded.
    let lines = lines.load(Ordering::Relaxed);
    assert!(lines <= 200 * 2 * 10, "{lines}");
}

#[test]
fn a_flood_of_addresses_has_its_bound_too() {
    let lines = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&lines);
    let context = Context::new()
        .with_clock(ManualClock::new())
        .with_events_inline(move |_: &SecurityEvent| {
            seen.fetch_add(1, Ordering::Relaxed);
        });
    for client in 0..50_000 {
        refuse(&context, client);
    }
    drop(context);
    assert!(lines.load(Ordering::Relaxed) < 5_000);
}

#[test]
fn a_sink_that_panics_hurts_no_request() {
    let queue = QueueSink::to(Panics, 8).unwrap();
    for context in [
        Context::new().with_events(Panics),
        Context::new().with_events_inline(Panics),
        Context::new().with_events_inline(queue),
    ] {
        for client in 0..10 {
            assert_eq!(refuse(&context, client).status(), 403);
        }
    }
}

/// A line that costs a panic costs no other.
#[test]
fn a_sink_that_panics_gets_the_next_line() {
    let (tell, told) = mpsc::channel();
    let context = Context::new().with_events(move |event: &SecurityEvent| {
        assert_ne!(event.client(), Some(address(1)), "a broken sink");
        tell.send(event.client()).unwrap();
    });
    for client in 0..3 {
        refuse(&context, client);
    }
    drop(context);
    let told: Vec<_> = told.iter().collect();
    assert_eq!(told, [Some(address(0)), Some(address(2))]);
}

struct Panics;

impl EventSink for Panics {
    fn record(&self, _: &SecurityEvent) {
        panic!("a broken sink");
    }

    fn count(&self, _: &SecurityEvent) {
        panic!("a broken sink");
    }
}

#[test]
fn a_sink_that_blocks_holds_up_no_request() {
    const CLIENTS: u32 = 3_000;
    let (open, closed) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let gate = Mutex::new(closed);
    let sink = move |event: &SecurityEvent| {
        let _ = gate.lock().unwrap().recv();
        tell.send(event.client()).unwrap();
    };
    let context = Context::new()
        .with_clock(ManualClock::new())
        .with_events(sink);
    let requests = context.clone();
    let (done, all) = mpsc::channel();
    std::thread::spawn(move || {
        let answers = (0..CLIENTS).map(|client| refuse(&requests, client).status());
        done.send(answers.filter(|status| *status == 403).count())
    });
    let answered = all.recv_timeout(Duration::from_secs(60));
    assert_eq!(answered, Ok(3_000), "the requests waited for the sink");
    // One may be in the sink's hands, 1,024 wait, the others were dropped and counted.
    let dropped = context.events_dropped();
    assert!((1_975..=1_976).contains(&dropped), "{dropped}");
    drop(open);
    drop(context);
    assert_eq!(told.iter().count() as u64, 3_000 - dropped);
}

/// A sink that counts gets every event, one that writes gets lines; behind a queue too.
#[test]
fn every_single_event_is_counted() {
    #[derive(Clone, Default)]
    struct Both(Arc<(AtomicU64, AtomicU64)>);
    impl EventSink for Both {
        fn record(&self, _: &SecurityEvent) {
            self.0.0.fetch_add(1, Ordering::Relaxed);
        }

        fn count(&self, _: &SecurityEvent) {
            self.0.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    let seen = |both: &Both| [&both.0.0, &both.0.1].map(|count| count.load(Ordering::Relaxed));
    let both = Both::default();
    let context = Context::new()
        .with_clock(ManualClock::new())
        .with_events_inline(both.clone());
    for _ in 0..10 {
        refuse(&context, 1);
    }
    assert_eq!(seen(&both), [1, 10]);

    // A line that was folded stands for all of them behind a queue too.
    let both = Both::default();
    let context = Context::new()
        .with_clock(ManualClock::new())
        .with_events(both.clone());
    for _ in 0..10 {
        refuse(&context, 1);
    }
    drop(context);
    // The thread drops its sink when it has emptied the queue.
    while Arc::strong_count(&both.0) > 1 {
        std::thread::yield_now();
    }
    assert_eq!(seen(&both), [2, 10]);
}

#[test]
fn a_refusal_says_whose_request_it_was() {
    let (tell, told) = mpsc::channel();
    let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
        tell.send((event.subject().map(str::to_owned), event.client()))
            .unwrap();
    });
    let mut request = Request::new(());
    request
        .extensions_mut()
        .insert(Client::new(Some(address(1)), true));
    request
        .extensions_mut()
        .insert(Identity::new(IdentityKind::AccessToken, "u1"));
    let rejection = Rejection::new(RejectionKind::Forbidden, "test", "not_allowed");
    let _: http::Response<http_body_util::Full<bytes::Bytes>> = context.refuse(&request, rejection);
    assert_eq!(
        told.recv().unwrap(),
        (Some("u1".to_owned()), Some(address(1)))
    );
}

#[cfg(feature = "metrics")]
#[test]
fn what_a_full_queue_drops_is_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let exported = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let (sink, _events) = QueueSink::new(1);
        let context = Context::new().with_events_inline(sink);
        for client in 0..3 {
            refuse(&context, client);
        }
    });
    let text = exported.render();
    assert!(
        text.contains("portcullis_events_dropped_total 2\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_queue_takes_what_it_can_hold_and_counts_the_rest() {
    let (sink, mut events) = QueueSink::new(2);
    let context = Context::new()
        .with_clock(ManualClock::new())
        .with_events_inline(sink);
    for client in 0..5 {
        refuse(&context, client);
    }
    assert_eq!(events.dropped(), 3);
    for client in 0..2 {
        let event = events.recv().await.unwrap();
        assert_eq!(event.client(), Some(address(client)));
    }
    assert!(events.try_recv().is_none());
    refuse(&context, 7);
    assert!(events.try_recv().is_some());
    drop(context);
    assert!(events.recv().await.is_none());
}

#[test]
fn no_value_forges_a_line() {
    let hopeless = [
        "x\r\n2026-01-01T00:00:00Z  INFO portcullis::security: event=\"authn_login_success\"",
        "x\n\n",
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "\u{9b}31m",
        "\u{202e}resu\u{2066}",
        "\u{2028}\u{2029}\u{85}",
        "\u{0}\u{8}\u{7f}",
        "\u{feff}\u{200b}\u{e0041}",
        &"é".repeat(100_000),
    ];
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        for value in hopeless {
            let event = SecurityEvent::new(EventKind::AuthnTokenReuse)
                .with_subject(value)
                .with_session(value);
            TracingSink.record(&event);
        }
    });
    let text = log.text();
    assert_eq!(text.lines().count(), hopeless.len(), "{text}");
    assert_eq!(text.matches('\n').count(), hopeless.len());
    for line in text.lines() {
        assert!(line.contains("authn_token_reuse"), "{line}");
        assert!(line.chars().count() < 1_000, "{line}");
        let visible = |character: char| {
            !character.is_control()
                && !"\u{202e}\u{2066}\u{2028}\u{2029}\u{feff}\u{200b}\u{e0041}".contains(character)
        };
        assert!(line.chars().all(visible), "{line:?}");
    }
}

#[cfg(feature = "metrics")]
#[test]
fn users_and_addresses_make_no_series() {
    use portcullis::event::metric;

    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let exported = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        metric::register();
        let context = Context::new().with_events_inline(|_: &SecurityEvent| {});
        let everyone = |clients: std::ops::Range<u32>| {
            for client in clients {
                refuse(&context, client);
                for kind in EventKind::ALL {
                    let event = SecurityEvent::new(*kind)
                        .with_client(address(client))
                        .with_session(format!("session-{client}"))
                        .with_subject(format!("user-{client}"));
                    context.emit(event);
                }
            }
        };
        let series = || {
            let text = exported.render();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.filter(|line| !line.is_empty()).count()
        };
        everyone(0..1);
        let of_one = series();
        everyone(1..1_000);
        assert_eq!(series(), of_one);
        let text = exported.render();
        for name in ["user-", "session-", "10.0."] {
            assert!(!text.contains(name), "{name}");
        }
        let counted = "portcullis_rejections_total{gate=\"test\",reason=\"not_allowed\"} 1000";
        assert!(text.contains(counted), "{text}");
        let counted = "portcullis_events_total{event=\"authz_fail\"} 2000";
        assert!(text.contains(counted), "{text}");
    });
}

fn refuse(context: &Context, client: u32) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    let mut request = Request::new(());
    let client = Client::new(Some(address(client)), true);
    request.extensions_mut().insert(client);
    let rejection = Rejection::new(RejectionKind::Forbidden, "test", "not_allowed");
    context.refuse(&request, rejection)
}

fn address(client: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + client))
}
