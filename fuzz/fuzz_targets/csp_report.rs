//! Reports of browsers: at most twenty events, each by the name of a directive, whatever anybody
//! posts. The first byte chooses the media type, the second the size of the frames.
#![no_main]

use std::sync::{Arc, LazyLock, Mutex};

use http::Request;
use libfuzzer_sys::fuzz_target;
use portcullis::{
    Context,
    event::{EventKind, SecurityEvent},
    headers::{CspReports, Directive},
};
use portcullis_fuzz::{ask, framed};

type Told = Arc<Mutex<Vec<(EventKind, Option<&'static str>)>>>;

/// Counts every event: lines are folded.
struct Count(Told);

impl portcullis::event::EventSink for Count {
    fn record(&self, _: &SecurityEvent) {}

    fn count(&self, event: &SecurityEvent) {
        self.0.lock().unwrap().push((event.kind(), event.reason()));
    }
}

static SETUP: LazyLock<(CspReports, Told)> = LazyLock::new(|| {
    let told = Told::default();
    let context = Context::new().with_events_inline(Count(Arc::clone(&told)));
    (CspReports::new().with_context(context), told)
});

fuzz_target!(|input: &[u8]| {
    let [kind, size, body @ ..] = input else {
        return;
    };
    let (reports, told) = &*SETUP;
    let kind = ["application/reports+json", "application/csp-report"][usize::from(kind % 2)];
    let request = Request::post("/csp").header("content-type", kind);
    let request = request.body(framed(body, usize::from(*size))).unwrap();
    let answer = ask(reports.clone(), request);
    let told = std::mem::take(&mut *told.lock().unwrap());
    if answer.status() == 204 {
        assert!(told.len() <= 20);
        let json: serde_json::Value = serde_json::from_slice(body).expect("it was read");
        assert!(json.as_array().is_none_or(|all| told.len() <= all.len()));
        for (kind, reason) in told {
            assert_eq!(kind, EventKind::CspViolation);
            let reason = reason.expect("a directive");
            assert!(
                reason == "other" || Directive::ALL.iter().any(|known| known.as_str() == reason)
            );
        }
    } else {
        assert!(
            matches!(answer.status().as_u16(), 400 | 413),
            "{}",
            answer.status()
        );
        assert!(
            told.iter()
                .all(|(kind, _)| *kind != EventKind::CspViolation)
        );
    }
});
