//! The decision on a request's head, and the check of its body.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderValue, Method, Request,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE},
};
use http_body::SizeHint;

use super::{
    content_type::Envelope,
    decode::Decoder,
    fault::{Fault, GATE},
    handle::{CheckedUpload, Ledger},
    judge::{NewFile, PartJudge},
    policy::UploadPolicy,
    spool::{Spool, Spooled},
    walk::{Judge as _, Walk},
};
use crate::{
    guarded::{BodyCheck, Pace, Released, Terms},
    head::Head,
    rejection::{Rejection, WireForm},
    secret::random,
};

/// The mechanism of the gate: a policy that decides on heads.
#[derive(Clone, Debug)]
pub(crate) struct Uploads {
    policy: Arc<UploadPolicy>,
}

impl Uploads {
    pub(crate) fn new(policy: UploadPolicy) -> Self {
        Self {
            policy: Arc::new(policy),
        }
    }

    /// `None` where there is no upload to check; else what the request is admitted with.
    pub(crate) fn decide(
        &self,
        head: Head<'_>,
        hint: &SizeHint,
    ) -> Result<Option<AdmittedUpload>, Rejection> {
        Ok(self.admit(head, hint)?)
    }

    /// Judges the size that the head states, of whatever the body is: before it is known who sends
    /// it.
    pub(crate) fn decide_size(&self, head: Head<'_>, hint: &SizeHint) -> Result<(), Rejection> {
        match stated(head, hint) > self.policy.body_limit() {
            true => Err(Fault::BodySize.into()),
            false => Ok(()),
        }
    }

    /// How the body is watched; `hold`: whether a success waits for the verdict.
    pub(crate) fn terms(&self, hold: bool) -> Terms {
        Terms {
            pace: Pace {
                gate: GATE,
                idle: self.policy.idle,
                min_rate: self.policy.min_rate,
                total: self.policy.deadline,
            },
            hold,
        }
    }

    fn admit(&self, head: Head<'_>, hint: &SizeHint) -> Result<Option<AdmittedUpload>, Fault> {
        let empty = hint.exact() == Some(0);
        if self.is_none(head, empty) {
            return Ok(None);
        }
        let mut types = head.headers.get_all(CONTENT_TYPE).iter();
        let (Some(value), None) = (types.next(), types.next()) else {
            return match head.headers.contains_key(CONTENT_TYPE) {
                true => Err(Fault::ContentType),
                false if empty => Ok(None),
                false => Err(Fault::Envelope),
            };
        };
        let policy = &self.policy;
        let envelope = Envelope::parse(value.as_bytes(), policy.max_boundary, policy.compat)?;
        let (ledger, handle) = Ledger::new();
        let mut judge = PartJudge::new(Arc::clone(policy), ledger);
        let mut content_type = None;
        let form = match envelope {
            Envelope::Form { boundary } => {
                let mut walk = Walk::new(
                    boundary,
                    WINDOW,
                    policy.max_part_head,
                    policy.max_part_headers,
                );
                if policy.compat {
                    let boundary = fresh_boundary();
                    let value = format!("multipart/form-data; boundary={boundary}");
                    content_type = HeaderValue::from_str(&value).ok();
                    walk = walk.rewriting(&boundary);
                }
                Form::Multipart(walk)
            }
            Envelope::Other(_) if empty => return Ok(None),
            Envelope::Other(declared) => {
                let allowed = policy.allowed(&declared).filter(|_| policy.raw);
                judge.begin(NewFile {
                    field: String::new(),
                    name: None,
                    extension: None,
                    declared: Some(Arc::clone(&allowed.ok_or(Fault::Envelope)?.name)),
                })?;
                Form::Raw(BytesMut::new())
            }
        };
        let ratio = self.ratio(head)?;
        let limit = match form {
            Form::Multipart(_) => policy.body_limit(),
            _ => policy.body_limit().min(policy.max_file),
        };
        if stated(head, hint) > limit {
            return Err(Fault::BodySize);
        }
        if empty {
            return Err(Fault::Incomplete);
        }
        Ok(Some(AdmittedUpload {
            check: UploadCheck {
                left: limit,
                decoder: ratio.map(|ratio| Decoder::new(limit, ratio)),
                sealed: false,
                form,
                judge,
                spooled: policy.spool.as_ref().map(Spool::begin),
                ended: false,
            },
            handle,
            content_type,
        }))
    }

