//! The walk over a `multipart/form-data` body: one strict grammar, bytes that pass untouched.
//!
//! ```text
//! body     = "--" boundary ( "--" / CRLF part *( CRLF "--" boundary CRLF part )
//!            CRLF "--" boundary "--" ) [ CRLF ]
//! part     = head CRLF CRLF data
//! ```
//!
//! `"--" boundary` occurs nowhere else, not even inside a line of data or of a head: whatever a
//! reader takes for a delimiter, it takes the same ones.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::Finder;

use super::{fault::Fault, part::PartHead};
use crate::guarded::Released;

/// Who judges the parts that the walk finds.
pub(super) trait Judge {
    /// A part begins. `true`: its data may go on; `false`: it is kept back until `head`.
    fn part(&mut self, head: PartHead) -> Result<bool, Fault>;

    /// The first bytes of a part that is kept back: a whole window, or all that the part has.
    fn head(&mut self, head: &[u8], whole: bool) -> Result<(), Fault>;

    /// Data of a part. Bytes that `head` saw come here as well, after it.
    fn data(&mut self, data: &Bytes) -> Result<(), Fault>;

    /// The part has ended; its closing boundary is kept back until this returns.
    fn part_end(&mut self) -> Result<(), Fault>;
}

/// The state of the walk. What was seen and may not go on yet stands in `hold`.
#[derive(Debug)]
pub(super) struct Walk {
    /// `--` and the boundary.
    delimiter: Finder<'static>,
    state: State,
    hold: BytesMut,
    window: usize,
    max_head: usize,
    max_headers: usize,
    /// `--` and the new boundary, where the body is written anew.
    rewritten: Option<Box<[u8]>>,
    /// An empty line before the first boundary was passed over.
    led: bool,
}

#[derive(Debug)]
enum State {
    /// Before the first boundary.
    Start,
    /// A boundary was read; what follows it decides. `at`: where in `hold` it ended.
    Delimited { at: usize },
    /// In the head of a part, which begins at `at`; it has no end before `searched`.
    Head { at: usize, searched: usize },
    /// In data that is kept back and begins at `at`; the last `undecided` bytes of `hold` may
    /// begin a boundary.
    Kept { at: usize, undecided: usize },
    /// In data that goes on; all of `hold` may begin a boundary.
    Open,
    /// After the last boundary, which ended at `at`.
    Epilogue { at: usize },
}

impl Walk {
    /// A walk that keeps back at most `window` bytes of a part's data, and takes at most `max_head`
    /// bytes and `max_headers` lines of a part's head.
    pub(super) fn new(boundary: &str, window: usize, max_head: usize, max_headers: usize) -> Self {
        let delimiter = format!("--{boundary}");
        Self {
            delimiter: Finder::new(delimiter.as_bytes()).into_owned(),
            state: State::Start,
            hold: BytesMut::new(),
            window,
            max_head,
            max_headers,
            rewritten: None,
            led: false,
        }
    }

    /// Reads the compatible grammar, and writes the strict one with a `boundary` that must be in no
    /// data.
    pub(super) fn rewriting(self, boundary: &str) -> Self {
        let delimiter = format!("--{boundary}").into_bytes();
        Self {
            rewritten: Some(delimiter.into()),
            ..self
        }
    }

    pub(super) fn is_rewriting(&self) -> bool {
        self.rewritten.is_some()
    }

    /// How many bytes are kept back.
    pub(super) fn withheld(&self) -> usize {
        self.hold.len()
    }

    /// Reads on. What may go on is pushed to `out`, the last piece returned.
    pub(super) fn feed(
        &mut self,
        mut rest: Bytes,
        judge: &mut impl Judge,
        out: &mut Released,
    ) -> Result<Option<Bytes>, Fault> {
        while !rest.is_empty() {
            match self.state {
                State::Start => self.start(&mut rest)?,
                State::Delimited { at } => self.delimited(at, &mut rest)?,
                State::Head { at, searched } => {
                    self.head(at, searched, &mut rest, judge, out)?;
                }
                State::Kept { .. } | State::Open => {
                    if let Some(piece) = self.data(&mut rest, judge, out)? {
                        return Ok(Some(piece));
                    }
                }
                // What follows is nobody's, and is not written anew.
                State::Epilogue { .. } if self.is_rewriting() => rest.clear(),
                State::Epilogue { at } => {
                    self.hold.extend_from_slice(&rest);
                    rest.clear();
                    if !b"\r\n".starts_with(&self.hold[at..]) {
                        return Err(Fault::Epilogue);
                    }
                }
            }
        }
        Ok(None)
    }

    /// The body has ended: what is still kept back may go on once the whole is accepted.
    pub(super) fn end(&mut self) -> Result<Bytes, Fault> {
        match self.state {
            State::Epilogue { at } if matches!(&self.hold[at..], b"" | b"\r\n") => {
                if self.is_rewriting() {
                    self.hold.extend_from_slice(b"\r\n");
                }
                Ok(self.hold.split().freeze())
            }
            State::Epilogue { .. } => Err(Fault::Epilogue),
            _ => Err(Fault::Incomplete),
        }
    }

