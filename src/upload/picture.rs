//! Where a picture ends, by its own structure. Sound in RIFF too.

use super::pairs::pairs;

/// The structure ends here and more data follows, or it makes no sense.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    Behind,
    Broken,
}

/// Collects a few bytes that may come in pieces.
#[derive(Debug, Default)]
struct Few {
    bytes: [u8; 13],
    len: usize,
}

impl Few {
    /// Moves bytes from `data`; true once there are `wanted`.
    fn fill(&mut self, wanted: usize, data: &mut &[u8]) -> bool {
        let taken = (wanted - self.len).min(data.len());
        let (head, rest) = data.split_at(taken);
        self.bytes[self.len..self.len + taken].copy_from_slice(head);
        self.len += taken;
        *data = rest;
        self.len == wanted
    }

    fn clear(&mut self) {
        self.len = 0;
    }
}

/// Skips `left` bytes; true once they are gone.
fn skip(left: &mut u64, data: &mut &[u8]) -> bool {
    let skipped = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
    *data = &data[skipped..];
    *left -= skipped as u64;
    *left == 0
}

/// What is left behind zeros. Cameras and editors fill files up with them, and no reader finds
/// anything in them.
fn behind_zeros(data: &[u8]) -> &[u8] {
    let end = data.iter().position(|byte| *byte != 0);
    &data[end.unwrap_or(data.len())..]
}

fn only_zeros(data: &[u8]) -> Result<(), Stop> {
    match behind_zeros(data).is_empty() {
        true => Ok(()),
        false => Err(Stop::Behind),
    }
}

/// Chunks (PNG, third edition, section 5.3) up to IEND.
#[derive(Debug, Default)]
pub(super) struct Png {
    state: PngState,
    few: Few,
    left: u64,
}

#[derive(Debug, Default, Eq, PartialEq)]
enum PngState {
    #[default]
    Signature,
    Chunk,
    Body {
        last: bool,
    },
    End,
}

impl Png {
    pub(super) fn is_whole(&self) -> bool {
        self.state == PngState::End
    }

    pub(super) fn feed(&mut self, mut data: &[u8]) -> Result<(), Stop> {
        while !data.is_empty() {
            match self.state {
                PngState::Signature => {
                    if self.few.fill(8, &mut data) {
                        self.few.clear();
                        self.state = PngState::Chunk;
                    }
                }
                PngState::Chunk => {
                    if self.few.fill(8, &mut data) {
                        self.few.clear();
                        let [a, b, c, d, name @ ..] = self.few.bytes;
                        let length = u32::from_be_bytes([a, b, c, d]);
                        let name = &name[..4];
                        let last = name == b"IEND";
                        if !name.iter().all(u8::is_ascii_alphabetic)
                            || length > i32::MAX as u32
                            || (last && length != 0)
                        {
                            return Err(Stop::Broken);
                        }
                        self.left = u64::from(length) + 4;
                        self.state = PngState::Body { last };
                    }
                }
                PngState::Body { last } => {
                    if skip(&mut self.left, &mut data) {
                        self.state = if last { PngState::End } else { PngState::Chunk };
                    }
                }
                PngState::End => return only_zeros(data),
            }
        }
        Ok(())
    }
}

/// Segments (ITU-T T.81, annex B) up to EOI. Where an index of further pictures was announced
/// (MPF, as phones write), whole JPEGs may follow; nothing else.
#[derive(Debug, Default)]
pub(super) struct Jpeg {
    state: JpegState,
    few: Few,
    left: u64,
    several: bool,
}

#[derive(Debug, Default, Eq, PartialEq)]
enum JpegState {
    #[default]
    Start,
    Marker,
    Length {
        marker: u8,
    },
    /// The name of what APP2 holds.
    Application,
    Segment {
        scan: bool,
    },
    /// Entropy-coded data.
    Scan,
    /// An FF in entropy-coded data.
    ScanMarker,
    End,
}

impl Jpeg {
    pub(super) fn is_whole(&self) -> bool {
        self.state == JpegState::End
    }

    pub(super) fn feed(&mut self, mut data: &[u8]) -> Result<(), Stop> {
        while let [first, rest @ ..] = data {
            match self.state {
                JpegState::Start => {
                    if self.few.fill(2, &mut data) {
                        self.few.clear();
                        if self.few.bytes[..2] != [0xff, 0xd8] {
                            return Err(if self.several {
                                Stop::Behind
                            } else {
                                Stop::Broken
                            });
                        }
                        self.state = JpegState::Marker;
                    }
                }
                JpegState::Marker => {
                    if self.few.fill(2, &mut data) {
                        self.few.clear();
                        self.marker()?;
                    }
                }
                JpegState::Length { marker } => {
                    if self.few.fill(2, &mut data) {
                        self.few.clear();
                        let [high, low, ..] = self.few.bytes;
                        let length = u64::from(u16::from_be_bytes([high, low]));
                        self.left = length.checked_sub(2).ok_or(Stop::Broken)?;
                        self.state = match (marker, self.left) {
                            (0xe2, 4..) => JpegState::Application,
                            (0xda, 0) => JpegState::Scan,
                            (_, 0) => JpegState::Marker,
                            _ => JpegState::Segment {
                                scan: marker == 0xda,
                            },
                        };
                    }
                }
                JpegState::Application => {
                    if self.few.fill(4, &mut data) {
                        self.few.clear();
                        self.several |= self.few.bytes.starts_with(b"MPF\0");
                        self.left -= 4;
                        self.state = match self.left {
                            0 => JpegState::Marker,
                            _ => JpegState::Segment { scan: false },
                        };
                    }
                }
                JpegState::Segment { scan } => {
                    if skip(&mut self.left, &mut data) {
                        self.state = if scan {
                            JpegState::Scan
                        } else {
                            JpegState::Marker
                        };
                    }
                }
                JpegState::Scan => match pairs(data, is_marker).next() {
                    Some(at) => {
                        data = &data[at + 1..];
                        self.state = JpegState::ScanMarker;
                    }
                    None => {
                        if data.ends_with(&[0xff]) {
                            self.state = JpegState::ScanMarker;
                        }
                        return Ok(());
                    }
                },
                JpegState::ScanMarker => {
                    let marker = *first;
                    data = rest;
                    match marker {
                        // A stuffed byte, or a restart.
                        0x00 | 0xd0..=0xd7 => self.state = JpegState::Scan,
                        // A fill byte.
                        0xff => {}
                        _ => {
                            self.few.bytes[..2].copy_from_slice(&[0xff, marker]);
                            self.marker()?;
                        }
                    }
                }
                JpegState::End if self.several => {
                    data = behind_zeros(data);
                    if !data.is_empty() {
                        self.state = JpegState::Start;
                    }
                }
                JpegState::End => return only_zeros(data),
            }
        }
        Ok(())
    }

