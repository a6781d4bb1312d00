"""Zarr codecs that stop where a chunk should end: a chunk of 300 kB can otherwise grow to 10 GB of zeros."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import imagecodecs
import zarr
from zarr.abc.codec import ArrayArrayCodec, BytesBytesCodec, Codec
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec
from zarr.codecs._v2 import V2Codec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer

from napari_semiseg.errors import InputError
from napari_semiseg.io import limits

_SLACK = 4096  # checksums and padding beyond the pixels themselves
_COMPRESSORS: dict[type[Codec], str] = {ZstdCodec: "zstd", GzipCodec: "gzip", BloscCodec: "blosc"}
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def bounded(array: zarr.Array[Any], where: str) -> zarr.Array[Any]:
    """Make an array refuse chunks that decode to more than their shape holds.

    Parameters
    ----------
    array : zarr.Array
        Freshly opened; it is changed and returned.
    where : str
        The file, for messages.

    Raises
    ------
    InputError
        If it uses a codec that cannot be bounded.
    """
    inner = array.async_array
    metadata = inner.metadata
    if metadata.zarr_format == 2:
        size = limits.bytes_of(metadata.chunks, metadata.dtype.to_native_dtype())
        compressor = None if metadata.compressor is None else _BoundedV2(metadata.compressor, size, where)
        codecs: list[Codec] = [V2Codec(filters=metadata.filters, compressor=compressor)]  # type: ignore[arg-type]
    else:
        codecs = [_bounded(codec, where) for codec in metadata.codecs]
    object.__setattr__(inner, "codec_pipeline", type(inner.codec_pipeline).from_codecs(codecs))
    return array


def _bounded(codec: Codec, where: str) -> Codec:
    if isinstance(codec, ShardingCodec):
        return ShardingCodec(
            chunk_shape=codec.chunk_shape,
            codecs=[_bounded(inner, where) for inner in codec.codecs],
            index_codecs=[_bounded(inner, where) for inner in codec.index_codecs],
            index_location=codec.index_location,
        )
    if isinstance(codec, BytesCodec | Crc32cCodec | TransposeCodec):
        return codec
    name = _COMPRESSORS.get(type(codec))
    if name is None or isinstance(codec, ArrayArrayCodec) or not isinstance(codec, BytesBytesCodec):
        raise InputError(
            f"'{where}' is stored with the codec {type(codec).__name__}, which is not read here: save it with zstd, "
            "gzip or blosc."
        )
    return _Bounded(codec, name, where)


@dataclass(frozen=True)
class _Bounded(BytesBytesCodec):
    """A compressor of Zarr 3 that checks before it decodes."""

    inner: BytesBytesCodec
    name: str
    where: str
    is_fixed_size = False

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        size = limits.bytes_of(chunk_spec.shape, chunk_spec.dtype.to_native_dtype())
        decoded = _decoded(self.name, chunk_data.to_bytes(), size, self.where)
        if decoded is not None:
            return chunk_spec.prototype.buffer.from_bytes(decoded)
        return await self.inner._decode_single(chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await self.inner._encode_single(chunk_data, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        return self.inner.compute_encoded_size(input_byte_length, chunk_spec)


class _BoundedV2:
    """A compressor of Zarr 2 that checks before it decodes."""

    def __init__(self, inner: Any, size: int, where: str) -> None:
        self._inner, self._size, self._where = inner, size, where
        if inner.codec_id not in ("zstd", "gzip", "zlib", "blosc", "lz4"):
            raise InputError(
                f"'{where}' is stored with the codec {inner.codec_id}, which is not read here: save it with zstd, gzip "
                "or blosc."
            )

    def decode(self, data: Any, out: Any = None) -> Any:
        decoded = _decoded(self._inner.codec_id, bytes(data), self._size, self._where)
        return self._inner.decode(data, out) if decoded is None else decoded


def _decoded(codec: str, data: bytes, size: int, where: str) -> bytes | None:
    """Check how long `data` gets. Return it decoded where only decoding tells, None where its header does."""
    too_long = InputError(
        f"A chunk of '{where}' decodes to more than its {size:,} bytes: the file is broken, export it again."
    )
    most = 2 * size + _SLACK  # filters may have widened the numbers
    if codec in ("gzip", "zlib"):
        return _inflated(data, most, too_long)
    if codec == "zstd":
        claimed = _zstd_size(data)
        if claimed is None:
            return _unsized_zstd(data, most, too_long)
    else:
        at = 4 if codec == "blosc" else 0
        claimed = int.from_bytes(data[at : at + 4], "little")
    if claimed > most:
        raise too_long
    return None


def _inflated(data: bytes, most: int, too_long: InputError) -> bytes:
    parts: list[bytes] = []
    while data:
        member = zlib.decompressobj(wbits=47)  # zlib or gzip, found by the header
        parts.append(member.decompress(data, most + 1))
        if sum(map(len, parts)) > most:
            raise too_long
        if not member.eof:
            raise zlib.error("incomplete or truncated stream")
        data = member.unused_data
    return b"".join(parts)


def _zstd_size(data: bytes) -> int | None:
    """Return the content size in a zstd frame's header, None where there is none (RFC 8878, section 3.1.1.1)."""
    if data[:4] != _ZSTD_MAGIC or len(data) < 6:
        return 0  # no frame: the decoder will say so
    descriptor = data[4]
    single = bool(descriptor & 0x20)
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    if not width:
        return None
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)


def _unsized_zstd(data: bytes, most: int, too_long: InputError) -> bytes:
    try:
        return bytes(imagecodecs.zstd_decode(data, out=most))
    except imagecodecs.ZstdError as error:
        if "too small" in str(error):
            raise too_long from None
        raise