    fn start(&mut self, rest: &mut Bytes) -> Result<(), Fault> {
        let wanted = self.delimiter.needle().len();
        self.take(wanted - self.hold.len(), rest);
        if self.is_rewriting() && self.hold.starts_with(b"\r\n") && !self.led {
            self.led = true;
            self.hold.advance(2);
        }
        let line = self.is_rewriting() && !self.led && *self.hold == *b"\r";
        if !line && !self.delimiter.needle().starts_with(&self.hold) {
            return Err(Fault::Preamble);
        }
        if self.hold.len() == wanted {
            if let Some(delimiter) = &self.rewritten {
                self.hold.clear();
                self.hold.extend_from_slice(delimiter);
            }
            self.state = State::Delimited {
                at: self.hold.len(),
            };
        }
        Ok(())
    }

    fn delimited(&mut self, at: usize, rest: &mut Bytes) -> Result<(), Fault> {
        if self.is_rewriting() && self.hold.len() == at {
            let padding = rest
                .iter()
                .take_while(|byte| matches!(byte, b' ' | b'\t'))
                .count();
            rest.advance(padding);
        }
        self.take(at + 2 - self.hold.len(), rest);
        match &self.hold[at..] {
            b"" | b"\r" | b"-" => {}
            b"\r\n" => {
                let at = self.hold.len();
                self.state = State::Head { at, searched: at };
            }
            b"--" => {
                let at = self.hold.len();
                self.state = State::Epilogue { at };
            }
            _ => return Err(Fault::Boundary),
        }
        Ok(())
    }

    fn head(
        &mut self,
        at: usize,
        searched: usize,
        rest: &mut Bytes,
        judge: &mut impl Judge,
        out: &mut Released,
    ) -> Result<(), Fault> {
        let before = self.hold.len();
        let room = (at + self.max_head + END_OF_HEAD.len()).saturating_sub(before);
        let taken = room.min(rest.len());
        self.hold.extend_from_slice(&rest[..taken]);
        // The line end of the boundary may be the first half of the empty line.
        let from = searched.saturating_sub(END_OF_HEAD.len() - 1).max(at - 2);
        let Some(found) = memchr::memmem::find(&self.hold[from..], END_OF_HEAD) else {
            if taken == room {
                return Err(Fault::HeaderSize);
            }
            rest.advance(taken);
            self.state = State::Head {
                at,
                searched: self.hold.len(),
            };
            return Ok(());
        };
        let end = from + found + END_OF_HEAD.len();
        rest.advance(end - before);
        self.hold.truncate(end);
        let block = self.hold.get(at..end - 2).unwrap_or_default();
        if memchr::memchr_iter(b'\n', block).count() > self.max_headers {
            return Err(Fault::HeaderCount);
        }
        let head = match self.is_rewriting() {
            true => PartHead::parse_compat(block)?,
            // A reader that looks for boundaries first finds one here.
            false if self.delimiter.find(block).is_some() => return Err(Fault::Boundary),
            false => PartHead::parse(block)?,
        };
        let mut end = end;
        if self.is_rewriting() {
            self.hold.truncate(at);
            head.write(&mut self.hold);
            end = self.hold.len();
        }
        if judge.part(head)? {
            out.push(self.hold.split().freeze());
            self.state = State::Open;
        } else {
            self.state = State::Kept {
                at: end,
                undecided: 0,
            };
        }
        Ok(())
    }

    /// Data up to a boundary or to the end of what came. Returns the last piece that may go on.
    fn data(
        &mut self,
        rest: &mut Bytes,
        judge: &mut impl Judge,
        out: &mut Released,
    ) -> Result<Option<Bytes>, Fault> {
        let undecided = self.undecided();
        if undecided > 0 && !self.decide(undecided, rest, judge, out)? {
            return Ok(None);
        }
        let Some(found) = self.delimiter.find(rest) else {
            let tail = undecided_tail(rest, self.delimiter.needle());
            let data = rest.split_to(rest.len() - tail);
            let piece = self.pass(data, judge, out)?;
            self.hold.extend_from_slice(rest);
            rest.clear();
            self.set_undecided(tail);
            return Ok(piece);
        };
        // A line end that came before would stand in `hold`, and `decide` would have found this.
        let Some(data) = rest[..found].strip_suffix(b"\r\n").map(<[u8]>::len) else {
            return Err(Fault::Boundary);
        };
        let data = rest.split_to(data);
        if let Some(piece) = self.pass(data, judge, out)? {
            out.push(piece);
        }
        self.take(2 + self.delimiter.needle().len(), rest);
        self.close(judge, out)?;
        Ok(None)
    }

