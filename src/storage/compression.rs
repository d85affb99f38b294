//! The three ways a snapshot may be packed, told by the last part of its name.
//!
//! gz is one ordinary gzip stream. snappy is the framing of the `snappy-java` library, not the official one:
//!
//! ```text
//! [82 'SNAPPY' 00][version 1:i32][compatible 1:i32] times [length:i32][raw snappy block]
//! ```

use std::fs::File;
use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::types::compression::Compression;

/// First bytes of a snappy stream.
pub(super) const SNAPPY_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const SNAPPY_VERSIONS: [u8; 8] = *b"\0\0\0\x01\0\0\0\x01";
/// First bytes of a gzip stream.
pub(super) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Uncompressed bytes of a block, as in Java.
const SNAPPY_BLOCK_BYTES: usize = 32 << 10;
/// Longest block that is believed, compressed or not, bytes. A foreign writer may choose more than Java's 32 KiB.
const SNAPPY_BLOCK_BYTES_MAX: usize = 16 << 20;

/// Where a snapshot's bytes come from.
pub enum Source {
    Plain(File),
    Gzip(Box<MultiGzDecoder<File>>),
    Snappy(SnappyReader<File>),
}

impl Source {
    pub(super) fn new(file: File, compression: Compression) -> Source {
        match compression {
            Compression::None => Source::Plain(file),
            Compression::Gzip => Source::Gzip(Box::new(MultiGzDecoder::new(file))),
            Compression::Snappy => Source::Snappy(SnappyReader::new(file)),
        }
    }
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(file) => file.read(out),
            Source::Gzip(decoder) => decoder.read(out),
            Source::Snappy(decoder) => decoder.read(out),
        }
    }
}

/// Where a snapshot's bytes go.
pub enum Sink {
    Plain(File),
    Gzip(GzEncoder<File>),
    Snappy(Box<SnappyWriter<File>>),
}

impl Sink {
    pub(super) fn new(file: File, compression: Compression) -> io::Result<Sink> {
        Ok(match compression {
            Compression::None => Sink::Plain(file),
            Compression::Gzip => Sink::Gzip(GzEncoder::new(file, flate2::Compression::default())),
            Compression::Snappy => Sink::Snappy(Box::new(SnappyWriter::new(file)?)),
        })
    }

    /// Writes what is still held back.
    pub(super) fn finish(self) -> io::Result<File> {
        match self {
            Sink::Plain(file) => Ok(file),
            Sink::Gzip(encoder) => encoder.finish(),
            Sink::Snappy(encoder) => encoder.finish(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Plain(file) => file.write(bytes),
            Sink::Gzip(encoder) => encoder.write(bytes),
            Sink::Snappy(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Plain(file) => file.flush(),
            Sink::Gzip(encoder) => encoder.flush(),
            Sink::Snappy(encoder) => encoder.flush(),
        }
    }
}

/// Unpacks a snappy stream, one block at a time.
pub struct SnappyReader<R> {
    source: R,
    started: bool,
    packed: Vec<u8>,
    block: Vec<u8>,
    /// Bytes of the block that are handed out.
    at: usize,
}

impl<R: Read> SnappyReader<R> {
    pub(super) fn new(source: R) -> SnappyReader<R> {
        SnappyReader { source, started: false, packed: Vec::new(), block: Vec::new(), at: 0 }
    }

    fn start(&mut self) -> io::Result<()> {
        let mut header = [0; 16];
        self.source.read_exact(&mut header)?;
        if header[..8] != SNAPPY_MAGIC {
            return Err(invalid("not a snappy stream"));
        }
        self.started = true;
        Ok(())
    }

    /// Unpacks the next block; `false` at the end of the stream.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut length = [0; 4];
        if !read_all_or_nothing(&mut self.source, &mut length)? {
            return Ok(false);
        }
        // Streams may be appended to each other; the magic read as a length is negative.
        if length == SNAPPY_MAGIC[..4] {
            let mut rest = [0; 12];
            self.source.read_exact(&mut rest)?;
            self.block.clear();
            self.at = 0;
            return Ok(true);
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > SNAPPY_BLOCK_BYTES_MAX {
            return Err(invalid("unreasonable length of a snappy block"));
        }
        self.packed.resize(length, 0);
        self.source.read_exact(&mut self.packed)?;
        let unpacked = snap::raw::decompress_len(&self.packed).map_err(|_| invalid("broken snappy block"))?;
        if unpacked > SNAPPY_BLOCK_BYTES_MAX {
            return Err(invalid("unreasonable length of a snappy block"));
        }
        self.block.resize(unpacked, 0);
        let len = snap::raw::Decoder::new().decompress(&self.packed, &mut self.block);
        self.block.truncate(len.map_err(|_| invalid("broken snappy block"))?);
        self.at = 0;
        Ok(true)
    }
}

impl<R: Read> Read for SnappyReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if !self.started {
            self.start()?;
        }
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let len = out.len().min(self.block.len() - self.at);
        out[..len].copy_from_slice(&self.block[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Fills the buffer, or finds the end of the source before its first byte.
fn read_all_or_nothing(source: &mut impl Read, out: &mut [u8]) -> io::Result<bool> {
    let mut len = 0;
    while len < out.len() {
        match source.read(&mut out[len..]) {
            Ok(0) if len == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Packs a snappy stream.
pub struct SnappyWriter<W> {
    sink: W,
    block: Vec<u8>,
    packed: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl<W: Write> SnappyWriter<W> {
    pub(super) fn new(mut sink: W) -> io::Result<SnappyWriter<W>> {
        sink.write_all(&SNAPPY_MAGIC)?;
        sink.write_all(&SNAPPY_VERSIONS)?;
        let packed = vec![0; 4 + snap::raw::max_compress_len(SNAPPY_BLOCK_BYTES)];
        let block = Vec::with_capacity(SNAPPY_BLOCK_BYTES);
        Ok(SnappyWriter { sink, block, packed, encoder: snap::raw::Encoder::new() })
    }

    fn write_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let len = self.encoder.compress(&self.block, &mut self.packed[4..]).map_err(io::Error::other)?;
        self.packed[..4].copy_from_slice(&(len as u32).to_be_bytes());
        self.sink.write_all(&self.packed[..4 + len])?;
        self.block.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_block()?;
        self.sink.flush()?;
        Ok(self.sink)
    }
}

impl<W: Write> Write for SnappyWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(SNAPPY_BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..len]);
        if self.block.len() == SNAPPY_BLOCK_BYTES {
            self.write_block()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_block()?;
        self.sink.flush()
    }
}