    fn marker(&mut self) -> Result<(), Stop> {
        self.state = match self.few.bytes[..2] {
            [0xff, 0xd9] => JpegState::End,
            // A fill byte before the marker.
            [0xff, 0xff] => {
                self.few.len = 1;
                JpegState::Marker
            }
            [0xff, marker @ (0xc0..=0xcf | 0xda..=0xfe)] => JpegState::Length { marker },
            _ => return Err(Stop::Broken),
        };
        Ok(())
    }
}

/// A marker in entropy-coded data: no stuffed byte, no restart, no fill byte.
fn is_marker(first: u8, second: u8) -> bool {
    (first == 0xff) & (second != 0) & (second & 0xf8 != 0xd0) & (second != 0xff)
}

/// Blocks (GIF89a) up to the trailer.
#[derive(Debug, Default)]
pub(super) struct Gif {
    state: GifState,
    few: Few,
    left: u64,
}

#[derive(Debug, Default, Eq, PartialEq)]
enum GifState {
    #[default]
    Header,
    Table,
    Block,
    /// The label of an extension.
    Label,
    Image,
    ImageTable,
    CodeSize,
    SubBlock,
    SubBlockData,
    End,
}

impl Gif {
    pub(super) fn is_whole(&self) -> bool {
        self.state == GifState::End
    }

    pub(super) fn feed(&mut self, mut data: &[u8]) -> Result<(), Stop> {
        while let [first, rest @ ..] = data {
            match self.state {
                GifState::Header => {
                    if self.few.fill(13, &mut data) {
                        self.few.clear();
                        self.table(self.few.bytes[10], GifState::Table, GifState::Block);
                    }
                }
                GifState::Table => {
                    if skip(&mut self.left, &mut data) {
                        self.state = GifState::Block;
                    }
                }
                GifState::Block => {
                    data = rest;
                    self.state = match first {
                        0x21 => GifState::Label,
                        0x2c => GifState::Image,
                        0x3b => GifState::End,
                        _ => return Err(Stop::Broken),
                    };
                }
                GifState::Label => {
                    data = rest;
                    self.state = GifState::SubBlock;
                }
                GifState::Image => {
                    if self.few.fill(9, &mut data) {
                        self.few.clear();
                        self.table(self.few.bytes[8], GifState::ImageTable, GifState::CodeSize);
                    }
                }
                GifState::ImageTable => {
                    if skip(&mut self.left, &mut data) {
                        self.state = GifState::CodeSize;
                    }
                }
                GifState::CodeSize => {
                    data = rest;
                    self.state = GifState::SubBlock;
                }
                GifState::SubBlock => {
                    data = rest;
                    self.left = u64::from(*first);
                    self.state = match first {
                        0 => GifState::Block,
                        _ => GifState::SubBlockData,
                    };
                }
                GifState::SubBlockData => {
                    if skip(&mut self.left, &mut data) {
                        self.state = GifState::SubBlock;
                    }
                }
                GifState::End => return only_zeros(data),
            }
        }
        Ok(())
    }

    /// A colour table of the size that `flags` give, where they announce one.
    fn table(&mut self, flags: u8, with: GifState, without: GifState) {
        if flags & 0x80 != 0 {
            self.left = 3 << ((flags & 7) + 1);
            self.state = with;
        } else {
            self.state = without;
        }
    }
}

/// A RIFF file says its length. An odd one is padded, though not by everyone.
#[derive(Debug, Default)]
pub(super) struct Riff {
    few: Few,
    /// What is left, the padding too, once the length was read.
    left: Option<u64>,
    padding: u64,
}

impl Riff {
    pub(super) fn is_whole(&self) -> bool {
        self.left == Some(0) || self.left == Some(self.padding)
    }

    pub(super) fn feed(&mut self, mut data: &[u8]) -> Result<(), Stop> {
        if self.left.is_none() && self.few.fill(8, &mut data) {
            let [_, _, _, _, a, b, c, d, ..] = self.few.bytes;
            let length = u64::from(u32::from_le_bytes([a, b, c, d]));
            self.padding = length % 2;
            self.left = Some(length + self.padding);
        }
        if let Some(left) = &mut self.left {
            skip(left, &mut data);
            return only_zeros(data);
        }
        Ok(())
    }
}