    /// Finds out whether a boundary begins in the undecided tail of `hold`. `true`: none does, the
    /// tail was data, and `rest` is untouched. `false`: one does and was read, or `rest` was too
    /// short to tell and is used up.
    fn decide(
        &mut self,
        undecided: usize,
        rest: &mut Bytes,
        judge: &mut impl Judge,
        out: &mut Released,
    ) -> Result<bool, Fault> {
        let delimiter = self.delimiter.needle().len();
        let before = self.hold.len();
        let tail = before - undecided;
        let taken = rest.len().min(delimiter + 1);
        self.hold.extend_from_slice(&rest[..taken]);
        let found = self.delimiter.find(&self.hold[tail..]);
        // One that begins two bytes or more after the tail has its line end after it too.
        if let Some(found) = found.filter(|found| *found < undecided + 2) {
            if self.hold[tail..tail + found]
                .strip_suffix(b"\r\n")
                .is_none()
            {
                return Err(Fault::Boundary);
            }
            let end = tail + found + delimiter;
            rest.advance(end - before);
            self.hold.truncate(end);
            self.close(judge, out)?;
            return Ok(false);
        }
        if taken > delimiter {
            self.hold.truncate(before);
            self.set_undecided(0);
            if matches!(self.state, State::Open) {
                // A few bytes: copied, `hold` stays as it is for the next.
                let data = Bytes::copy_from_slice(&self.hold);
                self.hold.clear();
                judge.data(&data)?;
                out.push(data);
            } else {
                self.judge_kept(false, judge, out)?;
            }
            return Ok(true);
        }
        rest.advance(taken);
        let still = undecided_tail(&self.hold[tail..], self.delimiter.needle());
        self.set_undecided(still);
        if matches!(self.state, State::Open) {
            let data = self.hold.split_to(self.hold.len() - still).freeze();
            judge.data(&data)?;
            out.push(data);
        } else {
            self.judge_kept(false, judge, out)?;
        }
        Ok(false)
    }

    /// Data that is certainly data: on it goes, or it is kept back up to the window.
    fn pass(
        &mut self,
        mut data: Bytes,
        judge: &mut impl Judge,
        out: &mut Released,
    ) -> Result<Option<Bytes>, Fault> {
        if let State::Kept { at, .. } = self.state {
            let room = (at + self.window).saturating_sub(self.hold.len());
            self.take(room.min(data.len()), &mut data);
            self.judge_kept(false, judge, out)?;
        }
        if data.is_empty() {
            return Ok(None);
        }
        judge.data(&data)?;
        Ok(Some(data))
    }

    /// Asks for the verdict on a part that is kept back, once the window is full or the part over.
    fn judge_kept(
        &mut self,
        whole: bool,
        judge: &mut impl Judge,
        out: &mut Released,
    ) -> Result<(), Fault> {
        let State::Kept { at, undecided } = self.state else {
            return Ok(());
        };
        let end = self.hold.len() - undecided;
        if !whole && end - at < self.window {
            return Ok(());
        }
        judge.head(&self.hold[at..end], whole)?;
        let kept = self.hold.split_to(end).freeze();
        judge.data(&kept.slice(at..))?;
        out.push(kept);
        self.state = State::Open;
        Ok(())
    }

    /// `hold` ends with a line end and a boundary: the part is over.
    fn close(&mut self, judge: &mut impl Judge, out: &mut Released) -> Result<(), Fault> {
        let boundary = 2 + self.delimiter.needle().len();
        self.set_undecided(boundary);
        self.judge_kept(true, judge, out)?;
        // In data that goes on, what precedes the boundary was undecided until now.
        let data = self.hold.split_to(self.hold.len() - boundary).freeze();
        judge.data(&data)?;
        out.push(data);
        judge.part_end()?;
        if let Some(delimiter) = &self.rewritten {
            self.hold.truncate(2);
            self.hold.extend_from_slice(delimiter);
        }
        self.state = State::Delimited {
            at: self.hold.len(),
        };
        Ok(())
    }

    fn undecided(&self) -> usize {
        match self.state {
            State::Kept { undecided, .. } => undecided,
            State::Open => self.hold.len(),
            _ => 0,
        }
    }

    fn set_undecided(&mut self, bytes: usize) {
        if let State::Kept { undecided, .. } = &mut self.state {
            *undecided = bytes;
        }
    }

    /// Moves at most `bytes` from `rest` to `hold`.
    fn take(&mut self, bytes: usize, rest: &mut Bytes) {
        let taken = bytes.min(rest.len());
        self.hold.extend_from_slice(&rest[..taken]);
        rest.advance(taken);
    }
}

/// How many of the last bytes may be the beginning of a boundary, with its line end or without.
fn undecided_tail(data: &[u8], delimiter: &[u8]) -> usize {
    let Some(&last) = data.last() else {
        return 0;
    };
    // The longest beginning that ends here; a whole boundary would have been found.
    let longest = data.len().min(delimiter.len() - 1);
    let begun = memchr::memrchr_iter(last, &delimiter[..longest])
        .map(|at| at + 1)
        .find(|&length| data.ends_with(&delimiter[..length]))
        .unwrap_or(0);
    match &data[..data.len() - begun] {
        [.., b'\r', b'\n'] => begun + 2,
        [.., b'\r'] if begun == 0 => 1,
        _ => begun,
    }
}

const END_OF_HEAD: &[u8] = b"\r\n\r\n";
