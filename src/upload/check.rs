//! The decision on a request's head, and the check of its body.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{
    Method,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE},
};
use http_body::SizeHint;

use super::{
    content_type::Envelope,
    fault::{Fault, GATE},
    handle::{CheckedUpload, Ledger},
    judge::{NewFile, PartJudge},
    policy::UploadPolicy,
    walk::{Judge as _, Walk},
};
use crate::{
    guarded::{BodyCheck, Pace, Released, Terms},
    head::Head,
    rejection::{Rejection, WireForm},
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

    /// `None` where there is no upload to check; else the check for the body and the handle for the
    /// request's extensions.
    pub(crate) fn decide(
        &self,
        head: Head<'_>,
        hint: &SizeHint,
    ) -> Result<Option<(UploadCheck, CheckedUpload)>, Rejection> {
        Ok(self.check(head, hint)?)
    }

    /// How the body is watched; `hold`: whether a success waits for the verdict.
    pub(crate) fn terms(&self, hold: bool) -> Terms {
        Terms {
            pace: Pace {
                gate: GATE,
                idle: self.policy.idle,
                total: self.policy.deadline,
            },
            hold,
        }
    }

    fn check(
        &self,
        head: Head<'_>,
        hint: &SizeHint,
    ) -> Result<Option<(UploadCheck, CheckedUpload)>, Fault> {
        let empty = hint.exact() == Some(0);
        let tunnel =
            *head.method == Method::CONNECT || (empty && head.headers.contains_key(UPGRADE));
        if tunnel || WireForm::of(head) == WireForm::Grpc {
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
        let envelope = Envelope::parse(value.as_bytes(), policy.max_boundary)?;
        let (ledger, upload) = Ledger::new();
        let mut judge = PartJudge::new(Arc::clone(policy), ledger);
        let form = match envelope {
            Envelope::Form { boundary } => {
                Form::Multipart(Walk::new(boundary, WINDOW, policy.max_part_head))
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
        let identity =
            |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
        if !head.headers.get_all(CONTENT_ENCODING).iter().all(identity) {
            return Err(Fault::Encoded);
        }
        let limit = match form {
            Form::Multipart(_) => policy.body_limit(),
            _ => policy.body_limit().min(policy.max_file),
        };
        let stated = head
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .unwrap_or(0);
        if hint.lower().max(stated) > limit {
            return Err(Fault::BodySize);
        }
        if empty {
            return Err(Fault::Incomplete);
        }
        let check = UploadCheck {
            left: limit,
            form,
            judge,
        };
        Ok(Some((check, upload)))
    }
}

/// Checks one body.
#[derive(Debug)]
pub(crate) struct UploadCheck {
    left: u64,
    form: Form,
    judge: PartJudge,
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
        self.judge.accept();
        Ok(last)
    }
}

impl BodyCheck for UploadCheck {
    fn data(&mut self, data: Bytes, out: &mut Released) -> Result<Option<Bytes>, Rejection> {
        Ok(self.feed(data, out)?)
    }

    fn end(&mut self, _: &mut Released) -> Result<Option<Bytes>, Rejection> {
        Ok(Some(self.finish()?))
    }

    fn cut(&mut self) -> Option<Rejection> {
        Some(Fault::Incomplete.into())
    }

    fn withheld(&self) -> u64 {
        let bytes = match &self.form {
            Form::Multipart(walk) => walk.withheld(),
            Form::Raw(hold) => hold.len(),
            Form::RawOpen(last) => last.len(),
        };
        bytes as u64
    }
}

/// How much of a file is looked at before any of it goes on.
const WINDOW: usize = 4_096;
