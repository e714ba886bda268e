//! Messages in the frames of gRPC: prost's codec with buffers that start small and grow with what they hold, since a
//! controller has ten thousand streams open that say little. Says nothing of what a message means.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// Where each buffer starts: room for a heartbeat. tonic would take 8 KiB for either direction of every stream.
const START: usize = 256;
/// Messages that are ready are put together up to so much before they go out; tonic's own default.
const TOGETHER: usize = 32 * 1024;

/// The codec of all methods.
#[derive(Debug, Clone)]
pub struct LeanCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for LeanCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for LeanCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(START, TOGETHER))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(START, TOGETHER))
    }
}
