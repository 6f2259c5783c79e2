"""Open Inference Protocol v2 over REST: wire types, an infer request to instances, scores to an infer response.

One input per request. For an ImageClassification model it is named `images`: datatype BYTES of shape [N] (image
files: base64 strings in JSON, raw in the binary extension), or FP32 or UINT8 of shape [N, C, H, W] (or [N, H, W]
for one channel). FP32 is the model's own input, already normalized; UINT8 is pixels from 0 to 255, which the
server normalizes. For TextClassification it is named `texts`, BYTES of shape [N]. [N, 1] stands for [N].

Outputs: `scores`, FP32 [N, classes], and `labels`, BYTES [N, topK], the best first; the empty string stands where
the score is below the service's threshold, since a tensor has no ragged rows. The binary tensor data extension is
in `binary.py`.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ..config import Limits, Postprocess
from ..engine.protocol import Instance, ModelInfo
from ..errors import InvalidInputError
from ..tasks.classification import Floats, top_classes
from . import binary, classify
from .body import DECODING_ERRORS, explain

OUTPUTS: Final = ("scores", "labels")


class RequestInput(msgspec.Struct):
    """A tensor of the request. `data` is decoded once its datatype is known."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw()


class RequestedOutput(msgspec.Struct):
    """An output that the client asks for by name."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """The JSON part of a request."""

    inputs: list[RequestInput]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[RequestedOutput] = []


class ResponseOutput(msgspec.Struct, omit_defaults=True):
    """A tensor of the answer; without `data` if its bytes follow the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: list[float] | list[str] | None = None


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The JSON part of an answer."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | None = None


class TensorMetadata(msgspec.Struct):
    """A tensor as model metadata describes it; -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """`GET /v2/models/NAME`; `digest` and `labels` are ours, beyond the protocol."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    task: str
    digest: str
    labels: list[str]


@dataclass(frozen=True, slots=True)
class Inference:
    """What a request asks for.

    Attributes:
        binary_outputs: The outputs to answer with, in order, and whether each is wanted as raw bytes.
    """

    id: str | None
    instances: list[Instance]
    binary_outputs: Mapping[str, bool]
    param: str = "inputs[0].data"


_request_decoder = msgspec.json.Decoder(InferRequest)
_UINT8 = Annotated[int, msgspec.Meta(ge=0, le=255)]


def _nested(element: Any) -> list[msgspec.json.Decoder[Any]]:
    """Decoders of lists of the element, from one deep to four deep: data may be flat or nested like its shape."""
    decoders: list[msgspec.json.Decoder[Any]] = []
    kind = element
    for _ in range(4):
        kind = types.GenericAlias(list, (kind,))
        decoders.append(msgspec.json.Decoder(kind))
    return decoders


_DECODERS = {
    "FP32": _nested(float),
    "UINT8": _nested(_UINT8),
    "texts": _nested(str),
    "images": _nested(bytes),
}
_DTYPES: dict[str, npt.DTypeLike] = {"FP32": "<f4", "UINT8": "u1"}


def version_of(digest: str) -> str:
    """The version that the protocol's paths use: the first 16 hex digits of the digest, as in the model's own URI."""
    return digest.removeprefix("sha256:")[:16]


def metadata(name: str, model: ModelInfo, postprocess: Postprocess) -> ModelMetadata:
    """What `GET /v2/models/NAME` answers."""
    classes = len(model.labels)
    return ModelMetadata(
        name=name,
        versions=[version_of(model.digest)],
        platform="datahall_pytorch",
        inputs=[TensorMetadata(_input_name(model), "BYTES", [-1])],
        outputs=[
            TensorMetadata("scores", "FP32", [-1, classes]),
            TensorMetadata("labels", "BYTES", [-1, min(postprocess.top_k, classes)]),
        ],
        task=model.task,
        digest=model.digest,
        labels=model.labels,
    )


def parse(body: bytes, *, json_length: str | None, model: ModelInfo, limits: Limits) -> Inference:
    """Read an infer request.

    Args:
        body: All of it.
        json_length: The header `Inference-Header-Content-Length` of the binary extension, if sent.
        model: What the input must fit.
        limits: Of the texts' length.
    """
    text, blob = binary.split(body, json_length)
    try:
        request = _request_decoder.decode(text)
    except DECODING_ERRORS as error:
        raise explain(error) from None
    if len(request.inputs) != 1:
        raise InvalidInputError(f"the model takes 1 input, not {len(request.inputs)}", param="inputs")
    tensor = request.inputs[0]
    if tensor.name != _input_name(model):
        raise InvalidInputError(
            f"unknown input {tensor.name!r}; the model's is {_input_name(model)!r}", param="inputs[0].name"
        )
    raw = binary.take(blob, tensor.parameters)
    instances = _instances(tensor, raw, model, limits)
    return Inference(request.id, instances, _outputs(request))


