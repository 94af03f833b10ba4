"""List the operators a stranger's graph may hold, and refuse every other before the first call.

What reads or writes files, or memory by raw sizes and strides, is not here, nor is what runs
Python, prints, or draws what grows without bound. The names are those of torch's ``aten`` set,
without overloads, the same for TorchScript and torch.export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

#: sums, products, functions of one number, comparisons: out of place
_ELEMENTWISE = """
    abs acos acosh add addcdiv addcmul asin asinh atan atan2 atanh bitwise_and bitwise_not
    bitwise_or bitwise_xor ceil clamp clamp_max clamp_min copysign cos cosh deg2rad digamma div
    divide elu eq erf erfc erfinv exp exp2 expm1 fill floor floor_divide fmod frac ge gelu glu gt
    hardshrink hardsigmoid hardswish hardtanh hypot isfinite isinf isnan le leaky_relu lerp lgamma
    log log10 log1p log2 log_sigmoid log_softmax logaddexp logical_and logical_not logical_or
    logical_xor logit lt masked_fill maximum minimum mish mul multiply ne neg negative nan_to_num
    pow prelu reciprocal relu relu6 remainder round rrelu rsqrt rsub selu sgn sigmoid sign silu
    sin sinc sinh softmax softplus softshrink softsign sqrt square sub subtract tan tanh threshold
    trunc where xlogy zero
    _softmax _log_softmax
"""
#: what has a form that works in its place and keeps the size
_IN_PLACE = """
    add_ addcdiv_ addcmul_ clamp_ clamp_max_ clamp_min_ copy_ div_ dropout_ elu_ exp_ fill_
    hardsigmoid_ hardswish_ hardtanh_ leaky_relu_ log_ masked_fill_ mish_ mul_ neg_ pow_
    reciprocal_ relu6_ relu_ rsqrt_ selu_ sigmoid_ silu_ softmax_ sqrt_ square_ sub_ tanh_
    threshold_ zero_
"""
_LAYERS = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d addbmm addmm addmv alpha_dropout avg_pool1d avg_pool2d avg_pool3d
    baddbmm batch_norm bilinear bmm cdist conv1d conv2d conv3d conv_transpose1d conv_transpose2d
    conv_transpose3d convolution _convolution cosine_similarity dot dropout einsum embedding
    feature_dropout group_norm instance_norm one_hot layer_norm linear local_response_norm matmul
    max_pool1d max_pool2d max_pool3d max_pool2d_with_indices mm mv native_batch_norm
    native_dropout native_group_norm native_layer_norm outer pixel_shuffle pixel_unshuffle
    rms_norm scaled_dot_product_attention upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_trilinear3d _native_batch_norm_legit_no_training _adaptive_avg_pool2d
    channel_shuffle constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d
"""
_SUMMARIES = """
    all amax amin any argmax argmin cumprod cumsum frobenius_norm linalg_vector_norm logsumexp
    max mean median min norm prod std std_mean sum var var_mean
"""
_SHAPES = """
    alias atleast_1d atleast_2d broadcast_tensors broadcast_to cat chunk clone concat concatenate
    contiguous detach diagonal expand expand_as flatten flip index index_select gather movedim
    narrow permute repeat repeat_interleave reshape reshape_as roll select slice split
    split_with_sizes squeeze stack swapaxes t tensor_split transpose tril triu unbind unflatten
    unfold unsqueeze view view_as
    lift_fresh lift_fresh_copy clone contiguous to type_as float double half bfloat16 int long bool
    _to_copy _assert_tensor_metadata
"""
#: tensors from nothing, their sizes held to the file's by a trial run
_MAKERS = """
    arange empty empty_like eye full full_like linspace new_empty new_full new_ones new_zeros
    ones ones_like rand rand_like randn randn_like normal bernoulli scalar_tensor tensor zeros
    zeros_like
"""
#: of TorchScript: numbers and lists, which no tensor holds; those that add or multiply lists or
#: texts are told apart by their types, see ``programs.script``
_SCRIPT = """
    Bool Float Int IntImplicit FloatImplicit ScalarImplicit __and__ __contains__ __getitem__
    __is__ __isnot__ __not__ __or__ __range_length append as_tensor dim device
    floordiv format get_device is_floating_point item keys len list neg numel size sym_size warn
    dtype layout is_cuda is_complex ndimension
"""

ATEN = frozenset(
    " ".join((_ELEMENTWISE, _IN_PLACE, _LAYERS, _SUMMARIES, _SHAPES, _MAKERS, "sym_size")).split()
)
IN_PLACE = frozenset(_IN_PLACE.split())
SCRIPT_ATEN = ATEN | IN_PLACE | frozenset(_SCRIPT.split())
#: TorchScript's own nodes; loops are looked at one by one
_SCRIPT_PRIM = """
    Constant ListConstruct ListUnpack TupleConstruct TupleUnpack TupleIndex TupleSlice
    DictConstruct GetAttr CallMethod CallFunction If Loop Return Param RaiseException
    Uninitialized unchecked_cast Unchecked_cast dtype device shape layout isinstance NumToTensor
    min max abs unchecked_unwrap_optional is_cuda requires_grad data annotate
"""
SCRIPT_PRIM = frozenset(_SCRIPT_PRIM.split())


def refuse(source: Source, operator: str, why: str = "is not among what a network needs") -> None:
    """Refuse an operator of a graph, unless the user trusts the file.

    Args:
        source: the file.
        operator: its name, as the file has it.
        why: what is wrong with it.

    Raises:
        CheckpointError: naming the operator.
    """
    if not source.trusted:
        raise_refusal(source, operator, why)


def raise_refusal(source: Source, operator: str, why: str) -> NoReturn:
    """Raise CheckpointError for an operator of a file."""
    raise CheckpointError(
        f"{source.path}: operator {operator} {why}; it is not run. If you trust whoever wrote the "
        "file, let it run with --trust"
    )