    /// Whether a request holds no upload, and nothing that a handler could take for one. Where the
    /// whole body may be a file, every body could be taken for one.
    fn is_none(&self, head: Head<'_>, empty: bool) -> bool {
        if empty {
            return head.headers.contains_key(UPGRADE) || *head.method == Method::CONNECT;
        }
        let tunnel = *head.method == Method::CONNECT && !head.headers.contains_key(CONTENT_TYPE);
        !self.policy.raw && (tunnel || WireForm::of(head) == WireForm::Grpc)
    }

    /// How much larger an encoded body may become; `None` for one that is not encoded.
    fn ratio(&self, head: Head<'_>) -> Result<Option<u64>, Fault> {
        let mut ratio = None;
        for coding in head.headers.get_all(CONTENT_ENCODING) {
            let is = |name: &[u8]| coding.as_bytes().eq_ignore_ascii_case(name);
            ratio = match self.policy.gzip_ratio {
                _ if is(b"identity") => continue,
                Some(most) if ratio.is_none() && (is(b"gzip") || is(b"x-gzip")) => Some(most),
                _ => return Err(Fault::Encoded),
            };
        }
        Ok(ratio)
    }
}

/// What a body has at least.
fn stated(head: Head<'_>, hint: &SizeHint) -> u64 {
    let length = head.headers.get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    hint.lower().max(length.unwrap_or(0))
}

/// 128 random bits: no body holds it by accident or by design.
fn fresh_boundary() -> String {
    format!("portcullis-{:032x}", u128::from_be_bytes(random()))
}

/// What a request with an upload is admitted with.
#[derive(Debug)]
pub(crate) struct AdmittedUpload {
    check: UploadCheck,
    handle: CheckedUpload,
    /// The new `Content-Type` of a body that is written anew.
    content_type: Option<HeaderValue>,
}

impl AdmittedUpload {
    /// Leaves with the request what belongs to it, and returns the check for its body.
    pub(crate) fn apply<A>(self, request: &mut Request<A>) -> UploadCheck {
        request.extensions_mut().insert(self.handle);
        let headers = request.headers_mut();
        if let Some(content_type) = self.content_type {
            headers.insert(CONTENT_TYPE, content_type);
            headers.remove(CONTENT_LENGTH);
        }
        if self.check.decoder.is_some() {
            headers.remove(CONTENT_ENCODING);
            headers.remove(CONTENT_LENGTH);
        }
        self.check
    }
}

/// Checks one body.
#[derive(Debug)]
pub(crate) struct UploadCheck {
    left: u64,
    /// Where the body is sent compressed.
    decoder: Option<Decoder>,
    /// The decoder has got the whole body.
    sealed: bool,
    form: Form,
    judge: PartJudge,
    spooled: Option<Spooled>,
    /// The whole body was seen and is well-formed, and waits for its scans.
    ended: bool,
}

// It lives in the check's one allocation.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum Form {
    Multipart(Walk),
    /// One file; its head, until it is accepted.
    Raw(BytesMut),
    /// One file whose head was accepted; its last frame is kept back until the next.
    RawOpen(Bytes),
}

impl UploadCheck {
    fn feed(&mut self, data: Bytes, out: &mut Released) -> Result<Option<Bytes>, Fault> {
        self.left = self
            .left
            .checked_sub(data.len() as u64)
            .ok_or(Fault::BodySize)?;
        match &mut self.form {
            Form::Multipart(walk) => walk.feed(data, &mut self.judge, out),
            Form::Raw(hold) => {
                hold.extend_from_slice(&data);
                if hold.len() < WINDOW {
                    return Ok(None);
                }
                self.open()?;
                Ok(None)
            }
            Form::RawOpen(last) => {
                self.judge.data(&data)?;
                match data.is_empty() {
                    true => Ok(None),
                    false => Ok(Some(std::mem::replace(last, data))),
                }
            }
        }
    }