def respond(
    inference: Inference, scores: Floats, *, name: str, model: ModelInfo, postprocess: Postprocess
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON part if bytes follow that."""
    outputs, blobs = [], []
    for output, as_bytes in inference.binary_outputs.items():
        if output == "scores":
            tensor = ResponseOutput("scores", "FP32", list(scores.shape))
            values: Any = scores
        else:
            values = _label_rows(scores, model, postprocess)
            tensor = ResponseOutput("labels", "BYTES", [len(values), len(values[0])])
            values = [label for row in values for label in row]
        if as_bytes:
            blob = binary.encode(values)
            tensor.parameters = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            tensor.data = values.ravel().tolist() if output == "scores" else values
        outputs.append(tensor)
    head = msgspec.json.encode(InferResponse(name, version_of(model.digest), outputs, inference.id))
    return b"".join([head, *blobs]), len(head) if blobs else None


def _label_rows(scores: Floats, model: ModelInfo, postprocess: Postprocess) -> list[list[str]]:
    width = min(postprocess.top_k, len(model.labels))
    rows = []
    for row in scores:
        named = top_classes(row, model.labels, top_k=width, threshold=postprocess.threshold)
        rows.append([best.label for best in named] + [""] * (width - len(named)))
    return rows


def _input_name(model: ModelInfo) -> str:
    return "images" if model.task == "ImageClassification" else "texts"


def _outputs(request: InferRequest) -> dict[str, bool]:
    by_default = _flag(request.parameters, "binary_data_output", "parameters")
    if not request.outputs:
        return dict.fromkeys(OUTPUTS, by_default)
    chosen = {}
    for index, output in enumerate(request.outputs):
        if output.name not in OUTPUTS:
            raise InvalidInputError(
                f"unknown output {output.name!r}; there are {' and '.join(OUTPUTS)}",
                param=f"outputs[{index}].name",
            )
        has_own = "binary_data" in output.parameters
        own = _flag(output.parameters, "binary_data", f"outputs[{index}].parameters")
        chosen[output.name] = own if has_own else by_default
    return chosen


def _flag(parameters: Mapping[str, Any], name: str, where: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise InvalidInputError("must be true or false", param=f"{where}.{name}")
    return value


def _instances(
    tensor: RequestInput, raw: memoryview | None, model: ModelInfo, limits: Limits
) -> list[Instance]:
    if raw is None and not bytes(tensor.data):
        raise InvalidInputError("missing", param="inputs[0].data")
    if raw is not None and bytes(tensor.data):
        raise InvalidInputError("given both here and as binary data", param="inputs[0].data")
    if tensor.datatype == "BYTES":
        return _bytes_instances(tensor, raw, model, limits)
    if tensor.datatype in _DTYPES and model.input_shape is not None:
        return _tensor_instances(tensor, raw, model.input_shape)
    allowed = "BYTES" if model.input_shape is None else "BYTES, FP32 or UINT8"
    raise InvalidInputError(
        f"datatype {tensor.datatype!r} is not taken; send {allowed}", param="inputs[0].datatype"
    )


def _bytes_instances(
    tensor: RequestInput, raw: memoryview | None, model: ModelInfo, limits: Limits
) -> list[Instance]:
    shape = tensor.shape
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)) or shape[0] < 1:
        raise InvalidInputError(f"{shape} is not [N] with N of at least 1", param="inputs[0].shape")
    takes_images = model.input_shape is not None
    if raw is not None:
        files = binary.decode_bytes(raw)
        _require_count(len(files), shape[0])
        if takes_images:
            return classify.images(files, param="inputs[0].data")
        try:
            values = [bytes(file).decode() for file in files]
        except UnicodeDecodeError:
            raise InvalidInputError("texts must be UTF-8", param="inputs[0].data") from None
        return classify.texts(values, param="inputs[0].data", limits=limits)
    decoded = _decode(tensor.data, "images" if takes_images else "texts")
    if decoded and isinstance(decoded[0], list):
        decoded = [element for row in decoded for element in row]
    _require_count(len(decoded), shape[0])
    if takes_images:
        return classify.images(decoded, param="inputs[0].data")
    return classify.texts(decoded, param="inputs[0].data", limits=limits)


def _tensor_instances(
    tensor: RequestInput, raw: memoryview | None, input_shape: tuple[int, int, int]
) -> list[Instance]:
    channels, height, width = input_shape
    accepted = [[channels, height, width]] + ([[height, width]] if channels == 1 else [])
    if len(tensor.shape) < 3 or tensor.shape[0] < 1 or tensor.shape[1:] not in accepted:
        wanted = " or ".join(f"[N, {', '.join(map(str, shape))}]" for shape in accepted)
        raise InvalidInputError(f"{tensor.shape} is not {wanted}", param="inputs[0].shape")
    dtype = np.dtype(_DTYPES[tensor.datatype])
    count = math.prod(tensor.shape)
    if raw is not None:
        if len(raw) != count * dtype.itemsize:
            raise InvalidInputError(
                f"{len(raw)} bytes, {tensor.datatype} of shape {tensor.shape} has {count * dtype.itemsize}",
                param="inputs[0].parameters.binary_data_size",
            )
        values = np.frombuffer(raw, dtype)
    else:
        with np.errstate(over="ignore"):
            try:
                values = np.array(_decode(tensor.data, tensor.datatype), dtype=dtype).ravel()
            except ValueError:  # numpy's word for it is "inhomogeneous"
                raise InvalidInputError("the rows have different lengths", param="inputs[0].data") from None
        _require_count(values.size, count)
    if tensor.datatype == "FP32" and not np.isfinite(values).all():
        raise InvalidInputError("FP32 numbers must be finite", param="inputs[0].data")
    rows = values.reshape(tensor.shape[0], -1)
    return [Instance("tensor", row.tobytes(), tensor.datatype, input_shape) for row in rows]


def _decode(data: msgspec.Raw, kind: str) -> Any:
    """Decode `data` as nested as its leading brackets say."""
    text = bytes(data)
    depth, position = 0, 0
    while position < len(text) and text[position] in b"[ \t\r\n" and depth <= 4:
        depth += text[position] == ord("[")
        position += 1
    if kind in ("texts", "images"):
        depth = min(depth, 2)
    try:
        return _DECODERS[kind][min(max(depth, 1), 4) - 1].decode(text)
    except DECODING_ERRORS as error:
        raise explain(error, within="inputs[0].data") from None


def _require_count(found: int, expected: int) -> None:
    if found != expected:
        raise InvalidInputError(f"{found} elements, the shape says {expected}", param="inputs[0].data")