    /// The head of a raw file is complete.
    fn open(&mut self) -> Result<(), Fault> {
        if let Form::Raw(hold) = &mut self.form {
            let head = hold.split().freeze();
            self.judge.head(&head[..head.len().min(WINDOW)], false)?;
            self.judge.data(&head)?;
            self.form = Form::RawOpen(head);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Bytes, Fault> {
        self.open()?;
        let last = match &mut self.form {
            Form::Multipart(walk) => walk.end()?,
            Form::RawOpen(last) => {
                self.judge.part_end()?;
                std::mem::take(last)
            }
            Form::Raw(_) => Bytes::new(),
        };
        self.ended = true;
        self.accept();
        Ok(last)
    }

    /// Accepts a body that was seen to its end, unless a scan is under way.
    fn accept(&mut self) {
        if self.ended && !self.judge.is_scanning() {
            self.ended = false;
            self.judge.accept();
            if let Some(spooled) = &mut self.spooled {
                spooled.replay();
            }
        }
    }

    /// Puts what may go on where it waits for the verdict on all, where there is such a place.
    fn keep(&mut self, piece: Option<Bytes>, out: &mut Released) -> Result<Option<Bytes>, Fault> {
        let Some(spooled) = &mut self.spooled else {
            return Ok(piece);
        };
        while let Some(piece) = out.pop() {
            spooled.push(piece)?;
        }
        spooled.push(piece.unwrap_or_default())?;
        Ok(None)
    }

    fn work(&mut self, cx: &mut Context<'_>, out: &mut Released) -> Poll<Result<(), Fault>> {
        loop {
            ready!(self.judge.scans().poll(cx))?;
            self.accept();
            if let Some(spooled) = &mut self.spooled {
                ready!(spooled.poll(cx, out))?;
            }
            if !out.is_empty() || !self.decode(out)? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Decodes and checks a step of what was received; `false` where there is nothing to decode.
    fn decode(&mut self, out: &mut Released) -> Result<bool, Fault> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(false);
        };
        let whole = decoder.is_idle();
        let data = match whole {
            true if !self.sealed => return Ok(false),
            true => decoder.finish()?,
            false => decoder.step()?,
        };
        if let Some(piece) = self.feed(data, out)? {
            out.push(piece);
        }
        if whole {
            self.sealed = false;
            let last = self.finish()?;
            out.push(last);
        }
        if let Some(piece) = self.keep(None, out)? {
            out.push(piece);
        }
        Ok(true)
    }
}

impl BodyCheck for UploadCheck {
    fn data(&mut self, data: Bytes, out: &mut Released) -> Result<Option<Bytes>, Rejection> {
        if let Some(decoder) = &mut self.decoder {
            decoder.push(data);
            return Ok(None);
        }
        let piece = self.feed(data, out)?;
        Ok(self.keep(piece, out)?)
    }

    fn end(&mut self, out: &mut Released) -> Result<Option<Bytes>, Rejection> {
        if self.decoder.is_some() {
            self.sealed = true;
            return Ok(None);
        }
        let last = self.finish()?;
        Ok(self.keep(Some(last), out)?)
    }

    fn cut(&mut self) -> Option<Rejection> {
        Some(Fault::Incomplete.into())
    }

    fn withheld(&self) -> Option<u64> {
        let (held, rewritten) = match &self.form {
            Form::Multipart(walk) => (walk.withheld(), walk.is_rewriting()),
            Form::Raw(hold) => (hold.len(), false),
            Form::RawOpen(last) => (last.len(), false),
        };
        let spooled = self.spooled.as_ref().map_or(0, Spooled::len);
        let told = !rewritten && self.decoder.is_none();
        told.then_some(held as u64 + spooled)
    }

    fn has_work(&self) -> bool {
        let kept = self
            .spooled
            .as_ref()
            .is_some_and(|spooled| spooled.len() > 0);
        let encoded = self.decoder.as_ref();
        kept || self.judge.is_scanning()
            || self.sealed
            || encoded.is_some_and(|decoder| !decoder.is_idle())
    }

    fn poll_work(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Released,
    ) -> Poll<Result<(), Rejection>> {
        self.work(cx, out).map_err(Rejection::from)
    }
}

/// How much of a file is looked at before any of it goes on.
const WINDOW: usize = 4_096;
